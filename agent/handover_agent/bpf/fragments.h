/* SPDX-License-Identifier: Apache-2.0
 *
 * Datagrams in pieces: only the first has ports. What becomes of it is remembered for the others, which get the same
 * address; the transport's checksum is in the first one.
 *
 * A piece that comes before the first is left alone, as are those of what is not translated. On the way out that
 * does not happen to what was forwarded: conntrack put it together and cut it again, in order.
 */
#ifndef HANDOVER_FRAGMENTS_H
#define HANDOVER_FRAGMENTS_H

#include "affinity.h"
#include "maps.h"
#include "packet.h"

static __always_inline void fragment_key(
	const struct packet *packet, enum hook hook, struct fragment_key *key)
{
	key->from = packet->key.from;
	key->to = packet->key.to;
	key->id = packet->id;
	key->protocol = packet->fragment_protocol;
	key->hook = hook;
	key->zero = 0;
}

/* Before the first piece is looked at: its number may have been another datagram's. */
static __always_inline void forget_fragment(const struct packet *packet, enum hook hook)
{
	struct fragment_key key;

	if (!packet->fragment)
		return;
	fragment_key(packet, hook, &key);
	map_delete(FRAGMENTS, &key);
}

/* The first piece got `address`, and the mark. */
static __always_inline void remember_fragment(
	const struct packet *packet, enum hook hook, const struct address *address, __u32 mark, int localhost)
{
	struct fragment entry = {.address = *address, .mark = mark, .localhost = localhost};
	struct fragment_key key;

	if (!packet->fragment)
		return;
	entry.last_seen_ns = now_ns();
	fragment_key(packet, hook, &key);
	if (map_update(FRAGMENTS, &key, &entry, BPF_ANY))
		count(COUNT_error_fragment_not_written);
}

/* What a later piece gets; null: nothing, it is left alone. */
static __always_inline const struct fragment *find_fragment(const struct packet *packet, enum hook hook)
{
	const struct fragment *found;
	struct fragment_key key;

	fragment_key(packet, hook, &key);
	found = map_lookup(FRAGMENTS, &key);
	return found && now_ns() - found->last_seen_ns <= FRAGMENT_S * NS_PER_S ? found : 0;
}

#endif
