/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys and values of the maps. None has padding that the compiler chooses: keys are compared byte by byte.
 * Another size or meaning of anything in here needs another LAYOUT (layout.py).
 */
#ifndef HANDOVER_STRUCTS_H
#define HANDOVER_STRUCTS_H

#include "kernel.h"

/* Network byte order; IPv4 as ::ffff:a.b.c.d, which makes both families and mapped sockets one case. */
struct address {
	__u32 word[4];
};

struct endpoint {
	struct address address;
	__be16 port;
	__u16 zero;
};

struct settings {
	__u32 accepting; /* 0: new connections are left alone, what is translated goes on */
	__u32 zero;
};

struct frontend_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

struct frontend {
	__u32 offset; /* of the region in the backend array */
	__u32 count;
	__u32 service_id;
	__u32 affinity_timeout_s;
	__u32 flags;
};

struct reverse_key {
	__u64 cookie;
	struct endpoint backend;
	__u32 zero;
};

struct reverse {
	struct endpoint frontend;
	struct endpoint next; /* backend of this socket's next older entry; port 0: none */
	__u32 protocol;
};

struct forward_key {
	__u64 cookie;
	struct endpoint frontend;
	__u32 zero;
};

struct forward {
	struct endpoint backend;
	__u32 index; /* where in the array it was; checked before it is believed */
};

struct affinity_key {
	__u64 netns_cookie; /* the client; see affinity.h */
	__u32 service_id;
	__u32 zero;
};

struct affinity {
	__u64 last_used_ns;
	struct endpoint backend;
	__u32 index;
};

_Static_assert(sizeof(struct endpoint) == 20, "endpoint");
_Static_assert(sizeof(struct settings) == 8, "settings");
_Static_assert(sizeof(struct frontend_key) == 20, "frontend_key");
_Static_assert(sizeof(struct frontend) == 20, "frontend");
_Static_assert(sizeof(struct reverse_key) == 32, "reverse_key");
_Static_assert(sizeof(struct reverse) == 44, "reverse");
_Static_assert(sizeof(struct forward_key) == 32, "forward_key");
_Static_assert(sizeof(struct forward) == 24, "forward");
_Static_assert(sizeof(struct affinity_key) == 16, "affinity_key");
_Static_assert(sizeof(struct affinity) == 32, "affinity");

#endif
