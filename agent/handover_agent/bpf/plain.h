/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading what nearly every packet is: TCP or UDP right behind an IP header without options, which is right behind an
 * Ethernet header, all in one piece of memory. Read in place, as a helper's call costs more than all of it.
 */
#ifndef HANDOVER_PLAIN_H
#define HANDOVER_PLAIN_H

#include "packet.h"

#define IPV4_PLAIN 0x45 /* version 4, a header of five words */

static __always_inline int plain_transport(
	struct packet *packet, const void *transport, const void *end, __u8 protocol)
{
	const struct tcp_header *tcp = transport;
	const struct udp_header *udp = transport;

	if (protocol == PROTOCOL_TCP) {
		if ((const void *)(tcp + 1) > end)
			return 0;
		read_tcp(packet, tcp);
		packet->key.from_port = tcp->from;
		packet->key.to_port = tcp->to;
	} else if (protocol == PROTOCOL_UDP) {
		if ((const void *)(udp + 1) > end)
			return 0;
		packet->does = OPENS | ACCEPTS;
		packet->key.from_port = udp->from;
		packet->key.to_port = udp->to;
	} else {
		return 0;
	}
	packet->key.protocol = packet->fragment_protocol = protocol;
	return 1;
}

static __always_inline int plain_ipv4(struct packet *packet, const void *data, const void *end, __u32 bytes)
{
	const struct ipv4_header *header = data + ETHERNET_BYTES;

	if ((const void *)(header + 1) > end || header->version_length != IPV4_PLAIN ||
		header->fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE) ||
		ETHERNET_BYTES + network16(header->bytes) > bytes ||
		!plain_transport(packet, header + 1, end, header->protocol))
		return 0;
	map_ipv4(&packet->key.from, header->from);
	map_ipv4(&packet->key.to, header->to);
	packet->ipv4 = 1;
	packet->transport = ETHERNET_BYTES + sizeof(*header);
	packet->transport_bytes = network16(header->bytes) - sizeof(*header);
	return 1;
}

static __always_inline int plain_ipv6(struct packet *packet, const void *data, const void *end, __u32 bytes)
{
	const struct ipv6_header *header = data + ETHERNET_BYTES;

	if ((const void *)(header + 1) > end || *(const __u8 *)header >> 4 != 6 ||
		ETHERNET_BYTES + sizeof(*header) + network16(header->bytes) > bytes ||
		!plain_transport(packet, header + 1, end, header->next))
		return 0;
	packet->key.from = header->from;
	packet->key.to = header->to;
	packet->transport = ETHERNET_BYTES + sizeof(*header);
	packet->transport_bytes = network16(header->bytes);
	return 1;
}

/* 0: it is not such a one, and is to be read in the careful way. */
static __always_inline int parse_plain(const struct __sk_buff *skb, struct packet *packet)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	int found = 0;

	if (data + ETHERNET_BYTES > end || *(const __be16 *)(data + ETHERTYPE_AT) != skb->protocol)
		return 0;
	/* It may be that an IP header is at the beginning, and its source's address looks like a type. */
	if (*(const __u8 *)data >> 4 == (skb->protocol == PROTOCOL_IPV4 ? 4 : 6) && !network_offset(skb))
		return 0;
	if (skb->protocol == PROTOCOL_IPV4)
		found = plain_ipv4(packet, data, end, skb->len);
	else if (skb->protocol == PROTOCOL_IPV6)
		found = plain_ipv6(packet, data, end, skb->len);
	if (!found)
		return 0;
	packet->link_bytes = packet->network = ETHERNET_BYTES;
	return 1;
}

#endif
