/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run of a packet path program works on.
 */
#ifndef HANDOVER_WORK_H
#define HANDOVER_WORK_H

#include "maps.h"
#include "packet.h"
#include "region.h"

/*
 * Not on the stack, of which there is little, and where the verifier would know so much about each field that it
 * took every combination for another case. No other run on this CPU interrupts one.
 */
struct work {
	struct packet packet;
	struct flow flow;
	struct flow_key turned;
	struct frontend frontend;
	struct choice choice;
	struct address client;
	__u32 outside;      /* it came from outside to what is no frontend of its own there */
	__u32 another_port; /* the client's own must not be used */
	__u32 zero;
	struct bpf_fib_lookup way;
};

_Static_assert(sizeof(struct work) <= WORK_BYTES, "the map has no room for it");

static __always_inline struct work *begin_work(void)
{
	__u32 zero = 0;
	struct work *work = map_lookup(WORK, &zero);

	if (work)
		__builtin_memset(work, 0, sizeof(*work));
	return work;
}

#endif
