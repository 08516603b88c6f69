/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket path: cgroup v2 programs that translate a destination once, when a local process names it; packets
 * then cost nothing. In the order in which a connection meets them:
 *
 *   connect      a frontend becomes one of its backends, the reverse entry is written
 *   sendmsg      the same for a datagram that names its destination (UDP, unconnected)
 *   recvmsg      the source of a datagram that a backend sent becomes the frontend again
 *   getpeername  so does the peer's name
 *   sock_release the socket's entries go
 *
 * Sockets of IPv6 that speak to IPv4 (::ffff:a.b.c.d) need no case of their own: the tables hold IPv4 in that form.
 */
#include "kernel.h"
#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "address.h"
#include "select.h"
#include "entries.h"
#include "localhost.h"

/* What a cgroup program returns: to go on with the call, or to fail it (EPERM, unless another error was set). */
#define PROCEED 1
#define FAIL    0

enum call { CONNECT, SENDMSG };

static __always_inline void read_ipv4(const struct bpf_sock_addr *ctx, struct endpoint *endpoint)
{
	endpoint->address.word[0] = 0;
	endpoint->address.word[1] = 0;
	endpoint->address.word[2] = MAPPED_WORD;
	endpoint->address.word[3] = ctx->user_ip4;
	endpoint->port = ctx->user_port;
	endpoint->zero = 0;
}

static __always_inline void read_ipv6(const struct bpf_sock_addr *ctx, struct endpoint *endpoint)
{
	endpoint->address.word[0] = ctx->user_ip6[0];
	endpoint->address.word[1] = ctx->user_ip6[1];
	endpoint->address.word[2] = ctx->user_ip6[2];
	endpoint->address.word[3] = ctx->user_ip6[3];
	endpoint->port = ctx->user_port;
	endpoint->zero = 0;
}

static __always_inline void write_ipv4(struct bpf_sock_addr *ctx, const struct endpoint *endpoint)
{
	ctx->user_ip4 = endpoint->address.word[3];
	ctx->user_port = endpoint->port;
}

static __always_inline void write_ipv6(struct bpf_sock_addr *ctx, const struct endpoint *endpoint)
{
	ctx->user_ip6[0] = endpoint->address.word[0];
	ctx->user_ip6[1] = endpoint->address.word[1];
	ctx->user_ip6[2] = endpoint->address.word[2];
	ctx->user_ip6[3] = endpoint->address.word[3];
	ctx->user_port = endpoint->port;
}

/* Whether a socket is in the node's own network namespace, and not in a pod's. */
static __always_inline int is_of_node(struct bpf_sock_addr *ctx)
{
	__u64 node = ABILITY(NODE_NETNS);

	return netns_cookie(ctx) == (node ? node : netns_cookie(0));
}

/* Whether pods' sockets are for the packet path: somebody redirects their connections within the pods, by addresses
 * that would be gone (a mesh's sidecars). */
static __always_inline int is_for_node_only(void)
{
	__u32 zero = 0;
	const struct settings *settings = map_lookup(SETTINGS, &zero);

	return settings && settings->node_only;
}

static __always_inline enum verdict refuse(void)
{
	if (!ABILITY(SET_RETVAL)) {
		count(COUNT_refuse_left);
		return LEAVE;
	}
	count(COUNT_refused);
	set_retval(-ECONNREFUSED_);
	return REFUSE;
}

/*
 * Decides about a destination that a process named, and replaces it when the verdict is CHOSEN or KEPT.
 * `peer` is what the socket is connected to already (all zero when it is not), `source` the address that it is bound to.
 */
static __always_inline enum verdict outgoing(struct bpf_sock_addr *ctx, struct endpoint *destination,
	const struct endpoint *peer, const struct address *source, enum call call)
{
	struct frontend_key key = {.address = destination->address, .port = destination->port};
	struct forward *earlier = 0;
	struct frontend frontend;
	struct choice choice = {};
	struct address client;
	enum verdict verdict;
	__u32 protocol = ctx->protocol;
	__u64 cookie;

	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP) {
		count(COUNT_other_protocol);
		return LEAVE;
	}
	key.protocol = protocol;
	key.scope = SCOPE_INTERNAL;
	if (is_loopback(&key.address)) {
		if (!is_of_node(ctx)) {
			count(COUNT_pod_loopback_left);
			return LEAVE;
		}
		if (is_ipv4(&key.address)) /* any of 127.0.0.0/8 is this node */
			key.address = localhost();
	}
	if (!find_frontend(&key, &frontend)) {
		count(COUNT_not_a_frontend);
		return LEAVE;
	}
	if (is_for_node_only() && !is_of_node(ctx)) {
		count(COUNT_pod_socket_left);
		return LEAVE;
	}
	if (call == SENDMSG && same_endpoint(destination, peer)) {
		/* Connected to the frontend itself, so before us: an answer from the backend would not be let in. */
		count(COUNT_connected_left);
		return LEAVE;
	}
	if (frontend.flags & FRONTEND_SOURCES) {
		count(COUNT_sources_left);
		return LEAVE;
	}
	cookie = socket_cookie(ctx);
	if (protocol == PROTOCOL_UDP)
		earlier = find_forward(cookie, destination);
	if (!is_accepting() && (call == CONNECT || !earlier)) {
		count(COUNT_not_accepting);
		return LEAVE;
	}

	client = client_of_namespace(netns_cookie(ctx));
	verdict = select_backend(&frontend, &client, earlier, &choice);
	if (verdict != KEPT && !is_accepting()) {
		/* Its backend is gone, and to choose another is for whoever serves new connections now. */
		forget_forward(cookie, destination);
		count(COUNT_not_accepting);
		return LEAVE;
	}
	if (verdict == REFUSE)
		return refuse();
	if (verdict == DROP) {
		/* Nobody answers at the service's address, and the packet path drops what is sent there. */
		count(COUNT_drop_left);
		return LEAVE;
	}
	if (verdict == LEAVE)
		return LEAVE;
	if (is_ipv4(&choice.backend.address) != is_ipv4(&destination->address)) {
		count(COUNT_error_backend_family);
		return LEAVE;
	}
	if (is_loopback(source) && !is_loopback(&choice.backend.address)) {
		count(COUNT_loopback_source_left);
		return LEAVE;
	}
	if (!remember_reverse(cookie, &choice.backend, destination, protocol))
		return LEAVE;
	if (verdict == KEPT) {
		if (earlier && earlier->index != choice.index)
			earlier->index = choice.index;
	} else if (protocol == PROTOCOL_UDP) {
		remember_forward(cookie, destination, &choice.backend, choice.index);
	}

	if (call == CONNECT)
		count(COUNT_connect_translated);
	else
		count(verdict == KEPT ? COUNT_sendmsg_kept : COUNT_sendmsg_translated);
	*destination = choice.backend;
	return verdict;
}

/* Sets `source` back to the frontend that it stands for; 0: it is not a backend of this socket. */
static __always_inline int incoming(struct bpf_sock_addr *ctx, struct endpoint *source)
{
	const struct reverse *reverse = find_reverse(socket_cookie(ctx), source);

	if (!reverse)
		return 0;
	*source = reverse->frontend;
	return 1;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct address source = {.word = {0, 0, MAPPED_WORD, 0}};
	struct endpoint destination, none = {};
	enum verdict verdict;

	read_ipv4(ctx, &destination);
	if (ctx->sk)
		source.word[3] = ctx->sk->src_ip4;
	verdict = outgoing(ctx, &destination, &none, &source, CONNECT);
	if (verdict == CHOSEN || verdict == KEPT)
		write_ipv4(ctx, &destination);
	return verdict == REFUSE ? FAIL : PROCEED;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint destination, none = {};
	struct address source = {};
	enum verdict verdict;

	read_ipv6(ctx, &destination);
	if (ctx->sk) {
		source.word[0] = ctx->sk->src_ip6[0];
		source.word[1] = ctx->sk->src_ip6[1];
		source.word[2] = ctx->sk->src_ip6[2];
		source.word[3] = ctx->sk->src_ip6[3];
	}
	verdict = outgoing(ctx, &destination, &none, &source, CONNECT);
	if (verdict == CHOSEN || verdict == KEPT)
		write_ipv6(ctx, &destination);
	return verdict == REFUSE ? FAIL : PROCEED;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct address source = {.word = {0, 0, MAPPED_WORD, ctx->msg_src_ip4}};
	struct endpoint destination, peer = {};
	enum verdict verdict;

	read_ipv4(ctx, &destination);
	if (ctx->sk) {
		peer.address.word[2] = MAPPED_WORD;
		peer.address.word[3] = ctx->sk->dst_ip4;
		peer.port = ctx->sk->dst_port;
	}
	verdict = outgoing(ctx, &destination, &peer, &source, SENDMSG);
	if (verdict == CHOSEN || verdict == KEPT)
		write_ipv4(ctx, &destination);
	return verdict == REFUSE ? FAIL : PROCEED;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint destination, peer = {};
	struct address source;
	enum verdict verdict;

	read_ipv6(ctx, &destination);
	source.word[0] = ctx->msg_src_ip6[0];
	source.word[1] = ctx->msg_src_ip6[1];
	source.word[2] = ctx->msg_src_ip6[2];
	source.word[3] = ctx->msg_src_ip6[3];
	if (ctx->sk) {
		peer.address.word[0] = ctx->sk->dst_ip6[0];
		peer.address.word[1] = ctx->sk->dst_ip6[1];
		peer.address.word[2] = ctx->sk->dst_ip6[2];
		peer.address.word[3] = ctx->sk->dst_ip6[3];
		peer.port = ctx->sk->dst_port;
	}
	verdict = outgoing(ctx, &destination, &peer, &source, SENDMSG);
	if (verdict == CHOSEN || verdict == KEPT)
		write_ipv6(ctx, &destination);
	return verdict == REFUSE ? FAIL : PROCEED;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint source;

	read_ipv4(ctx, &source);
	if (!incoming(ctx, &source)) {
		count(COUNT_recvmsg_no_entry);
		return PROCEED;
	}
	write_ipv4(ctx, &source);
	count(COUNT_recvmsg_restored);
	return PROCEED;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint source;

	read_ipv6(ctx, &source);
	if (!incoming(ctx, &source)) {
		count(COUNT_recvmsg_no_entry);
		return PROCEED;
	}
	write_ipv6(ctx, &source);
	count(COUNT_recvmsg_restored);
	return PROCEED;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint peer;

	read_ipv4(ctx, &peer);
	if (!incoming(ctx, &peer)) {
		count(COUNT_getpeername_no_entry);
		return PROCEED;
	}
	write_ipv4(ctx, &peer);
	count(COUNT_getpeername_restored);
	return PROCEED;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint peer;

	read_ipv6(ctx, &peer);
	if (!incoming(ctx, &peer)) {
		count(COUNT_getpeername_no_entry);
		return PROCEED;
	}
	write_ipv6(ctx, &peer);
	count(COUNT_getpeername_restored);
	return PROCEED;
}

int sock_release(struct bpf_sock *sk)
{
	forget_socket(socket_cookie(sk));
	return PROCEED;
}
