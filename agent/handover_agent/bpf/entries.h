/* SPDX-License-Identifier: Apache-2.0
 *
 * What is remembered per socket. A reverse entry says which frontend stands for a backend, for answers and peer
 * names; a forward entry (UDP) says which backend the socket uses for a frontend. The reverse entries of a socket
 * are a chain that begins in `sockets`, so that closing the socket removes them all: a socket storage map would
 * do that by itself, but cannot be counted from outside, and whether anything is still translated is what a
 * node waits for on its way down.
 *
 * One unconnected socket that reaches one backend through two frontends gets its answers from the frontend used
 * last: the datagrams carry nothing that tells them apart. Closing it leaves one forward entry to the LRU.
 */
#ifndef HANDOVER_ENTRIES_H
#define HANDOVER_ENTRIES_H

#include "maps.h"

static __always_inline struct reverse *find_reverse(__u64 cookie, const struct endpoint *backend)
{
	struct reverse_key key = {.cookie = cookie, .backend = *backend};

	return map_lookup(REVERSE, &key);
}

static __always_inline struct forward *find_forward(__u64 cookie, const struct endpoint *frontend)
{
	struct forward_key key = {.cookie = cookie, .frontend = *frontend};

	return map_lookup(FORWARD, &key);
}

static __always_inline void forget_forward(__u64 cookie, const struct endpoint *frontend)
{
	struct forward_key key = {.cookie = cookie, .frontend = *frontend};

	map_delete(FORWARD, &key);
}

/* 0: it could not be written, and the destination must not be translated. */
static __always_inline int remember_reverse(
	__u64 cookie, const struct endpoint *backend, const struct endpoint *frontend, __u32 protocol)
{
	struct reverse_key key = {.cookie = cookie, .backend = *backend};
	struct reverse entry = {.frontend = *frontend, .protocol = protocol};
	struct reverse *existing = map_lookup(REVERSE, &key);
	struct endpoint *newest;

	if (existing) {
		existing->frontend = *frontend;
		return 1;
	}
	newest = map_lookup(SOCKETS, &cookie);
	if (newest)
		entry.next = *newest;
	if (map_update(REVERSE, &key, &entry, BPF_ANY) || map_update(SOCKETS, &cookie, backend, BPF_ANY)) {
		map_delete(REVERSE, &key);
		count(COUNT_error_reverse_not_written);
		return 0;
	}
	return 1;
}

static __always_inline void remember_forward(
	__u64 cookie, const struct endpoint *frontend, const struct endpoint *backend, __u32 index)
{
	struct forward_key key = {.cookie = cookie, .frontend = *frontend};
	struct forward entry = {.backend = *backend, .index = index};

	if (map_update(FORWARD, &key, &entry, BPF_ANY))
		count(COUNT_error_forward_not_written);
}

/* Forgets everything about a socket that is being closed. */
static __always_inline void forget_socket(__u64 cookie)
{
	struct reverse_key key = {.cookie = cookie};
	struct endpoint *newest = map_lookup(SOCKETS, &cookie);
	struct reverse *entry;
	struct endpoint next;

	if (!newest) {
		count(COUNT_release_no_entry);
		return;
	}
	next = *newest;
	map_delete(SOCKETS, &cookie);
	for (int i = 0; i < RELEASE_STEPS; i++) {
		key.backend = next;
		entry = map_lookup(REVERSE, &key);
		if (!entry) /* the end of the chain, or the LRU took the rest */
			return;
		next = entry->next;
		if (entry->protocol == PROTOCOL_UDP)
			forget_forward(cookie, &entry->frontend);
		map_delete(REVERSE, &key);
		count(COUNT_released);
		if (!next.port)
			return;
	}
	count(COUNT_release_truncated);
}

#endif
