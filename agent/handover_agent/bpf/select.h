/* SPDX-License-Identifier: Apache-2.0
 *
 * Which backend a new connection to a frontend gets: the one selection function, for every path.
 */
#ifndef HANDOVER_SELECT_H
#define HANDOVER_SELECT_H

#include "affinity.h"
#include "maps.h"
#include "region.h"

enum verdict {
	CHOSEN, /* a backend was chosen */
	KEPT,   /* the backend chosen earlier still serves the frontend */
	LEAVE,  /* leave the destination alone */
	REFUSE, /* answer with ECONNREFUSED */
	DROP,   /* do not answer: a time-out, as kube-proxy does */
};

/* Whether new connections are served; what is translated goes on in any case. */
static __always_inline int is_accepting(void)
{
	__u32 zero = 0;
	const struct settings *settings = map_lookup(SETTINGS, &zero);

	return settings && settings->accepting;
}

/*
 * Copies the frontend's value. The kernel may hand out the memory of an entry that was just replaced again
 * while we read it, so a copy is believed only when the entry found again says the same.
 */
static __always_inline int read_frontend(const struct frontend_key *key, struct frontend *frontend)
{
	const struct frontend *found = map_lookup(FRONTENDS, key);

	if (!found)
		return 0;
	*frontend = *found;
	found = map_lookup(FRONTENDS, key);
	if (!found)
		return 0;
	if (found->offset != frontend->offset || found->count != frontend->count ||
		found->service_id != frontend->service_id)
		*frontend = *found;
	return 1;
}

/*
 * The frontend of a destination: its own, or the one that stands for all other ports of a ClusterIP (port 0 of
 * any protocol, which refuses). `key` is that of the frontend found.
 */
static __always_inline int find_frontend(struct frontend_key *key, struct frontend *frontend)
{
	if (read_frontend(key, frontend))
		return 1;
	key->port = 0;
	key->protocol = PROTOCOL_ANY;
	return read_frontend(key, frontend);
}

/*
 * Chooses a backend of `frontend` for `client`. With `keep` (not null), an earlier choice is kept as long
 * as it serves the frontend.
 */
static __always_inline enum verdict select_backend(const struct frontend *frontend,
	const struct address *client, const struct forward *keep, struct choice *choice)
{
	if (keep && (frontend->count || serving(frontend))) {
		choice->backend = keep->backend;
		choice->index = keep->index;
		if (find_serving(frontend, choice))
			return KEPT;
		count(COUNT_backend_gone);
	}
	if (frontend->flags & FRONTEND_REFUSE)
		return REFUSE;
	if (frontend->flags & FRONTEND_DROP)
		return DROP;
	if (!frontend->count) {
		count(COUNT_error_frontend_empty);
		return LEAVE;
	}
	if (frontend->flags & FRONTEND_AFFINITY && affinity_backend(frontend, client, choice))
		return CHOSEN;
	if (!read_backend(frontend->offset + random_u32() % frontend->count, choice)) {
		count(COUNT_error_backend_missing);
		return LEAVE;
	}
	if (frontend->flags & FRONTEND_AFFINITY)
		remember_affinity(frontend, client, choice);
	return CHOSEN;
}

#endif
