/* SPDX-License-Identifier: Apache-2.0
 *
 * The maps. The agent creates them (sizes are its parameters), pins them, and reads them; they outlive it.
 *
 *   map        kind            key -> value                 written by             read by
 *   settings   array, 1        0 -> settings                agent                  programs
 *   frontends  hash            frontend_key -> frontend     agent                  programs
 *   backends   array           index -> endpoint            agent                  programs
 *   reverse    LRU hash        reverse_key -> reverse       connect, sendmsg       recvmsg, getpeername, packet path, agent
 *   forward    LRU hash        forward_key -> forward       connect, sendmsg (UDP) connect, sendmsg, agent
 *   sockets    LRU hash        cookie -> endpoint           connect, sendmsg       sock_release
 *   affinity   LRU hash        affinity_key -> affinity     selection              selection
 *   counters   per-CPU array   enum counter -> u64          programs               agent
 *   flows      LRU hash        flow_key -> flow             packet path, agent     packet path, agent
 *   fragments  LRU hash        fragment_key -> fragment     packet path            packet path
 *   sources    LPM trie        source_key -> u32 (unused)   agent                  packet path
 *   clients    hash            address -> netns cookie      from_pod               agent (to show them)
 *   work       per-CPU array   0 -> struct work             packet path            the same run of a program
 *   stranded   hash            flow_key -> endpoint         packet path            agent
 *   addresses  array           place -> known_group         agent                  packet path
 *   flow_addresses array       place -> known_group         packet path            packet path
 *
 * A region of `backends` never changes while a frontend points at it: the agent writes a new region, then the
 * frontend in one update, and uses the old region again only after a grace period.
 */
#ifndef HANDOVER_MAPS_H
#define HANDOVER_MAPS_H

#include "consts.h"
#include "kernel.h"
#include "structs.h"

#define SETTINGS       MAP(MAP_SETTINGS)
#define FRONTENDS      MAP(MAP_FRONTENDS)
#define BACKENDS       MAP(MAP_BACKENDS)
#define REVERSE        MAP(MAP_REVERSE)
#define FORWARD        MAP(MAP_FORWARD)
#define SOCKETS        MAP(MAP_SOCKETS)
#define AFFINITY       MAP(MAP_AFFINITY)
#define COUNTERS       MAP(MAP_COUNTERS)
#define FLOWS          MAP(MAP_FLOWS)
#define FRAGMENTS      MAP(MAP_FRAGMENTS)
#define SOURCES        MAP(MAP_SOURCES)
#define CLIENTS        MAP(MAP_CLIENTS)
#define STRANDED       MAP(MAP_STRANDED)
#define WORK           MAP(MAP_WORK)
#define ADDRESSES      MAP(MAP_ADDRESSES)
#define FLOW_ADDRESSES MAP(MAP_FLOW_ADDRESSES)

static __always_inline void count(enum counter which)
{
	__u32 index = which;
	__u64 *value = map_lookup(COUNTERS, &index);

	if (value)
		*value += 1;
}

#endif
