/* SPDX-License-Identifier: Apache-2.0
 *
 * Session affinity ClientIP: a client stays with a backend of a Service port, over all of the port's frontends,
 * until it made no connection for the time-out or the backend is gone.
 *
 * In the socket path the client is the network namespace: a socket that connects has no source address yet, and
 * keying by the address it has (0.0.0.0) would pin the whole node to one backend. A pod is one namespace, so that
 * is the same as ClientIP for pods; all processes in the node's own namespace are one client, which has one
 * address as well in nearly every case. A packet from a socket on this node tells its namespace, too (sender.h), so that
 * a pod stays with its backend whichever path it takes; any other is a client by its address.
 */
#ifndef HANDOVER_AFFINITY_H
#define HANDOVER_AFFINITY_H

#include "maps.h"
#include "region.h"

#define NS_PER_S 1000000000ULL

/* A namespace as a client. No address looks like this: a cookie counts from 1, in the machine's byte order. */
static __always_inline struct address client_of_namespace(__u64 cookie)
{
	struct address client = {.word = {cookie, cookie >> 32, 0, 0}};

	return client;
}

static __always_inline int affinity_backend(
	const struct frontend *frontend, const struct address *client, struct choice *choice)
{
	struct affinity_key key = {.client = *client, .service_id = frontend->service_id};
	struct affinity *entry = map_lookup(AFFINITY, &key);
	__u64 now = now_ns();

	if (!entry) {
		count(COUNT_affinity_new);
		return 0;
	}
	if (now - entry->last_used_ns > frontend->affinity_timeout_s * NS_PER_S) {
		count(COUNT_affinity_expired);
		return 0;
	}
	choice->backend = entry->backend;
	choice->index = entry->index;
	if (!find_backend(frontend, choice)) {
		count(COUNT_backend_gone);
		return 0;
	}
	entry->last_used_ns = now;
	entry->index = choice->index;
	count(COUNT_affinity_kept);
	return 1;
}

static __always_inline void remember_affinity(
	const struct frontend *frontend, const struct address *client, const struct choice *choice)
{
	struct affinity_key key = {.client = *client, .service_id = frontend->service_id};
	struct affinity entry = {
		.last_used_ns = now_ns(), .backend = choice->backend, .index = choice->index};

	if (map_update(AFFINITY, &key, &entry, BPF_ANY))
		count(COUNT_error_affinity_not_written);
}

#endif
