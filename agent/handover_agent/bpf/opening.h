/* SPDX-License-Identifier: Apache-2.0
 *
 * Which flow a packet to a frontend belongs to: one that is known and goes on, or a new one with a backend for it.
 */
#ifndef HANDOVER_OPENING_H
#define HANDOVER_OPENING_H

#include "changing.h"
#include "flows.h"
#include "known.h"
#include "node.h"
#include "select.h"
#include "sender.h"
#include "work.h"

/* Where a packet comes from. */
enum origin { FROM_OUTSIDE, FROM_POD, FROM_NODE };

#define TRANSLATE 1 /* not an action: the flow is in work->flow */

/* The frontend of a packet's destination. `outside`: 1 when it arrived as EXTERNAL but has the INTERNAL one. */
static __always_inline int packet_frontend(
	const struct packet *packet, enum origin origin, struct frontend *frontend, __u32 *outside)
{
	struct frontend_key key = {.address = packet->key.to,
		.port = packet->key.to_port,
		.protocol = packet->key.protocol,
		.scope = SCOPE_INTERNAL};

	*outside = 0;
	if (!may_be_frontend(place_of(&packet->key.to)))
		return 0;
	if (origin == FROM_OUTSIDE) {
		key.scope = SCOPE_EXTERNAL;
		if (read_frontend(&key, frontend))
			return 1;
		key.scope = SCOPE_INTERNAL;
		*outside = 1;
	}
	return find_frontend(&key, frontend);
}

/* Whether a flow that is there goes on, when it meets a packet that could begin one; `frontend`: null, there is none
 * any more. */
static __always_inline int goes_on(
	struct flow_key *key, struct flow *flow, const struct frontend *frontend, __u64 now)
{
	struct choice choice = {.backend = flow->other, .index = flow->index};
	const struct flow *backward;
	struct flow_key other;

	if (has_ended(key, flow, now)) {
		count(COUNT_flow_ended);
		return 0;
	}
	if (flow->confused)
		return 0;
	if (flow->flags & FLOW_DIRECT)
		return 1;
	if (frontend) {
		if (find_serving(frontend, &choice)) {
			if (flow->index != choice.index)
				flow->index = choice.index;
			return 1;
		}
		if (key->protocol == PROTOCOL_UDP) {
			other_key(key, flow, &other);
			backward = map_lookup(FLOWS, &other);
			if (backward && backward->answered &&
				now - backward->last_seen_ns < DRAINING_S * NS_PER_S) {
				count(COUNT_flow_draining);
				return 1;
			}
		}
	}
	count(COUNT_flow_moved);
	return 0;
}

/* Whether a source may use a frontend that admits some only. */
static __always_inline int is_admitted(const struct frontend *frontend, const struct address *source)
{
	struct source_key key = {
		.prefix_bits = 8 * (sizeof(key) - sizeof(key.prefix_bits)),
		.service_id = network32(frontend->service_id),
		.source = *source,
	};

	return !!map_lookup(SOURCES, &key);
}

/* The client that affinity knows a packet's sender by: on this node, its namespace. */
static __always_inline struct address client_of(
	struct __sk_buff *skb, const struct packet *packet, enum origin origin)
{
	__u64 cookie = origin == FROM_OUTSIDE ? 0 : sender_namespace(skb);

	if (cookie)
		return client_of_namespace(cookie);
	if (origin != FROM_OUTSIDE)
		count(COUNT_affinity_by_address);
	return packet->key.from;
}

/* Writes a new flow. 0: the packet cannot be translated, and goes as `*action` says. */
static __always_inline int open_flow(struct flow_key *key, struct flow *flow, int another_port, int *action)
{
	struct flow_key other;
	struct flow *first;

	will_have_flows(AS_FRONTEND(place_of(&key->to)));
	will_have_flows(AS_BACKEND(place_of(&flow->other.address)));
	if (!take_backward(key, flow, another_port)) {
		*action = SHOT;
		return 0;
	}
	key->direction = TO_BACKEND;
	if (!map_update(FLOWS, key, flow, BPF_NOEXIST)) {
		count(COUNT_flow_opened);
		return 1;
	}
	other_key(key, flow, &other);
	first = map_lookup(FLOWS, key);
	if (!first) {
		map_delete(FLOWS, &other);
		count(COUNT_error_flow_not_written);
		*action = GO_ON;
		return 0;
	}
	/* Another CPU was quicker with another packet of this flow: its choice counts. */
	if (!same_endpoint(&first->other, &flow->other) || first->client_port != flow->client_port)
		map_delete(FLOWS, &other);
	*flow = *first;
	return 1;
}

/* The flow of a packet that opens one, or may. Returns TRANSLATE, or what is to become of the packet else. */
static __always_inline int find_or_open(
	struct __sk_buff *skb, struct work *work, struct flow *known, enum origin origin, __u64 now)
{
	struct frontend *frontend = &work->frontend;
	struct packet *packet = &work->packet;
	struct flow *flow = &work->flow;
	int found, action = GO_ON;

	begin_opening(work);
	if (known && known->flags & (FLOW_LEFT | FLOW_HELD)) {
		if (is_left(known, now))
			return GO_ON;
		if (is_held(known) && origin != FROM_NODE)
			return hold(skb);
		if (known->flags & FLOW_LEFT) {
			count(COUNT_flow_ended);
			map_delete(FLOWS, &packet->key);
			known = 0;
		}
	}
	found = packet_frontend(packet, origin, frontend, &work->outside);
	if (known) {
		if (goes_on(&packet->key, known, found ? frontend : 0, now)) {
			if (known->proof != packet->proof)
				set_proof(&packet->key, known, packet->proof);
			note_packet(&packet->key, known, packet, now);
			*flow = *known;
			return TRANSLATE;
		}
		work->another_port = known->confused;
		forget_flow(&packet->key, known);
	}
	if (origin == FROM_POD)
		note_address(skb, packet);
	flow->last_seen_ns = now;
	flow->proof = packet->proof;
	if (!found) {
		/* Not for us, unless a flow of ours looks just like it. */
		turn(&packet->key, &work->turned);
		known = find_flow(&work->turned, TO_CLIENT);
		if (!known) {
			count(COUNT_packet_not_a_frontend);
			return GO_ON;
		}
		if (has_ended(&work->turned, known, now)) {
			count(COUNT_flow_ended);
			forget_flow(&work->turned, known);
			return GO_ON;
		}
		flow->other.address = packet->key.to;
		flow->other.port = packet->key.to_port;
		flow->flags = origin == FROM_NODE ? FLOW_DIRECT | FLOW_NODE : FLOW_DIRECT;
		work->another_port = 1;
	} else {
		if (!is_accepting()) {
			count(COUNT_packet_not_accepting);
			if (packet->key.protocol == PROTOCOL_UDP && frontend->count && origin != FROM_NODE)
				leave(&packet->key, frontend, flow, now);
			return GO_ON;
		}
		if (frontend->flags & FRONTEND_SOURCES && !is_admitted(frontend, &packet->key.from)) {
			count(COUNT_packet_source_dropped);
			return SHOT;
		}
		if (frontend->flags & FRONTEND_AFFINITY)
			work->client = client_of(skb, packet, origin);
		switch (select_backend(frontend, &work->client, 0, &work->choice)) {
		case CHOSEN:
			break;
		case REFUSE:
			skb->mark |= MARK_REFUSE;
			count(COUNT_packet_refused);
			/* The kernel's rules refuse what arrives: what leaves by the loopback device will. */
			return origin == FROM_NODE && skb->ifindex != LOOPBACK ? turn_inward(skb, packet)
									       : GO_ON;
		case DROP:
			count(COUNT_packet_dropped);
			return SHOT;
		default:
			return GO_ON;
		}
		if (is_ipv4(&work->choice.backend.address) != packet->ipv4) {
			count(COUNT_error_backend_family);
			return GO_ON;
		}
		flow->other = work->choice.backend;
		flow->index = work->choice.index;
		flow->service_id = frontend->service_id;
		if (origin == FROM_NODE) {
			/* Its address is the node's already. Its port would be that of its direct connections. */
			flow->flags = FLOW_NODE;
			work->another_port = 1;
			if (is_loopback(&packet->key.from)) {
				work->client = localhost_outside();
				if (!is_localhost(&packet->key.from) || !work->client.word[3]) {
					count(COUNT_node_loopback_left);
					return GO_ON;
				}
				flow->flags |= FLOW_LOCALHOST;
			}
		} else if (work->outside || frontend->flags & FRONTEND_MASQUERADE ||
			   same_address(&work->choice.backend.address, &packet->key.from)) {
			/* Or a pod reaches itself: it would answer itself directly. */
			flow->flags = FLOW_MASQUERADE;
		}
	}
	return open_flow(&packet->key, flow, work->another_port, &action) ? TRANSLATE : action;
}

#endif
