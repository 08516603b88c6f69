/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys and values of the maps. None has padding that the compiler chooses: keys are compared byte by byte.
 * Another size or meaning of anything in here needs another LAYOUT (layout.py).
 */
#ifndef HANDOVER_STRUCTS_H
#define HANDOVER_STRUCTS_H

#include "consts.h"
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
	__u16 accepting; /* first in every layout. 0: new connections are left alone, what is translated goes on */
	__u8 noting;     /* 1: datagrams of stranded sockets are noted (stranded.h) */
	__u8 node_only;  /* 1: sockets of pods are left to the packet path */
	__be32 own_ipv4; /* an address of the node's, for what it sends from 127.0.0.1; 0: none is known */
};

struct frontend_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

struct frontend {
	__u32 offset; /* of the region in the backend array */
	__u32 count;  /* of backends that new connections may go to */
	__u32 service_id;
	__u32 affinity_timeout_s;
	__u32 flags; /* enum frontend_flags; upper half: how many backends follow, see region.h */
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
	struct address client; /* see affinity.h */
	__u32 service_id;
	__u32 zero;
};

struct affinity {
	__u64 last_used_ns;
	struct endpoint backend;
	__u32 index;
};

/* A packet's addresses and ports, and which way it goes. */
struct flow_key {
	struct address from;
	struct address to;
	__be16 from_port;
	__be16 to_port;
	__u8 protocol;
	__u8 direction; /* enum direction */
	__u16 zero;
};

/*
 * What the packet path translates, once for each direction (flows.h). Bytes that tell what was seen are set one by
 * one by several CPUs, so that none shares a word with another that is written.
 */
struct flow {
	struct endpoint other; /* TO_BACKEND: the backend; TO_CLIENT: the frontend */
	__u32 service_id;
	__u64 last_seen_ns; /* FLOW_HELD: since when */
	__u32 proof; /* what an answer to the opening packet carries: TCP's sequence number + 1, SCTP's tag;
		      * FLOW_LEFT: how long conntrack remembers the flow after a datagram, in seconds */
	__u32 index; /* TO_BACKEND: where in the array of backends it was; checked before it is believed */
	__be16 client_port; /* TO_BACKEND: the port that the backend sees; TO_CLIENT: the one that the client uses */
	__u8 flags;         /* enum flow_flags; constant */
	__u8 answered;        /* enum answered */
	__u8 client_finished; /* from here on: 0 or 1 */
	__u8 backend_finished;
	__u8 reset;
	__u8 confused; /* a packet came from the backend that cannot be an answer: its port is used otherwise too */
};

/* Pieces of a datagram but the first carry no ports. */
struct fragment_key {
	struct address from;
	struct address to;
	__u32 id;
	__u8 protocol;
	__u8 hook; /* enum hook */
	__u16 zero;
};

struct fragment {
	struct address address; /* that takes the place of the destination's, or of the source's */
	__u64 last_seen_ns;
	__u32 mark;
	__u32 localhost; /* 1: the other address changes as well, see localhost.h */
};

/* Places of addresses: known.h. */
struct known_group {
	__u8 bytes[KNOWN_GROUP_BYTES];
};

struct source_key {
	__u32 prefix_bits; /* of what follows */
	__be32 service_id;
	struct address source;
};

_Static_assert(sizeof(struct endpoint) == 20, "endpoint");
_Static_assert(sizeof(struct settings) == 8, "settings");
_Static_assert(sizeof(struct frontend_key) == 20, "frontend_key");
_Static_assert(sizeof(struct frontend) == 20, "frontend");
_Static_assert(sizeof(struct reverse_key) == 32, "reverse_key");
_Static_assert(sizeof(struct reverse) == 44, "reverse");
_Static_assert(sizeof(struct forward_key) == 32, "forward_key");
_Static_assert(sizeof(struct forward) == 24, "forward");
_Static_assert(sizeof(struct affinity_key) == 24, "affinity_key");
_Static_assert(sizeof(struct affinity) == 32, "affinity");
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");
_Static_assert(sizeof(struct flow) == 48, "flow");
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key");
_Static_assert(sizeof(struct fragment) == 32, "fragment");
_Static_assert(sizeof(struct source_key) == 24, "source_key");

#endif
