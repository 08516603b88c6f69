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

	if (work) {
		__builtin_memset(&work->packet, 0, sizeof(work->packet));
		work->turned.zero = 0;
	}
	return work;
}

/* Clears what a flow is opened with, which is more than most packets need. */
static __always_inline void begin_opening(struct work *work)
{
	__builtin_memset(&work->flow, 0, sizeof(work->flow));
	__builtin_memset(&work->frontend, 0, sizeof(work->frontend));
	__builtin_memset(&work->choice, 0, sizeof(work->choice));
	__builtin_memset(&work->client, 0, sizeof(work->client));
	work->outside = 0;
	work->another_port = 0;
}

#endif
