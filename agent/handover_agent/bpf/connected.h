/* SPDX-License-Identifier: Apache-2.0
 *
 * Connected UDP sockets, and how the agent finds them. Such a socket is translated once, when it connects, and a
 * backend that goes away later takes the socket with it: nothing that it sends is answered, and nothing tells it. The
 * agent does (sockets/), and needs the socket's own address for that, which it has only after connect(2).
 *
 * The socket carries what we chose in its storage, which goes when the socket goes; an iterator shows all sockets that
 * carry some, of whatever network namespace. Kernels without it (socket_storage in features.py) do without this.
 */
#ifndef HANDOVER_CONNECTED_H
#define HANDOVER_CONNECTED_H

#ifdef HAVE_SOCKET_STORAGE

#include "maps.h"

/* struct bpf_iter__bpf_sk_storage_map; the first field of `meta` is the file to write to. */
struct storage_iteration {
	struct {
		void *file;
	} *meta;
	void *map;
	void *socket;
	const struct connected *carried;
};

static __always_inline void remember_connected(struct bpf_sock_addr *ctx, __u64 cookie,
	const struct endpoint *frontend, const struct endpoint *backend)
{
	struct connected entry = {.cookie = cookie, .frontend = *frontend, .backend = *backend};
	struct bpf_sock *socket = ctx->sk;
	struct connected *carried;

	if (!socket)
		return;
	carried = storage_get(CONNECTED, socket, &entry, BPF_SK_STORAGE_GET_F_CREATE);
	if (!carried) {
		count(COUNT_connected_not_written);
		return;
	}
	*carried = entry; /* it may have been connected before */
}

#endif
#endif
