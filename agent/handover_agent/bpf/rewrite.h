/* SPDX-License-Identifier: Apache-2.0
 *
 * Changing a packet's address and ports, and its checksums by the difference: a checksum that was wrong stays so,
 * and packets that the device still has to sum up or to cut in pieces are left for it to finish.
 */
#ifndef HANDOVER_REWRITE_H
#define HANDOVER_REWRITE_H

#include "packet.h"
#include "sctp.h"

enum side { SOURCE, DESTINATION };

#define ICMP_SUM_AT 2

static __always_inline __u32 sum_offset(__u8 protocol)
{
	return protocol == PROTOCOL_TCP ? 16 : 6; /* of TCP, of UDP */
}

/*
 * Tells the checksum at `offset` of a change in the addresses that it covers. For IPv6, the helper does not know that
 * the addresses themselves changed as well, and spoils the sum that a device made of the whole packet
 * (CHECKSUM_COMPLETE): for IPv4 the header's own checksum makes up for them.
 */
static __always_inline int sum_addresses(
	struct __sk_buff *skb, const struct packet *packet, __u32 offset, __u32 change, __u64 flags)
{
	if (replace_sum(skb, offset, 0, change, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (!packet->ipv4)
		add_to_device_sum(skb, change);
	return 0;
}

static __always_inline int rewrite_sctp_ports(
	struct __sk_buff *skb, const struct packet *packet, __u32 before, __u32 after)
{
	__u32 offset = packet->transport + __builtin_offsetof(struct sctp_header, sum);
	__u32 sum;

	if (packet->fragment) {
		count(COUNT_packet_sctp_fragment);
		return -1;
	}
	if (load_bytes(skb, offset, &sum, sizeof(sum)))
		return -1;
	/* 0: the device is still to compute it (or it is that by a chance of 1 to 2^32, and is wrong then) */
	if (!sum)
		return 0;
	sum = little_endian32(sum);
	sum ^= crc_change(little_endian32(before ^ after), packet->transport_bytes);
	sum = little_endian32(sum);
	return store_bytes(skb, offset, &sum, sizeof(sum), 0);
}

/* Changes an address in the IP header at `network`, and that header's own checksum. */
static __always_inline int rewrite_address(struct __sk_buff *skb, int ipv4, __u32 network, enum side side,
	const struct address *old, const struct address *address)
{
	if (!ipv4)
		return store_bytes(skb,
			network + (side == SOURCE ? __builtin_offsetof(struct ipv6_header, from)
						  : __builtin_offsetof(struct ipv6_header, to)),
			address, sizeof(*address), 0);
	return store_bytes(skb,
		       network + (side == SOURCE ? __builtin_offsetof(struct ipv4_header, from)
						 : __builtin_offsetof(struct ipv4_header, to)),
		       &address->word[3], sizeof(address->word[3]), 0) ||
	       replace_ip_sum(skb, network + __builtin_offsetof(struct ipv4_header, sum), old->word[3],
		       address->word[3], sizeof(address->word[3]));
}

/* Gives a packet another source or destination, and both ports. Not 0: it cannot be, and must not go on as it is. */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *packet, enum side side,
	const struct address *address, __be16 from_port, __be16 to_port)
{
	struct {
		__be16 from, to;
	} ports = {from_port, to_port}, old_ports = {packet->key.from_port, packet->key.to_port};
	const struct address *old = side == SOURCE ? &packet->key.from : &packet->key.to;
	__u32 change = difference(old, sizeof(*old), address, sizeof(*address), 0);
	__u32 before, after, offset;
	__u64 flags = packet->key.protocol == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	__builtin_memcpy(&before, &old_ports, sizeof(before));
	__builtin_memcpy(&after, &ports, sizeof(after));
	if (packet->key.protocol == PROTOCOL_SCTP) {
		if (before != after && rewrite_sctp_ports(skb, packet, before, after))
			goto failed;
	} else {
		offset = packet->transport + sum_offset(packet->key.protocol);
		if (sum_addresses(skb, packet, offset, change, flags))
			goto failed;
		if (before != after && replace_sum(skb, offset, before, after, flags | sizeof(before)))
			goto failed;
	}
	if (before != after && store_bytes(skb, packet->transport, &ports, sizeof(ports), 0))
		goto failed;
	if (rewrite_address(skb, packet->ipv4, packet->network, side, old, address))
		goto failed;
	return 0;
failed:
	count(COUNT_error_packet_not_rewritten);
	return -1;
}

/* Gives a piece without ports the address that the first one got. */
static __always_inline int rewrite_piece(
	struct __sk_buff *skb, const struct packet *packet, enum side side, const struct address *address)
{
	const struct address *old = side == SOURCE ? &packet->key.from : &packet->key.to;

	if (rewrite_address(skb, packet->ipv4, packet->network, side, old, address)) {
		count(COUNT_error_packet_not_rewritten);
		return -1;
	}
	if (!packet->ipv4) /* no checksum of this piece makes up for it */
		add_to_device_sum(skb, difference(old, sizeof(*old), address, sizeof(*address), 0));
	return 0;
}

/*
 * Gives the packet that an ICMP error quotes another source or destination and both ports, and where the error
 * is from or for that same address, the error as well. `side` is the quoted packet's; the error goes the other way.
 * The quoted transport's checksum is left: it need not be there, and nobody reads it.
 */
static __always_inline int rewrite_quoted(struct __sk_buff *skb, const struct packet *packet, enum side side,
	const struct address *address, __be16 from_port, __be16 to_port)
{
	const struct address *old = side == SOURCE ? &packet->key.from : &packet->key.to;
	__be16 ports[2] = {from_port, to_port}, old_ports[2] = {packet->key.from_port, packet->key.to_port};
	__u32 change = difference(old, sizeof(*old), address, sizeof(*address), 0);
	__u32 sum = packet->icmp + ICMP_SUM_AT, before, after;

	__builtin_memcpy(&before, old_ports, sizeof(before));
	__builtin_memcpy(&after, ports, sizeof(after));
	if (replace_sum(skb, sum, before, after, sizeof(before)) ||
		store_bytes(skb, packet->transport, ports, sizeof(ports), 0))
		goto failed;
	/* Of IPv4, the quoted header's own checksum makes up for its address. */
	if (rewrite_address(skb, packet->ipv4, packet->network, side, old, address) ||
		(!packet->ipv4 && replace_sum(skb, sum, 0, change, 0)))
		goto failed;
	if (side == SOURCE ? packet->to_source : packet->from_target) {
		if (rewrite_address(skb, packet->ipv4, packet->outer_network,
			    side == SOURCE ? DESTINATION : SOURCE, old, address) ||
			(!packet->ipv4 && sum_addresses(skb, packet, sum, change, 0)))
			goto failed;
	}
	return 0;
failed:
	count(COUNT_error_packet_not_rewritten);
	return -1;
}

#endif
