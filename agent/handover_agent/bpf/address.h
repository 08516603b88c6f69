/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparing addresses and endpoints, of both families in one form.
 */
#ifndef HANDOVER_ADDRESS_H
#define HANDOVER_ADDRESS_H

#include "structs.h"

#define MAPPED_WORD network32(0x0000ffff) /* third word of ::ffff:a.b.c.d */

static __always_inline int is_ipv4(const struct address *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == MAPPED_WORD;
}

static __always_inline void map_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = MAPPED_WORD;
	address->word[3] = ipv4;
}

static __always_inline int same_address(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline int same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
	return same_address(&a->address, &b->address) && a->port == b->port;
}

/* The order in which the agent sorts a region: by the bytes of the address, then by port. */
static __always_inline int is_less(const struct endpoint *a, const struct endpoint *b)
{
	__u32 x = 0, y = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		x = network32(a->address.word[i]);
		y = network32(b->address.word[i]);
		if (x != y)
			return x < y;
	}
	return network16(a->port) < network16(b->port);
}

#endif
