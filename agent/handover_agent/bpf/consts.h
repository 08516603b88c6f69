/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers that the agent and the programs agree on (agent/tests/datapath checks that they do).
 */
#ifndef HANDOVER_CONSTS_H
#define HANDOVER_CONSTS_H

/* Which map an instruction means; the loader replaces these by descriptors (layout.py: MAPS). */
enum map_number {
	MAP_SETTINGS = 0,
	MAP_FRONTENDS = 1,
	MAP_BACKENDS = 2,
	MAP_REVERSE = 3,
	MAP_FORWARD = 4,
	MAP_SOCKETS = 5,
	MAP_AFFINITY = 6,
	MAP_COUNTERS = 7,
	MAP_FLOWS = 8,
	MAP_FRAGMENTS = 9,
	MAP_SOURCES = 10,
	MAP_CLIENTS = 11,
	MAP_STRANDED = 12,
	MAP_WORK = 13,
	MAP_ADDRESSES = 14,
	MAP_FLOW_ADDRESSES = 15,
};

/* What the loader found out about this kernel, and fills in (loader/abilities.py). */
enum ability {
	SET_RETVAL = 0,    /* 1: a program may say with which error a call fails */
	PACKET_NETNS = 1,  /* 1: it may ask for the network namespace of a packet's socket */
	NET_IN_SOCKET = 2, /* else: where in a socket that is, in bytes; 0: not known */
	COOKIE_IN_NET = 3, /* and where in that its cookie is */
	NODE_NETNS = 4,    /* the cookie of the node's own network namespace; 0: it is the initial one */
};

/* Of every socket, of whatever kind, so many words of 8 bytes are there to be read. */
#define SOCKET_WORDS 16

/* table.Protocol */
enum protocol { PROTOCOL_ANY = 0, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_SCTP = 132 };

/* table.Scope */
enum scope { SCOPE_INTERNAL = 0, SCOPE_EXTERNAL = 1 };

/* table.FrontendFlags */
enum frontend_flags {
	FRONTEND_REFUSE = 1,
	FRONTEND_DROP = 2,
	FRONTEND_AFFINITY = 4,
	FRONTEND_MASQUERADE = 8, /* flows of the packet path get the node's address as their source */
	FRONTEND_SOURCES =
		16, /* only sources in the map of that name may; the socket path cannot know them */
};

/* In the upper half of a frontend's flags: how long the second part of its region is. */
#define SERVING_SHIFT 16

/* marks.py: bits of a packet's mark, which the static nft table acts on. */
enum mark { MARK_OURS = 0x0500, MARK_MASQUERADE = 0x1500, MARK_REFUSE = 0x0d00 };

/* Which way a flow's entry is for: from the client to the frontend, or from the backend to the client. */
enum direction { TO_BACKEND = 0, TO_CLIENT = 1 };

enum flow_flags {
	FLOW_MASQUERADE = 1, /* its packets get MARK_MASQUERADE */
	FLOW_NODE = 4,       /* the client is this node, or rather its kernel */
	FLOW_LOCALHOST = 8,  /* and it is at 127.0.0.1: see localhost.h */
	FLOW_DIRECT = 2, /* to no frontend: only the client's port changes, which a flow of ours has there */
	FLOW_LEFT = 16,  /* datagrams that the kernel's conntrack translates: there is only a forward entry */
	FLOW_HELD = 32,  /* datagrams whose flow is just being handed to conntrack: they have to wait */
};

/* Of a flow of datagrams STREAM: there were some later than a second after others. */
enum answered { UNANSWERED = 0, ANSWERED = 1, STREAM = 2 };

/* Where a piece of a datagram is met. */
enum hook { HOOK_INWARD = 0, HOOK_OUTWARD = 1, HOOK_NODE = 2, HOOK_TO_NODE = 3 };

/* For how long the first piece of a datagram counts, in seconds: as long as the kernel waits for all of them. */
#define FRAGMENT_S 30

enum counter {
#define COUNTER(name, text) COUNT_##name,
#include "counter_names.h"
#undef COUNTER
	COUNTERS_USED,
};

/* The map of counters has room for names yet to come, so that a newer version can go on using it. */
#define COUNTERS_ROOM 128

/* Bytes that a packet path program has to work in, besides its stack: more than it needs now. */
#define WORK_BYTES 512

/* Places for addresses (known.h): how many groups of how many bytes. */
#define KNOWN_GROUPS      1024
#define KNOWN_GROUP_BYTES 64

/* Steps of the binary search in a region: enough for 2^16 - 1 backends; the verifier wants it constant. */
#define SEARCH_STEPS 16

/* How long a flow lives without a packet, in seconds, as the kernel's conntrack has it. A question and its answer are
 * no more than an attempt there; datagrams that go on later (enum answered) are a connection. */
#define TCP_OPENING_S      120
#define TCP_CLOSING_S      120
#define TCP_ESTABLISHED_S  (5 * 24 * 3600)
#define UDP_OPENING_S      30
#define UDP_ESTABLISHED_S  120
#define SCTP_OPENING_S     60
#define SCTP_ESTABLISHED_S (5 * 24 * 3600)

/* How long after its last answer a flow of datagrams stays with a backend that serves no more: a server that is
 * about to end goes on answering those that it knows. */
#define DRAINING_S 2

/* For how long datagrams wait at most while their flow is handed over, in milliseconds: the agent needs less than
 * one, but it may be interrupted, or end. */
#define HELD_MS 1000

/* Ports that a client may get towards a backend where its own is in use, and how many are tried. They are below
 * those that Linux gives to clients, and below NodePorts. */
#define FREE_PORT_FIRST 1024
#define FREE_PORTS      (30000 - FREE_PORT_FIRST)
#define FREE_PORT_TRIES 8

/* The same for what the node sends: apart from the others, among which the kernel's masquerade chooses for the
 * same address, and above those that Linux gives to clients. */
#define NODE_PORT_FIRST 61000
#define NODE_PORTS      (65536 - NODE_PORT_FIRST)

/* Reverse entries that closing one socket removes. A socket with more of them (a process that talks to more
 * services through one unconnected socket) leaves the rest to the maps' LRU. */
#define RELEASE_STEPS 16

_Static_assert(COUNTERS_USED <= COUNTERS_ROOM, "more counters than the map has room for: new layout needed");

#endif
