/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node sends from 127.0.0.1: to a NodePort there, mostly. No answer would come back to that address from
 * elsewhere, so the backend sees one of the node's own (settings), and the client is known to be at 127.0.0.1 by a
 * flag of its flow.
 */
#ifndef HANDOVER_LOCALHOST_H
#define HANDOVER_LOCALHOST_H

#include "address.h"
#include "maps.h"

#define LOCALHOST_IPV4 network32(0x7f000001)

static __always_inline struct address localhost(void)
{
	struct address made = {.word = {0, 0, MAPPED_WORD, LOCALHOST_IPV4}};

	return made;
}

/* The address by which backends see 127.0.0.1; its last word is 0 if none is known. */
static __always_inline struct address localhost_outside(void)
{
	struct address made = {.word = {0, 0, MAPPED_WORD, 0}};
	const struct settings *settings;
	__u32 zero = 0;

	settings = map_lookup(SETTINGS, &zero);
	if (settings)
		made.word[3] = settings->own_ipv4;
	return made;
}

static __always_inline int is_localhost(const struct address *a)
{
	return is_ipv4(a) && a->word[3] == LOCALHOST_IPV4;
}

/* Whether nobody but this node can answer to an address: of 127.0.0.0/8, or ::1. */
static __always_inline int is_loopback(const struct address *a)
{
	if (is_ipv4(a))
		return (network32(a->word[3]) >> 24) == 127;
	return !a->word[0] && !a->word[1] && !a->word[2] && a->word[3] == network32(1);
}

#endif
