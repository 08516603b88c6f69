/* SPDX-License-Identifier: Apache-2.0
 *
 * A frontend's region of the backend array: reading a slot, and finding a backend again.
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

/* Finds `choice->backend` in the frontend's region and sets its index. 0: it is not there (any more). */
static __always_inline int find_backend(const struct frontend *frontend, struct choice *choice)
{
	const struct endpoint *found;
	__u32 low = frontend->offset, high = frontend->offset + frontend->count, middle = choice->index;

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

#endif
