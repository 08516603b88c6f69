/* SPDX-License-Identifier: Apache-2.0
 *
 * A quick look at what the node sends to itself. All of its local connections go this way, and nearly none is ours.
 */
#ifndef HANDOVER_ITSELF_H
#define HANDOVER_ITSELF_H

#include "flows.h"

/* Whether no flow is about a packet that leaves by the loopback device. 0: that takes a closer look. */
static __always_inline int is_nobodys(struct __sk_buff *skb)
{
	struct flow_key key = {.protocol = PROTOCOL_TCP};
	void *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv4_header *ipv4 = start + ETHERNET_BYTES;
	struct ipv6_header *ipv6 = start + ETHERNET_BYTES;
	struct tcp_header *tcp;

	if (skb->protocol == PROTOCOL_IPV4) {
		tcp = (void *)(ipv4 + 1);
		if ((void *)(tcp + 1) > end || ipv4->version_length != IPV4_PLAIN ||
			ipv4->protocol != PROTOCOL_TCP || ipv4->fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE))
			return 0;
		map_ipv4(&key.from, ipv4->from);
		map_ipv4(&key.to, ipv4->to);
	} else {
		tcp = (void *)(ipv6 + 1);
		if ((void *)(tcp + 1) > end || skb->protocol != PROTOCOL_IPV6 || ipv6->next != PROTOCOL_TCP)
			return 0;
		key.from = ipv6->from;
		key.to = ipv6->to;
	}
	if (tcp->flags & TCP_SYN)
		return 0;
	key.from_port = tcp->from;
	key.to_port = tcp->to;
	/* Answers to the node are for ports of a range of their own (flows.h). */
	if (network16(key.to_port) >= NODE_PORT_FIRST && find_flow(&key, TO_CLIENT))
		return 0;
	if (find_flow(&key, TO_BACKEND))
		return 0;
	count(COUNT_packet_no_flow);
	return 1;
}

#endif
