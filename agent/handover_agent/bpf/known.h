/* SPDX-License-Identifier: Apache-2.0
 *
 * Which addresses may mean anything to us: those of frontends, and those of backends and frontends that flows have.
 * Most packets of a node are between others, and looking for their flow and their frontend would cost several look-ups
 * in large tables each. Here a look at one or two small ones tells that there is nothing to be found.
 *
 * Addresses share places, so the answer is `maybe` or `no`, and never a wrong `no`: an address gets its place before
 * there is anything to be found, and keeps it. The agent does that for frontends (maps.py) and takes back what is in
 * vain; programs do it for flows, and nobody takes it back before the maps go.
 */
#ifndef HANDOVER_KNOWN_H
#define HANDOVER_KNOWN_H

#include "maps.h"

/* Flows have two kinds of places, apart from each other: packets to a backend are no packets to a frontend. */
#define AS_FRONTEND(place) (place)
#define AS_BACKEND(place)  (~(place))

#define GROUP_SHIFT 22 /* 10 bits for the group, 6 for its byte, 3 for the bit (frontends only) */
#define BYTE_SHIFT  16
#define BIT_SHIFT   13

/* layout.py computes the same: place_of. */
static __always_inline __u32 place_of(const struct address *a)
{
	return (a->word[0] ^ a->word[1] ^ a->word[2] ^ a->word[3]) * 0x9e3779b1U;
}

static __always_inline struct known_group *known_group(void *map, __u32 place)
{
	__u32 group = place >> GROUP_SHIFT;

	return map_lookup(map, &group);
}

static __always_inline int may_be_frontend(__u32 place)
{
	const struct known_group *group = known_group(ADDRESSES, place);

	return group &&
	       group->bytes[(place >> BYTE_SHIFT) % KNOWN_GROUP_BYTES] >> ((place >> BIT_SHIFT) & 7) & 1;
}

static __always_inline int may_have_flows(__u32 place)
{
	const struct known_group *group = known_group(FLOW_ADDRESSES, place);

	return group && group->bytes[(place >> BYTE_SHIFT) % KNOWN_GROUP_BYTES];
}

/* A whole byte for each, which several CPUs can set without knowing of each other. */
static __always_inline void will_have_flows(__u32 place)
{
	struct known_group *group = known_group(FLOW_ADDRESSES, place);

	if (group)
		group->bytes[(place >> BYTE_SHIFT) % KNOWN_GROUP_BYTES] = 1;
}

#endif
