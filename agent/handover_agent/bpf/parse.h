/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a packet, whatever it is. It may be in pieces in memory, and may lie about its lengths: so what is not plain
 * (plain.h) is read by helpers, which check their bounds.
 */
#ifndef HANDOVER_PARSE_H
#define HANDOVER_PARSE_H

#include "packet.h"
#include "plain.h"

#define EXTENSION_HEADERS_MAX 8 /* a packet with more is left alone; the verifier wants a bound */

static __always_inline enum parsed malformed(void)
{
	count(COUNT_packet_malformed);
	return MALFORMED;
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
