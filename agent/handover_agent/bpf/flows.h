/* SPDX-License-Identifier: Apache-2.0
 *
 * The packet path's memory: two entries for each flow. The forward entry (client, frontend) has the backend, the
 * backward entry (backend, client) has the frontend. Each says when it last met a packet; what was seen of a
 * connection's life is in both.
 *
 * Behind the translation, a connection through a frontend and a direct one to the same backend, or two through
 * two frontends, look alike when the client uses one port for both; conntrack, too, sees the one tuple. Whoever
 * comes second gets another port towards the backend. Where the first is a direct connection, we do not know of
 * it: then the backend does not answer the second's opening packet as such (`proof`), and its retransmission gets
 * another port.
 */
#ifndef HANDOVER_FLOWS_H
#define HANDOVER_FLOWS_H

#include "affinity.h"
#include "localhost.h"
#include "maps.h"
#include "packet.h"

#define TCP_OPENING_BYTES 65536 /* what an opening packet can carry, and more */

static __always_inline struct flow *find_flow(struct flow_key *key, enum direction direction)
{
	key->direction = direction;
	return map_lookup(FLOWS, key);
}

/* The key of what goes the other way. */
static __always_inline void turn(const struct flow_key *key, struct flow_key *turned)
{
	turned->from = key->to;
	turned->to = key->from;
	turned->from_port = key->to_port;
	turned->to_port = key->from_port;
	turned->protocol = key->protocol;
}

/* The key of a flow's other entry. */
static __always_inline void other_key(
	const struct flow_key *key, const struct flow *flow, struct flow_key *other)
{
	other->protocol = key->protocol;
	other->zero = 0;
	if (key->direction == TO_BACKEND) {
		other->from = flow->other.address;
		other->from_port = flow->other.port;
		other->to = flow->flags & FLOW_LOCALHOST ? localhost_outside() : key->from;
		other->to_port = flow->client_port;
		other->direction = TO_CLIENT;
	} else {
		other->from = flow->flags & FLOW_LOCALHOST ? localhost() : key->to;
		other->from_port = flow->client_port;
		other->to = flow->other.address;
		other->to_port = flow->other.port;
		other->direction = TO_BACKEND;
	}
}

/* The value of a flow's other entry, which differs by who is the other one, and by the port. */
static __always_inline void other_value(
	const struct flow_key *key, const struct flow *flow, struct flow *other)
{
	*other = *flow;
	if (key->direction == TO_BACKEND) {
		other->other.address = key->to;
		other->other.port = key->to_port;
		other->client_port = key->from_port;
	} else {
		other->other.address = key->from;
		other->other.port = key->from_port;
		other->client_port = key->to_port;
	}
}

static __always_inline void forget_flow(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key other;

	other_key(key, flow, &other);
	map_delete(FLOWS, &other);
	map_delete(FLOWS, key);
}

/* Whether a flow's ports may be used for another. */
static __always_inline int has_ended(const struct flow_key *key, const struct flow *flow, __u64 now)
{
	struct flow_key other_one;
	const struct flow *other;
	__u64 limit_s = UDP_ESTABLISHED_S;

	if (flow->reset || (flow->client_finished && flow->backend_finished))
		return 1;
	if (key->protocol == PROTOCOL_TCP) {
		limit_s = TCP_ESTABLISHED_S;
		if (flow->client_finished || flow->backend_finished)
			limit_s = TCP_CLOSING_S;
		if (!flow->answered)
			limit_s = TCP_OPENING_S;
	} else if (key->protocol == PROTOCOL_SCTP) {
		limit_s = flow->answered ? SCTP_ESTABLISHED_S : SCTP_OPENING_S;
	} else if (flow->answered != STREAM) {
		limit_s = UDP_OPENING_S;
	}
	if (now - flow->last_seen_ns < limit_s * NS_PER_S)
		return 0;
	other_key(key, flow, &other_one);
	other = map_lookup(FLOWS, &other_one);
	return !other || now - other->last_seen_ns >= limit_s * NS_PER_S;
}

/* Notes in both entries what a packet means; every second or so also that there was one. */
static __always_inline void note_packet(
	const struct flow_key *key, struct flow *flow, const struct packet *packet, __u64 now)
{
	int backward = key->direction == TO_CLIENT, changed = 0;
	struct flow_key other_one;
	struct flow *other, fresh;

	if (backward && !flow->answered) {
		flow->answered = ANSWERED;
		changed = 1;
	}
	if (packet->does & FINISHES) {
		if (backward)
			flow->backend_finished = 1;
		else
			flow->client_finished = 1;
		changed = 1;
	}
	if (packet->does & RESETS) {
		flow->reset = 1;
		changed = 1;
	}
	if (!changed && now - flow->last_seen_ns < NS_PER_S)
		return;
	if (!changed && flow->answered && key->protocol == PROTOCOL_UDP)
		flow->answered = STREAM;
	flow->last_seen_ns = now;

	other_key(key, flow, &other_one);
	other = map_lookup(FLOWS, &other_one);
	if (!other) {
		/* The map was full and took it; not if its place is another flow's by now. */
		other_value(key, flow, &fresh);
		if (!map_update(FLOWS, &other_one, &fresh, BPF_NOEXIST))
			count(COUNT_flow_repaired);
		return;
	}
	if (flow->answered > other->answered)
		other->answered = flow->answered;
	if (flow->client_finished)
		other->client_finished = 1;
	if (flow->backend_finished)
		other->backend_finished = 1;
	if (flow->reset)
		other->reset = 1;
}

/* Another attempt to open a flow: its answer carries other numbers. */
static __always_inline void set_proof(const struct flow_key *key, struct flow *flow, __u32 proof)
{
	struct flow_key other_one;
	struct flow *other;

	flow->proof = proof;
	other_key(key, flow, &other_one);
	other = map_lookup(FLOWS, &other_one);
	if (other)
		other->proof = proof;
}

/* Whether a backend's packet can answer a flow's opening packet. (With TCP Fast Open it acknowledges data, too.) */
static __always_inline int is_answer(const struct flow *flow, const struct packet *packet)
{
	if (!(packet->does & ACCEPTS))
		return 0;
	if (packet->key.protocol == PROTOCOL_TCP)
		return packet->proof - flow->proof < TCP_OPENING_BYTES;
	return packet->key.protocol == PROTOCOL_UDP || packet->proof == flow->proof;
}

/* A backend has another connection with what looks like this flow's client: let the next attempt take another port. */
static __always_inline void confuse(const struct flow_key *key, struct flow *flow)
{
	struct flow_key other_one;
	struct flow *other;

	count(COUNT_flow_confused);
	flow->confused = 1;
	other_key(key, flow, &other_one);
	other = map_lookup(FLOWS, &other_one);
	if (other)
		other->confused = 1;
}

/* Takes the place of a flow that has ended, or of none. 0: it is in use. */
static __always_inline int take_place(const struct flow_key *backward, const struct flow *entry)
{
	struct flow *existing;

	if (!map_update(FLOWS, backward, entry, BPF_NOEXIST))
		return 1;
	existing = map_lookup(FLOWS, backward);
	if (!existing || !has_ended(backward, existing, entry->last_seen_ns))
		return 0;
	count(COUNT_flow_ended);
	forget_flow(backward, existing);
	return !map_update(FLOWS, backward, entry, BPF_NOEXIST);
}

/*
 * Writes the backward entry of a new flow; with `another_port`, or where the client's own is taken, for another
 * port of the client, which is then in `flow`. 0: no port is free.
 */
static __always_inline int take_backward(const struct flow_key *key, struct flow *flow, int another_port)
{
	struct flow_key backward;
	struct flow entry, *existing;

	flow->client_port = key->from_port;
	other_key(key, flow, &backward);
	other_value(key, flow, &entry);
	if (!another_port) {
		existing = map_lookup(FLOWS, &backward);
		if (existing && same_endpoint(&existing->other, &entry.other) &&
			existing->client_port == entry.client_port) {
			*existing = entry; /* our own, of which the map took the other half */
			return 1;
		}
		if (take_place(&backward, &entry))
			return 1;
	}
	for (int i = 0; i < FREE_PORT_TRIES; i++) {
		flow->client_port =
			network16(flow->flags & FLOW_NODE ? NODE_PORT_FIRST + random_u32() % NODE_PORTS
							  : FREE_PORT_FIRST + random_u32() % FREE_PORTS);
		backward.to_port = flow->client_port;
		if (take_place(&backward, &entry)) {
			if (flow->flags & FLOW_DIRECT)
				count(COUNT_flow_direct_changed);
			else if (!(flow->flags & FLOW_NODE))
				count(COUNT_flow_port_changed);
			return 1;
		}
	}
	count(COUNT_error_flow_ports);
	return 0;
}

#endif
