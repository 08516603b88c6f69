/* SPDX-License-Identifier: Apache-2.0
 *
 * A frontend's region of the backend array: reading a slot, and finding a backend again. First come the backends that
 * new connections may go to, sorted. If others serve, which keep the flows of datagrams that they have, all that serve
 * follow, sorted: so that an older flow's backend is looked for in one place, and the verifier has one search to follow.
 */
#ifndef HANDOVER_REGION_H
#define HANDOVER_REGION_H

#include "address.h"
#include "maps.h"

/* A backend, and where in the array it was read. */
struct choice {
	struct endpoint backend;
	__u32 index;
};

static __always_inline int read_backend(__u32 index, struct choice *choice)
{
	const struct endpoint *found = map_lookup(BACKENDS, &index);

	if (!found)
		return 0;
	choice->backend = *found;
	choice->index = index;
	return 1;
}

/* Finds `choice->backend` between two slots, where backends are sorted, and sets its index. 0: it is not there. */
static __always_inline int find_between(__u32 low, __u32 high, struct choice *choice)
{
	const struct endpoint *found;
	__u32 middle = choice->index;

	/* Most often it is where it was; else search, as a changed service has another region. */
	if (middle < low || middle >= high)
		middle = low + (high - low) / 2;
	for (int i = 0; i <= SEARCH_STEPS; i++) {
		if (low >= high)
			return 0;
		found = map_lookup(BACKENDS, &middle);
		if (!found)
			return 0;
		if (same_endpoint(found, &choice->backend)) {
			choice->index = middle;
			return 1;
		}
		if (is_less(found, &choice->backend))
			low = middle + 1;
		else
			high = middle;
		middle = low + (high - low) / 2;
	}
	return 0;
}

/* Whether new connections to the frontend may go to `choice->backend`. */
static __always_inline int find_backend(const struct frontend *frontend, struct choice *choice)
{
	return find_between(frontend->offset, frontend->offset + frontend->count, choice);
}

/* How long the second part of the region is; 0: all that serve get new connections. */
static __always_inline __u32 serving(const struct frontend *frontend)
{
	return frontend->flags >> SERVING_SHIFT;
}

/* Whether a flow to the frontend may stay with `choice->backend`. */
static __always_inline int find_serving(const struct frontend *frontend, struct choice *choice)
{
	__u32 first = frontend->offset, length = frontend->count;

	if (serving(frontend)) {
		first += length;
		length = serving(frontend);
	}
	return find_between(first, first + length, choice);
}

#endif
