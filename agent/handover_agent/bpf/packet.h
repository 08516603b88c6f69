/* SPDX-License-Identifier: Apache-2.0
 *
 * What a packet says: addresses, ports, and what it does to its connection. Everything is read by helpers, which
 * check their bounds: a packet may be in pieces in memory, and may lie about its lengths.
 */
#ifndef HANDOVER_PACKET_H
#define HANDOVER_PACKET_H

#include "address.h"
#include "maps.h"

/* What a tc program returns. To go on means: whatever else is attached there, then the stack. */
#define GO_ON (-1) /* TC_ACT_UNSPEC; tcx: next */
#define SHOT  2    /* TC_ACT_SHOT */

#define ETHERNET_ADDRESS_BYTES 6
#define ETHERNET_BYTES         14
#define ETHERTYPE_AT           12
#define IPV4_PLAIN             0x45 /* version 4, a header of five words */
#define PROTOCOL_IPV4          network16(0x0800)
#define PROTOCOL_IPV6          network16(0x86dd)
#define FRAGMENT_OFFSET        network16(0x1fff)
#define FRAGMENT_MORE          network16(0x2000)
#define FRAGMENT6_OFFSET       network16(0xfff8)
#define FRAGMENT6_MORE         network16(0x0001)

#define ROUTING_SEGMENTS_LEFT network16(0x00ff) /* of the same two bytes in a routing header */

/* Headers that IPv6 has between itself and the transport. */
#define EXTENSION_HOPS        0
#define EXTENSION_ROUTING     43
#define EXTENSION_FRAGMENT    44
#define EXTENSION_OPTIONS     60
#define EXTENSION_HEADERS_MAX 8 /* a packet with more is left alone; the verifier wants a bound */

#define PROTOCOL_ICMP  1
#define PROTOCOL_ICMP6 58

#define ICMP_BYTES         8 /* what comes before the packet that an error quotes; of ICMPv6, too */
#define ICMP_UNREACHABLE   3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER     12
#define ICMP6_UNREACHABLE  1 /* 2: packet too big, 3: time exceeded */
#define ICMP6_PARAMETER    4

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define TCP_OPENING_BYTES 65536 /* what an opening packet can carry, and more */

#define SCTP_INIT              1
#define SCTP_INIT_ACK          2
#define SCTP_ABORT             6
#define SCTP_SHUTDOWN_COMPLETE 14

struct ipv4_header {
	__u8 version_length;
	__u8 service;
	__be16 bytes;
	__be16 id;
	__be16 fragment;
	__u8 hops;
	__u8 protocol;
	__be16 sum;
	__be32 from;
	__be32 to;
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 bytes;
	__u8 next;
	__u8 hops;
	struct address from;
	struct address to;
};

struct fragment_header {
	__u8 next;
	__u8 length; /* of other extension headers, in 8 bytes beyond the first 8 */
	__be16 offset;
	__be32 id;
};

struct tcp_header {
	__be16 from;
	__be16 to;
	__be32 sequence;
	__be32 acknowledged;
	__u8 length;
	__u8 flags;
	__be16 window;
	__be16 sum;
	__be16 urgent;
};

struct sctp_header {
	__be16 from;
	__be16 to;
	__be32 tag;
	__be32 sum;
	__u8 chunk;
	__u8 chunk_flags;
	__be16 chunk_bytes;
	__be32 initiate_tag; /* of INIT and INIT ACK */
};

struct udp_header {
	__be16 from;
	__be16 to;
	__be16 bytes;
	__be16 sum;
};

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

static __always_inline void map_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = MAPPED_WORD;
	address->word[3] = ipv4;
}

static __always_inline enum parsed malformed(void)
{
	count(COUNT_packet_malformed);
	return MALFORMED;
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

static __always_inline enum parsed parse_transport(const struct __sk_buff *skb, struct packet *packet)
{
	union {
		struct tcp_header tcp;
		struct udp_header udp;
		struct sctp_header sctp;
	} header = {};

	switch (packet->key.protocol) {
	case PROTOCOL_TCP:
		if (load_bytes(skb, packet->transport, &header.tcp, sizeof(header.tcp)))
			return malformed();
		read_tcp(packet, &header.tcp);
		break;
	case PROTOCOL_UDP:
		if (load_bytes(skb, packet->transport, &header.udp, sizeof(header.udp)))
			return malformed();
		packet->does = OPENS | ACCEPTS;
		break;
	case PROTOCOL_SCTP:
		/* The shortest packet has one chunk without content, and no tag of INIT. */
		if (load_bytes(skb, packet->transport, &header.sctp, sizeof(header.sctp) - sizeof(__be32)))
			return malformed();
		packet->proof = header.sctp.tag;
		if (header.sctp.chunk == SCTP_INIT) {
			if (load_bytes(skb, packet->transport, &header.sctp, sizeof(header.sctp)))
				return malformed();
			packet->does = OPENS;
			packet->proof = header.sctp.initiate_tag;
		} else if (header.sctp.chunk == SCTP_INIT_ACK) {
			packet->does = ACCEPTS;
		} else if (header.sctp.chunk == SCTP_ABORT) {
			packet->does = RESETS | ACCEPTS;
		} else if (header.sctp.chunk == SCTP_SHUTDOWN_COMPLETE) {
			packet->does = RESETS;
		}
		break;
	default:
		count(COUNT_packet_other_protocol);
		return OTHER;
	}
	packet->key.from_port = header.tcp.from; /* the ports are at the same place in all three */
	packet->key.to_port = header.tcp.to;
	return SERVED;
}

static __always_inline enum parsed parse_ipv4(const struct __sk_buff *skb, struct packet *packet)
{
	struct ipv4_header header;
	__u32 bytes;

	if (load_bytes(skb, packet->network, &header, sizeof(header)))
		return malformed();
	bytes = (header.version_length & 0xf) * 4;
	if (header.version_length >> 4 != 4 || bytes < sizeof(header))
		return malformed();
	map_ipv4(&packet->key.from, header.from);
	map_ipv4(&packet->key.to, header.to);
	packet->key.protocol = header.protocol;
	packet->transport = packet->network + bytes;
	packet->transport_bytes = network16(header.bytes) - bytes;
	packet->id = header.id;
	packet->fragment_protocol = header.protocol;
	packet->fragment = !!(header.fragment & FRAGMENT_MORE);
	return header.fragment & FRAGMENT_OFFSET ? PIECE : SERVED;
}

static __always_inline enum parsed parse_ipv6(const struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6_header header;
	struct fragment_header extension; /* the others begin alike: what comes next, and their length */

	if (load_bytes(skb, packet->network, &header, sizeof(header)))
		return malformed();
	if (*(__u8 *)&header.version_class_label >> 4 != 6)
		return malformed();
	packet->key.from = header.from;
	packet->key.to = header.to;
	packet->key.protocol = header.next;
	packet->transport = packet->network + sizeof(header);
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		if (packet->key.protocol != EXTENSION_HOPS && packet->key.protocol != EXTENSION_ROUTING &&
			packet->key.protocol != EXTENSION_FRAGMENT &&
			packet->key.protocol != EXTENSION_OPTIONS)
			break;
		if (load_bytes(skb, packet->transport, &extension, sizeof(extension)))
			return malformed();
		if (packet->key.protocol == EXTENSION_FRAGMENT) {
			packet->id = extension.id;
			packet->fragment_protocol = extension.next;
			packet->fragment = !!(extension.offset & FRAGMENT6_MORE);
			if (extension.offset & FRAGMENT6_OFFSET)
				return PIECE;
			packet->transport += sizeof(extension);
		} else if (packet->key.protocol == EXTENSION_ROUTING &&
			   extension.offset & ROUTING_SEGMENTS_LEFT) {
			/* On its way to somewhere else first; checksums are about the last address. */
			count(COUNT_packet_source_routed);
			return OTHER;
		} else {
			packet->transport += (extension.length + 1) * 8;
		}
		packet->key.protocol = extension.next;
	}
	packet->transport_bytes =
		network16(header.bytes) + packet->network + sizeof(header) - packet->transport;
	return SERVED;
}

static __always_inline enum parsed parse_network(const struct __sk_buff *skb, struct packet *packet)
{
	return packet->ipv4 ? parse_ipv4(skb, packet) : parse_ipv6(skb, packet);
}

/* Whether an ICMP message of this type is about a packet, which it then quotes. */
static __always_inline int is_error(const struct packet *packet, __u8 type)
{
	if (packet->ipv4)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
	return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
}

/* Puts the packet that an ICMP error quotes in the place of the error itself. */
static __always_inline enum parsed parse_quoted(const struct __sk_buff *skb, struct packet *packet)
{
	struct address from = packet->key.from, to = packet->key.to;
	enum parsed parsed;
	__be16 ports[2];
	__u8 type;

	if (load_bytes(skb, packet->transport, &type, sizeof(type)))
		return malformed();
	if (!is_error(packet, type) || packet->fragment) {
		count(COUNT_packet_other_protocol);
		return OTHER;
	}
	packet->outer_network = packet->network;
	packet->icmp = packet->transport;
	packet->network = packet->icmp + ICMP_BYTES;
	parsed = parse_network(skb, packet);
	if (parsed == MALFORMED)
		return parsed;
	if (parsed != SERVED ||
		(packet->key.protocol != PROTOCOL_TCP && packet->key.protocol != PROTOCOL_UDP &&
			packet->key.protocol != PROTOCOL_SCTP)) {
		count(COUNT_packet_other_protocol);
		return OTHER;
	}
	if (load_bytes(skb, packet->transport, ports, sizeof(ports)))
		return malformed();
	packet->key.from_port = ports[0];
	packet->key.to_port = ports[1];
	packet->from_target = same_address(&from, &packet->key.to);
	packet->to_source = same_address(&to, &packet->key.from);
	return QUOTES;
}

static __always_inline int plain_transport(
	struct packet *packet, const void *transport, const void *end, __u8 protocol)
{
	const struct tcp_header *tcp = transport;
	const struct udp_header *udp = transport;

	if (protocol == PROTOCOL_TCP) {
		if ((const void *)(tcp + 1) > end)
			return 0;
		read_tcp(packet, tcp);
		packet->key.from_port = tcp->from;
		packet->key.to_port = tcp->to;
	} else if (protocol == PROTOCOL_UDP) {
		if ((const void *)(udp + 1) > end)
			return 0;
		packet->does = OPENS | ACCEPTS;
		packet->key.from_port = udp->from;
		packet->key.to_port = udp->to;
	} else {
		return 0;
	}
	packet->key.protocol = packet->fragment_protocol = protocol;
	return 1;
}

static __always_inline int plain_ipv4(struct packet *packet, const void *data, const void *end, __u32 bytes)
{
	const struct ipv4_header *header = data + ETHERNET_BYTES;

	if ((const void *)(header + 1) > end || header->version_length != IPV4_PLAIN ||
		header->fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE) ||
		ETHERNET_BYTES + network16(header->bytes) > bytes ||
		!plain_transport(packet, header + 1, end, header->protocol))
		return 0;
	map_ipv4(&packet->key.from, header->from);
	map_ipv4(&packet->key.to, header->to);
	packet->ipv4 = 1;
	packet->transport = ETHERNET_BYTES + sizeof(*header);
	packet->transport_bytes = network16(header->bytes) - sizeof(*header);
	return 1;
}

static __always_inline int plain_ipv6(struct packet *packet, const void *data, const void *end, __u32 bytes)
{
	const struct ipv6_header *header = data + ETHERNET_BYTES;

	if ((const void *)(header + 1) > end || *(const __u8 *)header >> 4 != 6 ||
		ETHERNET_BYTES + sizeof(*header) + network16(header->bytes) > bytes ||
		!plain_transport(packet, header + 1, end, header->next))
		return 0;
	packet->key.from = header->from;
	packet->key.to = header->to;
	packet->transport = ETHERNET_BYTES + sizeof(*header);
	packet->transport_bytes = network16(header->bytes);
	return 1;
}

/*
 * What nearly every packet is: TCP or UDP right behind an IP header without options, which is right behind an Ethernet
 * header, all in one piece of memory. Read in place, as a helper's call costs more than all of it. 0: it is not such a
 * one, and is to be read in the careful way.
 */
static __always_inline int parse_plain(const struct __sk_buff *skb, struct packet *packet)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	int found = 0;

	if (data + ETHERNET_BYTES > end || *(const __be16 *)(data + ETHERTYPE_AT) != skb->protocol)
		return 0;
	/* It may be that an IP header is at the beginning, and its source's address looks like a type. */
	if (*(const __u8 *)data >> 4 == (skb->protocol == PROTOCOL_IPV4 ? 4 : 6) && !network_offset(skb))
		return 0;
	if (skb->protocol == PROTOCOL_IPV4)
		found = plain_ipv4(packet, data, end, skb->len);
	else if (skb->protocol == PROTOCOL_IPV6)
		found = plain_ipv6(packet, data, end, skb->len);
	if (!found)
		return 0;
	packet->link_bytes = packet->network = ETHERNET_BYTES;
	return 1;
}

static __always_inline enum parsed parse(const struct __sk_buff *skb, struct packet *packet)
{
	enum parsed parsed;

	if (skb->vlan_present) {
		/* On its way to or from a device of its own, where it is met without the tag. */
		count(COUNT_packet_vlan);
		return OTHER;
	}
	if (parse_plain(skb, packet)) {
		forget_registers();
		return SERVED;
	}
	packet->does = packet->proof = 0;
	if (skb->protocol != PROTOCOL_IPV4 && skb->protocol != PROTOCOL_IPV6) {
		count(COUNT_packet_not_ip);
		return OTHER;
	}
	packet->ipv4 = skb->protocol == PROTOCOL_IPV4;
	packet->link_bytes = packet->network = network_offset(skb);
	parsed = parse_network(skb, packet);
	if (parsed != SERVED)
		return parsed;
	if (packet->key.protocol == (packet->ipv4 ? PROTOCOL_ICMP : PROTOCOL_ICMP6))
		return parse_quoted(skb, packet);
	return parse_transport(skb, packet);
}

#endif
