/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of packets that have a flow: of whole ones, of pieces, and of ICMP errors about them.
 */
#ifndef HANDOVER_TRANSLATE_H
#define HANDOVER_TRANSLATE_H

#include "flows.h"
#include "fragments.h"
#include "node.h"
#include "rewrite.h"
#include "work.h"

/* Gives a packet, or with `piece` one without ports, another source or destination, and the packet's key as well. */
static __always_inline int rewrite_other(struct __sk_buff *skb, struct packet *packet, enum side side,
	const struct address *address, int piece)
{
	const struct flow_key *key = &packet->key;

	if (piece ? rewrite_piece(skb, packet, side, address)
		  : rewrite(skb, packet, side, address, key->from_port, key->to_port))
		return -1;
	if (side == SOURCE)
		packet->key.from = *address;
	else
		packet->key.to = *address;
	return 0;
}

/* Sends a packet to the backend of its flow, which is in work->flow. */
static __always_inline int forward(struct __sk_buff *skb, struct work *work, enum hook hook)
{
	int from_localhost = hook == HOOK_NODE && work->flow.flags & FLOW_LOCALHOST;
	struct packet *packet = &work->packet;
	const struct flow *flow = &work->flow;
	__u32 mark = MARK_OURS | (flow->flags & FLOW_MASQUERADE ? MARK_MASQUERADE : 0);

	if (rewrite(skb, packet, DESTINATION, &flow->other.address, flow->client_port, flow->other.port))
		return SHOT;
	skb->mark |= mark;
	remember_fragment(packet, hook, &flow->other.address, mark, from_localhost);
	if (from_localhost) {
		work->client = localhost_outside();
		if (rewrite_other(skb, packet, SOURCE, &work->client, 0))
			return SHOT;
	}
	count(COUNT_packet_forwarded);
	return hook == HOOK_NODE ? send_to_backend(skb, packet, &flow->other.address, &work->way) : GO_ON;
}

/* Gives a backend's packet the frontend as its source; the flow is in work->flow. */
static __always_inline int restore(struct __sk_buff *skb, struct work *work, enum hook hook)
{
	int for_localhost = hook == HOOK_TO_NODE && work->flow.flags & FLOW_LOCALHOST;
	struct packet *packet = &work->packet;
	const struct flow *flow = &work->flow;

	if (rewrite(skb, packet, SOURCE, &flow->other.address, flow->other.port, flow->client_port))
		return SHOT;
	remember_fragment(packet, hook, &flow->other.address, 0, for_localhost);
	if (for_localhost) {
		work->client = localhost();
		if (rewrite_other(skb, packet, DESTINATION, &work->client, 0))
			return SHOT;
	}
	count(COUNT_packet_restored);
	return hook == HOOK_TO_NODE
		       ? deliver_to_node(skb, packet, &packet->key.to, &flow->other.address, &work->way)
		       : GO_ON;
}

/* A later piece of a datagram. 0: there is nothing to be done here. */
static __always_inline int piece(struct __sk_buff *skb, struct work *work, enum hook hook, int *action)
{
	const struct fragment *found = find_fragment(&work->packet, hook);
	struct packet *packet = &work->packet;
	struct address *address = &work->flow.other.address;
	int forwards = hook == HOOK_INWARD || hook == HOOK_NODE;

	if (!found)
		return 0;
	*address = found->address;
	skb->mark |= found->mark;
	if (rewrite_piece(skb, packet, forwards ? DESTINATION : SOURCE, address)) {
		*action = SHOT;
		return 1;
	}
	count(forwards ? COUNT_packet_forwarded : COUNT_packet_restored);
	*action = GO_ON;
	if ((hook == HOOK_NODE || hook == HOOK_TO_NODE) && found->localhost) {
		work->client = forwards ? localhost_outside() : localhost();
		if (rewrite_other(skb, packet, forwards ? SOURCE : DESTINATION, &work->client, 1)) {
			*action = SHOT;
			return 1;
		}
	}
	if (hook == HOOK_NODE)
		*action = send_to_backend(skb, packet, address, &work->way);
	if (hook == HOOK_TO_NODE)
		*action = deliver_to_node(skb, packet, &packet->key.to, address, &work->way);
	return 1;
}

/* The flow that the packet is about which an ICMP error quotes, in work->flow. */
static __always_inline int find_quoted(struct work *work, enum direction direction)
{
	const struct flow *found;

	turn(&work->packet.key, &work->turned);
	found = find_flow(&work->turned, direction);
	if (!found || found->flags & FLOW_LEFT)
		return 0;
	work->flow = *found;
	return 1;
}

/* An ICMP error that came in about a frontend's answer: for its backend, about the backend's. */
static __always_inline int forward_error(struct __sk_buff *skb, struct work *work)
{
	const struct flow *flow = &work->flow;

	if (rewrite_quoted(
		    skb, &work->packet, SOURCE, &flow->other.address, flow->other.port, flow->client_port))
		return SHOT;
	skb->mark |= MARK_OURS;
	count(COUNT_packet_error_forwarded);
	return GO_ON;
}

/* An ICMP error on its way to a client about a packet to a backend: about one to the frontend. */
static __always_inline int restore_error(struct __sk_buff *skb, struct work *work, enum hook hook)
{
	int for_localhost = hook == HOOK_TO_NODE && work->flow.flags & FLOW_LOCALHOST;
	const struct packet *packet = &work->packet;
	const struct flow *flow = &work->flow;

	if (for_localhost) {
		work->client = localhost();
		if (rewrite_quoted(
			    skb, packet, SOURCE, &work->client, packet->key.from_port, packet->key.to_port))
			return SHOT;
	}
	if (rewrite_quoted(
		    skb, packet, DESTINATION, &flow->other.address, flow->client_port, flow->other.port))
		return SHOT;
	count(COUNT_packet_error_restored);
	if (for_localhost) {
		skb->mark |= MARK_OURS;
		return turn_inward(skb, packet);
	}
	return hook == HOOK_TO_NODE && packet->from_target
		       ? deliver_to_node(skb, packet, &packet->key.from, &flow->other.address, &work->way)
		       : GO_ON;
}

#endif
