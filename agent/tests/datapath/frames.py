"""Packets as bytes, made and read: with right checksums unless told otherwise.

One function makes each layer, so that odd packets are odd on purpose. Reading checks every checksum.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from handover_agent.table import Protocol

SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04
INIT, INIT_ACK, ABORT, DATA, SHUTDOWN_COMPLETE = 1, 2, 6, 0, 14
TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
ICMP, ICMP6 = 1, 58

_CRC32C = 0x82F63B78
_SUM_AT = {TCP: 16, UDP: 6, SCTP: 8, ICMP: 2, ICMP6: 2}
_ETHERNET = bytes(12)


def internet_sum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (_CRC32C if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def transport_sum(protocol: int, source: str, target: str, segment: bytes) -> bytes:
    """The checksum of a segment whose own is 0."""
    if protocol == SCTP:
        return crc32c(segment).to_bytes(4, "little")
    pseudo = b""
    if protocol != ICMP:
        pseudo = ip_address(source).packed + ip_address(target).packed
        pseudo += struct.pack(">HH", len(segment), protocol)
    found = internet_sum(pseudo + segment)
    return (0xFFFF if protocol == UDP and not found else found).to_bytes(2, "big")


def tcp(source_port: int, port: int, flags: int = SYN, seq: int = 1000, ack: int = 0) -> bytes:
    """A TCP header without a checksum."""
    return struct.pack(">HHIIBBHHH", source_port, port, seq, ack, 5 << 4, flags, 1000, 0, 0)


def udp(source_port: int, port: int, data: bytes = b"hello") -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data


def sctp(source_port: int, port: int, chunk: int = INIT, tag: int = 0, data: bytes = b"") -> bytes:
    """An SCTP packet with one chunk, without a checksum. The content of an INIT begins with its own tag."""
    return struct.pack(">HHIIBBH", source_port, port, tag, 0, chunk, 0, 4 + len(data)) + data


def ip(
    protocol: int,
    source: str,
    target: str,
    segment: bytes,
    *,
    summed: bool = True,
    options: bytes = b"",
    piece: tuple[int, bool] = (0, False),
    number: int = 7,
) -> bytes:
    """An IP packet. `piece`: where a fragment's data begins (in 8 bytes), and whether more follow.

    `summed`: fill in the transport's checksum. `options` of IPv4; of IPv6 it is the extension headers, the
    first of which is hop-by-hop options, each ending where the next begins.
    """
    if summed and protocol in _SUM_AT:
        at = _SUM_AT[Protocol(protocol) if protocol in (6, 17, 132) else protocol]
        made = transport_sum(protocol, source, target, segment)
        segment = segment[:at] + made + segment[at + len(made) :]
    return network(protocol, source, target, segment, options=options, piece=piece, number=number)


def network(
    protocol: int,
    source: str,
    target: str,
    data: bytes,
    *,
    options: bytes = b"",
    piece: tuple[int, bool] = (0, False),
    number: int = 7,
) -> bytes:
    """An IP header and whatever follows."""
    begins, more = piece
    packed = ip_address(source).packed + ip_address(target).packed
    if ":" not in source:
        length = 20 + len(options)
        fragment = begins | (0x2000 if more else 0)
        before = struct.pack(
            ">BBHHHBB", 4 << 4 | length // 4, 0, length + len(data), number, fragment, 64, protocol
        )
        header_sum = internet_sum(before + b"\0\0" + packed + options)
        return before + header_sum.to_bytes(2, "big") + packed + options + data
    following = protocol
    if begins or more:
        data = struct.pack(">BBHI", protocol, 0, begins << 3 | more, number) + data
        following = 44
    if options:
        data = options[:0] + bytes([following]) + options[1:] + data
        following = 0
    return struct.pack(">IHBB", 6 << 28, len(data), following, 64) + packed + data


def icmp_error(source: str, target: str, about: bytes, kind: int = 0, code: int = 0, value: int = 0) -> bytes:
    """An ICMP error that quotes an IP packet; by default destination unreachable."""
    ipv4 = ":" not in source
    segment = struct.pack(">BBHI", kind or (3 if ipv4 else 1), code, 0, value) + about
    return ip(ICMP if ipv4 else ICMP6, source, target, segment)


def ethernet(packet: bytes) -> bytes:
    """An Ethernet frame around an IP packet."""
    return _ETHERNET + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


@dataclass(frozen=True, slots=True)
class Read:
    """What a packet says, once its checksums are found right."""

    source: str
    source_port: int
    target: str
    port: int
    protocol: int
    data: bytes


def read(packet: bytes, *, whole: bool = True) -> Read:
    """An IP packet; AssertionError when a checksum is wrong. `whole`: look at the transport's as well."""
    if packet[0] >> 4 == 4:
        length = (packet[0] & 15) * 4
        assert internet_sum(packet[:length]) == 0, "the IPv4 header's checksum is wrong"
        source, target = (str(ip_address(packet[at : at + 4])) for at in (12, 16))
        protocol, segment = packet[9], packet[length : int.from_bytes(packet[2:4], "big")]
    else:
        source, target = (str(ip_address(packet[at : at + 16])) for at in (8, 24))
        protocol, segment = packet[6], packet[40:]
        while protocol in (0, 43, 44, 60):
            protocol, segment = segment[0], segment[8 if protocol == 44 else 8 * (segment[1] + 1) :]
    if whole and protocol in _SUM_AT:
        at = _SUM_AT[Protocol(protocol) if protocol in (6, 17, 132) else protocol]
        size = 4 if protocol == SCTP else 2
        blank = segment[:at] + bytes(size) + segment[at + size :]
        found, right = segment[at : at + size], transport_sum(protocol, source, target, blank)
        assert found == right or (protocol == UDP and not any(found) and ":" not in source), (
            f"the transport's checksum is {found.hex()}, not {right.hex()}"
        )
    ports = struct.unpack_from(">HH", segment) if protocol in (6, 17, 132) else (0, 0)
    return Read(source, ports[0], target, ports[1], protocol, segment)


def quoted(packet: bytes) -> Read:
    """The packet that an ICMP error quotes the beginning of; checksums of the error and of that IP header are right."""
    return read(read(packet).data[8:], whole=False)
