/* SPDX-License-Identifier: Apache-2.0
 *
 * What headers look like on the wire: those that the packet path reads or changes.
 */
#ifndef HANDOVER_WIRE_H
#define HANDOVER_WIRE_H

#include "structs.h"

#define ETHERNET_ADDRESS_BYTES 6
#define ETHERNET_BYTES         14
#define ETHERTYPE_AT           12
#define PROTOCOL_IPV4          network16(0x0800)
#define PROTOCOL_IPV6          network16(0x86dd)
#define FRAGMENT_OFFSET        network16(0x1fff)
#define FRAGMENT_MORE          network16(0x2000)
#define FRAGMENT6_OFFSET       network16(0xfff8)
#define FRAGMENT6_MORE         network16(0x0001)

#define ROUTING_SEGMENTS_LEFT network16(0x00ff) /* of the same two bytes in a routing header */

/* Headers that IPv6 has between itself and the transport. */
#define EXTENSION_HOPS     0
#define EXTENSION_ROUTING  43
#define EXTENSION_FRAGMENT 44
#define EXTENSION_OPTIONS  60

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

#endif
