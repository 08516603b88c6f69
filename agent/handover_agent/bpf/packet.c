/* SPDX-License-Identifier: Apache-2.0
 *
 * The packet path: tc programs that translate what sockets do not: what arrives from outside, and what passes the
 * socket path by (SCTP, raw sockets, virtual machines, sidecars). In the order in which a packet meets them:
 *
 *   from_outside  ingress of the node's own devices: a frontend becomes one of its backends
 *   from_pod      ingress of the pods' ports (the host's ends of their veths): the same, for sources on this node
 *   outward       egress of the pods' ports: what a backend answers gets the frontend as its source again
 *   from_node     egress of the node's own devices: the same; and what the node itself sends to a frontend, which
 *                 leaves there unless somebody stops it, is sent to a backend instead. Its answers get the frontend as
 *                 their source where they arrive, in from_outside and from_pod, or in
 *   to_itself     egress of the loopback device: what a backend on the node itself answers to it; and what the node
 *                 sends to a frontend at one of its own addresses
 *
 * A packet that is not the first of its connection is translated if there is a flow for it, and else left alone:
 * it belongs to whoever translated the first. Source addresses are the kernel's work, and refusals too: the static
 * nft table does what the packet's mark says.
 */
#include "kernel.h"
#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "parse.h"
#include "opening.h"
#include "stranded.h"
#include "translate.h"

/* Whether there can be a frontend, or a flow, that a packet goes to; or, if it opens a connection to a backend, a flow
 * that looks just like it. */
static __always_inline int may_be_served(const struct packet *packet)
{
	__u32 place = place_of(&packet->key.to);

	return may_be_frontend(place) || may_have_flows(AS_FRONTEND(place)) ||
	       (packet->does & OPENS && may_have_flows(AS_BACKEND(place)));
}

/* The flow that a packet of a backend belongs to. */
static __always_inline struct flow *find_back(struct packet *packet)
{
	__u32 place = AS_BACKEND(place_of(&packet->key.from));

	return may_have_flows(place) ? find_flow(&packet->key, TO_CLIENT) : 0;
}

/* A packet between others. */
static __always_inline int pass_by(const struct packet *packet)
{
	count(packet->does & OPENS ? COUNT_packet_not_a_frontend : COUNT_packet_no_flow);
	return GO_ON;
}

/* A packet that goes to a frontend, or to anywhere. */
static __always_inline int to_frontend(
	struct __sk_buff *skb, struct work *work, struct flow *known, enum origin origin)
{
	struct packet *packet = &work->packet;
	__u64 now = now_ns();
	int action;

	if (packet->does & OPENS) {
		action = find_or_open(skb, work, known, origin, now);
		if (action != TRANSLATE)
			return action;
	} else {
		if (!known) {
			count(COUNT_packet_no_flow);
			return GO_ON;
		}
		note_packet(&packet->key, known, packet, now);
		work->flow = *known;
	}
	return forward(skb, work, origin == FROM_NODE ? HOOK_NODE : HOOK_INWARD);
}

/* A packet that has a flow back to its client. */
static __always_inline int to_client(
	struct __sk_buff *skb, struct work *work, struct flow *flow, enum hook hook)
{
	struct packet *packet = &work->packet;

	if (!flow->answered && !is_answer(flow, packet)) {
		confuse(&packet->key, flow);
		return GO_ON;
	}
	note_packet(&packet->key, flow, packet, now_ns());
	work->flow = *flow;
	return restore(skb, work, hook);
}

/* What arrives on a device. */
static __always_inline int inward(struct __sk_buff *skb, enum origin origin)
{
	struct work *work = begin_work();
	struct flow *known, *back;
	int served, action = GO_ON;

	if (!work || is_ours(skb)) /* then it is an answer to the node that was redirected here */
		return GO_ON;
	switch (parse(skb, &work->packet)) {
	case SERVED:
		break;
	case PIECE:
		if (!piece(skb, work, HOOK_INWARD, &action) && !piece(skb, work, HOOK_TO_NODE, &action))
			count(COUNT_packet_fragment);
		return action;
	case QUOTES:
		if (find_quoted(work, TO_BACKEND))
			return forward_error(skb, work);
		if (find_quoted(work, TO_CLIENT) && work->flow.flags & FLOW_NODE)
			return restore_error(skb, work, HOOK_TO_NODE);
		count(COUNT_packet_error_no_flow);
		return GO_ON;
	case MALFORMED:
		return SHOT;
	default:
		return GO_ON;
	}
	if (origin == FROM_POD)
		note_stranded(skb, work);
	forget_fragment(&work->packet, HOOK_INWARD);
	forget_fragment(&work->packet, HOOK_TO_NODE);
	served = may_be_served(&work->packet);
	known = served ? find_flow(&work->packet.key, TO_BACKEND) : 0;
	if (!known) {
		back = find_back(&work->packet);
		if (back && back->flags & FLOW_NODE)
			return to_client(skb, work, back, HOOK_TO_NODE);
		if (back && is_held(back))
			return hold(skb);
		if (back) {
			/* An answer that is translated on its way out: it is not looked up as a request. */
			count(COUNT_packet_answers);
			return GO_ON;
		}
		if (!served) {
			if (origin == FROM_POD && work->packet.does & OPENS)
				note_address(skb, &work->packet);
			return pass_by(&work->packet);
		}
		work->packet.key.direction = TO_BACKEND;
	}
	return to_frontend(skb, work, known, origin);
}

/* What leaves by a device. `node`: it may be the node's own packet to a frontend. `back`: where answers are met. */
static __always_inline int leaving(struct __sk_buff *skb, int node, enum hook back)
{
	struct work *work = begin_work();
	struct flow *flow;
	int action = GO_ON;

	if (!work)
		return GO_ON;
	/* What the node sends came in by no device; marked, we sent it here. */
	node = node && !skb->ingress_ifindex && !is_ours(skb);
	switch (parse(skb, &work->packet)) {
	case SERVED:
		break;
	case PIECE:
		if (!piece(skb, work, back, &action) && !(node && piece(skb, work, HOOK_NODE, &action)))
			count(COUNT_packet_fragment);
		return action;
	case QUOTES:
		if (find_quoted(work, TO_CLIENT))
			return restore_error(skb, work, back);
		count(COUNT_packet_error_no_flow);
		return GO_ON;
	case MALFORMED:
		return SHOT;
	default:
		return GO_ON;
	}
	note_stranded(skb, work);
	forget_fragment(&work->packet, back);
	flow = find_back(&work->packet);
	if (flow)
		return to_client(skb, work, flow, back);
	if (!node) {
		count(COUNT_packet_no_flow_back);
		return GO_ON;
	}
	forget_fragment(&work->packet, HOOK_NODE);
	if (!may_be_served(&work->packet))
		return pass_by(&work->packet);
	return to_frontend(skb, work, find_flow(&work->packet.key, TO_BACKEND), FROM_NODE);
}

int from_outside(struct __sk_buff *skb)
{
	return inward(skb, FROM_OUTSIDE);
}

int from_pod(struct __sk_buff *skb)
{
	return inward(skb, FROM_POD);
}

int outward(struct __sk_buff *skb)
{
	return leaving(skb, 0, HOOK_OUTWARD);
}

int from_node(struct __sk_buff *skb)
{
	return leaving(skb, 1, HOOK_OUTWARD);
}

int to_itself(struct __sk_buff *skb)
{
	return leaving(skb, 1, HOOK_TO_NODE);
}
