/* SPDX-License-Identifier: Apache-2.0
 *
 * Connected UDP sockets whose backend serves no more. Such a socket is translated once, when it connects, and a
 * backend that goes away later takes the socket with it: nothing that it sends is answered, and nothing tells it. The
 * agent does (sockets/), and finds it here, by the next datagram that it sends: on the host's end of a pod's veth, and
 * wherever a packet of the node's own leaves, a packet still knows its socket, whatever network namespace that is in.
 *
 * Looked for only while the agent asks for it, which it does as long as there may be such a socket.
 */
#ifndef HANDOVER_STRANDED_H
#define HANDOVER_STRANDED_H

#include "entries.h"
#include "select.h"
#include "work.h"

static __always_inline int is_noting(void)
{
	__u32 zero = 0;
	const struct settings *settings = map_lookup(SETTINGS, &zero);

	return settings && settings->noting;
}

/* Notes who sends a datagram that nobody gets who serves its frontend. It goes on; the agent answers it. */
static __always_inline void note_stranded(struct __sk_buff *skb, struct work *work)
{
	struct frontend_key key = {.protocol = PROTOCOL_UDP, .scope = SCOPE_INTERNAL};
	const struct packet *packet = &work->packet;
	const struct bpf_sock *socket;
	const struct reverse *reverse;
	struct endpoint frontend;
	long problem;

	if (packet->key.protocol != PROTOCOL_UDP || !is_noting())
		return;
	socket = skb->sk;
	if (!socket || socket->dst_port != packet->key.to_port)
		return; /* of no socket, or of one that names its destination each time, and is translated each time */
	work->choice.backend.address = packet->key.to;
	work->choice.backend.port = packet->key.to_port;
	reverse = find_reverse(socket_cookie(skb), &work->choice.backend);
	if (!reverse || reverse->protocol != PROTOCOL_UDP)
		return;
	frontend = reverse->frontend;
	key.address = frontend.address;
	key.port = frontend.port;
	/* Without any endpoint there is nowhere better to go. */
	if (!read_frontend(&key, &work->frontend) || !(work->frontend.count || serving(&work->frontend)) ||
		find_serving(&work->frontend, &work->choice))
		return;
	problem = map_update(STRANDED, &packet->key, &frontend, BPF_NOEXIST);
	if (!problem)
		count(COUNT_stranded_noted);
	else if (problem != -EEXIST_)
		count(COUNT_stranded_not_noted);
}

#endif
