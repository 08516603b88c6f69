/* SPDX-License-Identifier: Apache-2.0
 *
 * Datagrams while flows change hands between the kernel's conntrack and us. A segment of TCP tells whether it begins a
 * connection; a datagram does not, so the flows that conntrack translates are known by entries here, and while
 * conntrack takes over one of ours, its datagrams go round in circles: who translates them is settled when they come by
 * the next time.
 */
#ifndef HANDOVER_CHANGING_H
#define HANDOVER_CHANGING_H

#include "flows.h"

#define NS_PER_MS 1000000ULL

/* Whether a flow is conntrack's, which forgets it some time after its last datagram; we do so no later. */
static __always_inline int is_left(struct flow *flow, __u64 now)
{
	__u64 idle = now - flow->last_seen_ns;

	if (!(flow->flags & FLOW_LEFT) || idle >= flow->proof * NS_PER_S)
		return 0;
	if (idle >= NS_PER_S)
		flow->last_seen_ns = now;
	count(COUNT_packet_left);
	return 1;
}

/* Notes that a datagram's flow is conntrack's, since nobody else translates it. The agent finds out by whom. */
static __always_inline void leave(
	struct flow_key *key, const struct frontend *frontend, struct flow *flow, __u64 now)
{
	flow->service_id = frontend->service_id;
	flow->last_seen_ns = now;
	flow->proof = UDP_OPENING_S;
	flow->flags = FLOW_LEFT;
	key->direction = TO_BACKEND;
	map_update(FLOWS, key, flow, BPF_NOEXIST);
}

/* Whether the datagrams of a flow wait: not for ever, as the agent that hands it over may have ended. */
static __always_inline int is_held(const struct flow *flow)
{
	return flow->flags & FLOW_HELD && now_ns() - flow->last_seen_ns < HELD_MS * NS_PER_MS;
}

/* Has a packet arrive once more at its device, behind those that wait there. */
static __always_inline int hold(const struct __sk_buff *skb)
{
	count(COUNT_packet_held);
	return redirect(skb->ifindex, BPF_F_INGRESS);
}

#endif
