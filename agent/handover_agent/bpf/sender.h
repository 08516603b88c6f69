/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose packet it is. A packet that has come to us from a socket on this machine, over the pair of devices between a
 * pod and its node, still has that socket (Linux 4.19), and a socket has its network namespace: by that, session
 * affinity knows a client whichever path it takes (affinity.h).
 *
 * Kernels since 6.15 say a packet's namespace. On others we read it from the socket, at the places that the loader has
 * from the kernel's types; where these are not known, nothing is.
 */
#ifndef HANDOVER_SENDER_H
#define HANDOVER_SENDER_H

#include "maps.h"
#include "packet.h"

#define CONNECTING 2 /* TCP_SYN_SENT */

static __always_inline __u64 namespace_of(struct __sk_buff *skb, struct bpf_sock *socket)
{
	__u64 common[SOCKET_WORDS], cookie;

	if (ABILITY(PACKET_NETNS))
		return netns_cookie(skb);
	if (!ABILITY(NET_IN_SOCKET) || read_kernel(common, sizeof(common), socket))
		return 0;
	if (read_kernel(&cookie, sizeof(cookie),
		    (void *)(common[ABILITY(NET_IN_SOCKET) / 8] + ABILITY(COOKIE_IN_NET))))
		return 0;
	return cookie;
}

/*
 * The network namespace of the socket that sent a packet, by its cookie; 0: it is not known. Who sends frames (a
 * virtual machine's device, a packet socket) has addresses of its own, and is a client by these.
 */
static __always_inline __u64 sender_namespace(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;

	if (!socket || (socket->family != AF_INET_ && socket->family != AF_INET6_))
		return 0;
	return namespace_of(skb, socket);
}

/*
 * Notes the address of a pod that opens a TCP connection, so that people are shown whom a namespace belongs to.
 * Nothing is decided by it: an address may be another pod's tomorrow, and then is noted anew.
 */
static __always_inline void note_address(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *socket = skb->sk;
	const __u64 *known;
	__u64 cookie;

	if (packet->key.protocol != PROTOCOL_TCP || !socket || socket->state != CONNECTING)
		return;
	cookie = sender_namespace(skb);
	if (!cookie)
		return;
	known = map_lookup(CLIENTS, &packet->key.from);
	if (!known || *known != cookie)
		map_update(CLIENTS, &packet->key.from, &cookie, BPF_ANY);
}

#endif
