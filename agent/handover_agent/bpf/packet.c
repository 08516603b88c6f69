/* SPDX-License-Identifier: Apache-2.0
 *
 * The packet path: tc programs that translate what sockets do not: what arrives from outside, and what passes the
 * socket path by (SCTP, raw sockets, virtual machines, sidecars). In the order in which a packet meets them:
 *
 *   from_outside  ingress of the node's own devices: a frontend becomes one of its backends
 *   from_pod      ingress of the pods' ports (the host's ends of their veths): the same, for sources on this node
 *   outward       egress of both: what a backend answers gets the frontend as its source again
 *
 * A packet that is not the first of its connection is translated if there is a flow for it, and else left alone:
 * it belongs to whoever translated the first. Source addresses are the kernel's work, and refusals too: the static
 * nft table does what the packet's mark says.
 */
#include "kernel.h"
#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "address.h"
#include "select.h"
#include "flows.h"
#include "fragments.h"
#include "packet.h"
#include "rewrite.h"

/* What a tc program returns. To go on means: whatever else is attached there, then the stack. */
#define GO_ON (-1) /* TC_ACT_UNSPEC; tcx: next */
#define SHOT  2    /* TC_ACT_SHOT */

/*
 * What a run of a program works on. Not on the stack, of which there is little, and where the verifier would know so
 * much about each field that it took every combination for another case. No other run on this CPU interrupts one.
 */
struct work {
	struct packet packet;
	struct flow flow;
	struct flow_key turned;
	struct frontend frontend;
	struct choice choice;
	struct address client;
	__u32 outside;      /* it came from outside to what is no frontend of its own there */
	__u32 another_port; /* the client's own must not be used */
};

_Static_assert(sizeof(struct work) <= WORK_BYTES, "the map has no room for it");

static __always_inline struct work *begin_work(void)
{
	__u32 zero = 0;
	struct work *work = map_lookup(WORK, &zero);

	if (work)
		__builtin_memset(work, 0, sizeof(*work));
	return work;
}

/* Sends a packet to its flow's backend. */
static __always_inline int forward(
	struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	__u32 mark = MARK_OURS | (flow->flags & FLOW_MASQUERADE ? MARK_MASQUERADE : 0);

	if (rewrite(skb, packet, DESTINATION, &flow->other.address, flow->client_port, flow->other.port))
		return SHOT;
	skb->mark |= mark;
	remember_fragment(packet, HOOK_INWARD, &flow->other.address, mark);
	count(COUNT_packet_forwarded);
	return GO_ON;
}

/* A later piece of a packet that came in. */
static __always_inline int forward_piece(struct __sk_buff *skb, const struct packet *packet)
{
	const struct fragment *found = find_fragment(packet, HOOK_INWARD);
	struct fragment fragment;

	if (!found)
		return GO_ON;
	fragment = *found;
	if (rewrite_piece(skb, packet, DESTINATION, &fragment.address))
		return SHOT;
	skb->mark |= fragment.mark;
	count(COUNT_packet_forwarded);
	return GO_ON;
}

/* An ICMP error that came in about a frontend's answer: for its backend, about the backend's. */
static __always_inline int forward_error(struct __sk_buff *skb, const struct packet *packet)
{
	struct flow_key key = {};
	struct flow flow, *found;

	turn(&packet->key, &key);
	found = find_flow(&key, TO_BACKEND);
	if (!found) {
		count(COUNT_packet_error_no_flow);
		return GO_ON;
	}
	flow = *found;
	if (rewrite_quoted(skb, packet, SOURCE, &flow.other.address, flow.other.port, flow.client_port))
		return SHOT;
	skb->mark |= MARK_OURS;
	count(COUNT_packet_error_forwarded);
	return GO_ON;
}

/* An ICMP error on its way to a client about a packet to a backend: about one to the frontend. */
static __always_inline int restore_error(struct __sk_buff *skb, const struct packet *packet)
{
	struct flow_key key = {};
	struct flow flow, *found;

	turn(&packet->key, &key);
	found = find_flow(&key, TO_CLIENT);
	if (!found) {
		count(COUNT_packet_error_no_flow);
		return GO_ON;
	}
	flow = *found;
	if (rewrite_quoted(skb, packet, DESTINATION, &flow.other.address, flow.client_port, flow.other.port))
		return SHOT;
	count(COUNT_packet_error_restored);
	return GO_ON;
}

/* The frontend of a packet's destination. `outside`: 1 when it arrived as EXTERNAL but has the INTERNAL one. */
static __always_inline int packet_frontend(
	const struct packet *packet, enum scope scope, struct frontend *frontend, __u32 *outside)
{
	struct frontend_key key = {.address = packet->key.to,
		.port = packet->key.to_port,
		.protocol = packet->key.protocol,
		.scope = scope};

	*outside = 0;
	if (scope == SCOPE_EXTERNAL) {
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
		if (find_backend(frontend, &choice)) {
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

/* The client that affinity knows a source by. */
static __always_inline struct address client_of(const struct address *source)
{
	const __u64 *cookie = map_lookup(CLIENTS, source);

	return cookie ? client_of_namespace(*cookie) : *source;
}

/* Writes a new flow. 0: the packet cannot be translated, and goes as `*action` says. */
static __always_inline int open_flow(struct flow_key *key, struct flow *flow, int another_port, int *action)
{
	struct flow_key other;
	struct flow *first;

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

/* What arrives on a device of the kind that `scope` says. */
static __always_inline int inward(struct __sk_buff *skb, enum scope scope)
{
	struct work *work = begin_work();
	struct frontend *frontend;
	struct packet *packet;
	struct flow *flow, *known;
	int found, action = GO_ON;
	__u64 now;

	if (!work)
		return GO_ON;
	packet = &work->packet;
	frontend = &work->frontend;
	flow = &work->flow;
	switch (parse(skb, packet)) {
	case SERVED:
		break;
	case PIECE:
		return forward_piece(skb, packet);
	case QUOTES:
		return forward_error(skb, packet);
	case MALFORMED:
		return SHOT;
	default:
		return GO_ON;
	}
	forget_fragment(packet, HOOK_INWARD);
	now = now_ns();
	known = find_flow(&packet->key, TO_BACKEND);
	if (!(packet->does & OPENS)) {
		if (!known) {
			count(COUNT_packet_no_flow);
			return GO_ON;
		}
		goto known;
	}

	found = packet_frontend(packet, scope, frontend, &work->outside);
	if (known) {
		if (goes_on(&packet->key, known, found ? frontend : 0, now)) {
			if (known->proof != packet->proof)
				set_proof(&packet->key, known, packet->proof);
			goto known;
		}
		work->another_port = known->confused;
		forget_flow(&packet->key, known);
	}
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
		flow->flags = FLOW_DIRECT;
		work->another_port = 1;
	} else {
		if (!is_accepting()) {
			count(COUNT_packet_not_accepting);
			return GO_ON;
		}
		if (frontend->flags & FRONTEND_SOURCES && !is_admitted(frontend, &packet->key.from)) {
			count(COUNT_packet_source_dropped);
			return SHOT;
		}
		if (frontend->flags & FRONTEND_AFFINITY)
			work->client = client_of(&packet->key.from);
		switch (select_backend(frontend, &work->client, 0, &work->choice)) {
		case CHOSEN:
			break;
		case REFUSE:
			skb->mark |= MARK_REFUSE;
			count(COUNT_packet_refused);
			return GO_ON;
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
		/* A pod that reaches itself would answer itself directly. */
		if (work->outside || frontend->flags & FRONTEND_MASQUERADE ||
			same_address(&work->choice.backend.address, &packet->key.from))
			flow->flags = FLOW_MASQUERADE;
	}
	if (!open_flow(&packet->key, flow, work->another_port, &action))
		return action;
	goto translate;
known:
	note_packet(&packet->key, known, packet, now);
	*flow = *known;
translate:
	return forward(skb, packet, flow);
}

/* A later piece of a packet on its way out. */
static __always_inline int restore_piece(struct __sk_buff *skb, const struct packet *packet)
{
	const struct fragment *found = find_fragment(packet, HOOK_OUTWARD);
	struct address address;

	if (!found)
		return GO_ON;
	address = found->address;
	if (rewrite_piece(skb, packet, SOURCE, &address))
		return SHOT;
	count(COUNT_packet_restored);
	return GO_ON;
}

/* What leaves by a device of the node or by a pod's port. */
int outward(struct __sk_buff *skb)
{
	struct work *work = begin_work();
	struct packet *packet;
	struct flow *flow;
	struct endpoint frontend;
	__be16 client_port;

	if (!work)
		return GO_ON;
	packet = &work->packet;
	switch (parse(skb, packet)) {
	case SERVED:
		break;
	case PIECE:
		return restore_piece(skb, packet);
	case QUOTES:
		return restore_error(skb, packet);
	case MALFORMED:
		return SHOT;
	default:
		return GO_ON;
	}
	forget_fragment(packet, HOOK_OUTWARD);
	flow = find_flow(&packet->key, TO_CLIENT);
	if (!flow) {
		count(COUNT_packet_no_flow_back);
		return GO_ON;
	}
	if (!flow->answered && !is_answer(flow, packet)) {
		confuse(&packet->key, flow);
		return GO_ON;
	}
	note_packet(&packet->key, flow, packet, now_ns());
	frontend = flow->other;
	client_port = flow->client_port;
	if (rewrite(skb, packet, SOURCE, &frontend.address, frontend.port, client_port))
		return SHOT;
	remember_fragment(packet, HOOK_OUTWARD, &frontend.address, 0);
	count(COUNT_packet_restored);
	return GO_ON;
}

int from_outside(struct __sk_buff *skb)
{
	return inward(skb, SCOPE_EXTERNAL);
}

int from_pod(struct __sk_buff *skb)
{
	return inward(skb, SCOPE_INTERNAL);
}
