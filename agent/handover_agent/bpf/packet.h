/* SPDX-License-Identifier: Apache-2.0
 *
 * What the packet path knows of a packet: addresses, ports, what it does to its connection, and where its headers begin.
 * And what both ways of reading one have in common (plain.h, parse.h).
 */
#ifndef HANDOVER_PACKET_H
#define HANDOVER_PACKET_H

#include "address.h"
#include "maps.h"
#include "wire.h"

enum parsed {
	SERVED,    /* TCP, UDP, SCTP, with ports */
	PIECE,     /* a datagram's, but not the first: it has no ports */
	QUOTES,    /* an ICMP error about TCP, UDP, SCTP: `key` is that of the packet that it quotes */
	OTHER,     /* nothing of ours; counted */
	MALFORMED, /* nobody could receive it; counted */
};

/* What a packet does to its connection. */
enum does {
	OPENS = 1,    /* it may be the first: TCP's SYN, SCTP's INIT, any datagram */
	ACCEPTS = 2,  /* it may be the answer to such a one, for better or for worse */
	FINISHES = 4, /* its sender will send no more */
	RESETS = 8,   /* there is no connection any more */
};

struct packet {
	struct flow_key key;
	__u32 network;   /* where the IP header begins */
	__u32 transport; /* where the TCP, UDP or SCTP header begins */
	__u32 transport_bytes;
	__u32 proof; /* see struct flow: of a packet that OPENS what its answer carries, else what it carries itself */
	__u32 id; /* of a fragment */
	__u8 fragment_protocol;
	__u8 fragment; /* the first of several pieces */
	__u8 ipv4;
	__u8 does;
	/* of one that QUOTES: */
	__u8 from_target; /* it is from where the quoted packet was going */
	__u8 to_source;   /* it is for where the quoted packet came from */
	__u8 link_bytes;  /* before the IP header: 0, or ETHERNET_BYTES */
	__u8 zero;
	__u32 outer_network;
	__u32 icmp; /* where the ICMP header begins */
};

/*
 * Where the IP header begins: behind an Ethernet header, or at once (tunnels, WireGuard). Nothing tells which, but
 * without a link header the data begins with what the network header points to.
 */
static __always_inline __u32 network_offset(const struct __sk_buff *skb)
{
	__u64 at_start[2] = {}, at_network[2] = {};

	if (load_bytes(skb, 0, at_start, sizeof(at_start)) ||
		load_network_bytes(skb, 0, at_network, sizeof(at_network), BPF_HDR_START_NET))
		return ETHERNET_BYTES;
	return at_start[0] == at_network[0] && at_start[1] == at_network[1] ? 0 : ETHERNET_BYTES;
}

static __always_inline void read_tcp(struct packet *packet, const struct tcp_header *header)
{
	if ((header->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN) {
		packet->does = OPENS;
		packet->proof = network32(header->sequence) + 1;
	} else {
		packet->proof = network32(header->acknowledged);
	}
	if (header->flags & TCP_FIN)
		packet->does |= FINISHES;
	if (header->flags & TCP_RST)
		packet->does |= RESETS | ACCEPTS;
	if ((header->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
		packet->does |= ACCEPTS;
}

#endif
