/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node's own kernel sends to a frontend past the socket path (SCTP, raw sockets, load balancers with source
 * ranges), and its answers. Routing and conntrack came before us: the packet leaves by the route to the frontend, for
 * most the default route, as one with that destination. So it is routed once more when it has a backend's address, and
 * an answer is given the frontend's before routing and conntrack see it.
 */
#ifndef HANDOVER_NODE_H
#define HANDOVER_NODE_H

#include "packet.h"

#define ANY_BYTES 1 /* a size that every way takes: nothing is going to be sent */
#define LOOPBACK  1 /* the number of that device in every network namespace */

/* Whether we sent a packet here. Others have some of the mark's bits, too. */
static __always_inline int is_ours(const struct __sk_buff *skb)
{
	return (skb->mark & MARK_OURS) == MARK_OURS;
}

/* Asks for the way from `from` to `to` for an IP packet of this size; what the helper returns. 0: it looks by itself. */
static __always_inline long find_way(struct __sk_buff *skb, const struct packet *packet,
	const struct address *from, const struct address *to, __u16 bytes, struct bpf_fib_lookup *way)
{
	__builtin_memset(way, 0, sizeof(*way));
	way->tot_len = bytes;
	way->ifindex = skb->ifindex;
	way->l4_protocol = packet->key.protocol;
	if (packet->ipv4) {
		way->family = AF_INET_;
		way->ipv4_src = from->word[3];
		way->ipv4_dst = to->word[3];
	} else {
		way->family = AF_INET6_;
		__builtin_memcpy(way->ipv6_src, from, sizeof(*from));
		__builtin_memcpy(way->ipv6_dst, to, sizeof(*to));
	}
	return fib_lookup(skb, way, sizeof(*way), 0);
}

/* Gives a packet of a device without link headers one, as redirecting to other devices wants it. */
static __always_inline int frame(struct __sk_buff *skb, const struct packet *packet)
{
	__be16 type = packet->ipv4 ? PROTOCOL_IPV4 : PROTOCOL_IPV6;

	if (packet->link_bytes)
		return 0;
	return make_head(skb, ETHERNET_BYTES, 0) || store_bytes(skb, ETHERTYPE_AT, &type, sizeof(type), 0);
}

/* Has a packet be a frame for `receiver`. Where its headers are is not known any more. */
static __always_inline int address_frame(
	struct __sk_buff *skb, const struct packet *packet, const __u8 *receiver)
{
	return frame(skb, packet) || store_bytes(skb, 0, receiver, ETHERNET_ADDRESS_BYTES, 0);
}

static __always_inline int not_rewritten(void)
{
	count(COUNT_error_packet_not_rewritten);
	return SHOT;
}

/*
 * Has the node's stack take a packet that is on its way out for one that came in, on the loopback device: it is routed
 * anew, and conntrack sees it anew. Only there a source of the node's own is let in, by `lo.accept_local`.
 */
static __always_inline int turn_inward(struct __sk_buff *skb, const struct packet *packet)
{
	const __u8 nobody[ETHERNET_ADDRESS_BYTES] = {};

	if (address_frame(skb, packet, nobody))
		return not_rewritten();
	return redirect(LOOPBACK, BPF_F_INGRESS);
}

/* Sends a packet of the node, which has its backend's address now, the way to it. */
static __always_inline int send_to_backend(struct __sk_buff *skb, const struct packet *packet,
	const struct address *backend, struct bpf_fib_lookup *way)
{
	/* What is yet to be cut in segments is already small enough. */
	__u16 bytes = skb->gso_size ? 0 : skb->len - packet->link_bytes;

	switch (find_way(skb, packet, &packet->key.from, backend, bytes, way)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* the kernel will ask for it */
		if (frame(skb, packet))
			return not_rewritten();
		return redirect_neigh(way->ifindex, 0, 0, 0);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED: /* the kernel will cut it in pieces, or say that it cannot */
		return turn_inward(skb, packet);
	case BPF_FIB_LKUP_RET_NOT_FWDED: /* the backend is this node itself */
		count(COUNT_node_to_itself);
		return turn_inward(skb, packet);
	}
	count(COUNT_error_node_no_way);
	return SHOT;
}

/*
 * Hands an answer, which comes from the frontend now, to the node's stack: as if it arrived where the way to the
 * frontend begins, as the reverse path filter wants it.
 */
static __always_inline int deliver_to_node(struct __sk_buff *skb, const struct packet *packet,
	const struct address *node, const struct address *frontend, struct bpf_fib_lookup *way)
{
	skb->mark |= MARK_OURS;
	switch (find_way(skb, packet, node, frontend, ANY_BYTES, way)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (way->ifindex == skb->ifindex)
			return GO_ON;
		if (address_frame(skb, packet, way->smac))
			return not_rewritten();
		return redirect(way->ifindex, BPF_F_INGRESS);
	case BPF_FIB_LKUP_RET_NOT_FWDED: /* the frontend's address is the node's own: a NodePort */
		return turn_inward(skb, packet);
	default:
		return GO_ON;
	}
}

#endif
