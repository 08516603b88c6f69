"""First packets of connections as bytes, each with a number in it that it keeps whatever is translated.

The number is TCP's sequence number, UDP's first four bytes of data, SCTP's initiate tag: all are early enough to be
in what an ICMP error quotes.
"""

import struct
from dataclasses import dataclass, replace

from handover_agent.objects import V4_PREFIX, is_ipv4
from handover_agent.table import Protocol
from tests.differential.packets import Packet

ETHERNET = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
_SYN, _RST = 0x02, 0x04
_MAXSEG = b"\x02\x04"
_ICMP, _ICMP6 = 1, 58
_UNREACHABLE, _PORT, _PROHIBITED = {_ICMP: 3, _ICMP6: 1}, {_ICMP: 3, _ICMP6: 4}, {_ICMP: 13, _ICMP6: 1}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a frame says: of a packet that went on, or (refused) of an answer to it."""

    number: int
    protocol: Protocol
    source: bytes
    source_port: int
    destination: bytes
    port: int
    refused: bool = False  # ICMP: port unreachable, or a reset of TCP
    received: bool = False  # ICMP: prohibited by the administrator (see `crossroads`)
    segment: int = 0  # the largest that a SYN says its sender takes, where it says so first


def packet(question: Packet, number: int, source_port: int) -> bytes:
    """From the IP header on, checksums filled in."""
    ipv4 = is_ipv4(question.destination)
    size = 4 if ipv4 else 16
    source, destination = question.source[-size:], question.destination[-size:]
    load = _load(question.protocol, source_port, question.port, number)
    if question.protocol is Protocol.SCTP:
        load = load[:8] + struct.pack("<I", crc32c(load)) + load[12:]
    else:
        pseudo = source + destination + struct.pack("!II", len(load), question.protocol)
        at = 16 if question.protocol is Protocol.TCP else 6
        load = load[:at] + struct.pack("!H", checksum(pseudo + load) or 0xFFFF) + load[at + 2 :]
    if not ipv4:
        return struct.pack("!IHBB", 6 << 28, len(load), question.protocol, 64) + source + destination + load
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, 20 + len(load), number & 0xFFFF, 0x4000, 64, question.protocol, 0
    )
    head += source + destination
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + load


def frame(question: Packet, number: int, source_port: int, hardware: bytes) -> bytes:
    """The same behind an Ethernet header to this hardware address."""
    kind = _IPV4 if is_ipv4(question.destination) else _IPV6
    return (
        hardware
        + bytes.fromhex("02000000aaaa")
        + struct.pack("!H", kind)
        + packet(question, number, source_port)
    )


def read(raw: bytes) -> Seen | None:
    """What a frame has to do with our packets; None: nothing."""
    (kind,) = struct.unpack_from("!H", raw, 12)
    return _read_ip(raw[ETHERNET:]) if kind in (_IPV4, _IPV6) else None


def _read_ip(raw: bytes) -> Seen | None:
    if raw[0] >> 4 == 4:
        size, protocol = (raw[0] & 15) * 4, raw[9]
        source, destination = V4_PREFIX + raw[12:16], V4_PREFIX + raw[16:20]
    else:
        size, protocol, source, destination = 40, raw[6], raw[8:24], raw[24:40]
    load = raw[size:]
    if protocol in (_ICMP, _ICMP6):
        if len(load) < 8 or load[0] != _UNREACHABLE[protocol]:
            return None
        inner = _read_ip(load[8:])
        if inner is None:
            return None
        refused, received = load[1] == _PORT[protocol], load[1] == _PROHIBITED[protocol]
        return replace(inner, refused=refused, received=received)
    if protocol not in (Protocol.TCP, Protocol.UDP, Protocol.SCTP) or len(load) < 12:
        return None
    protocol = Protocol(protocol)
    source_port, port = struct.unpack_from("!HH", load)
    at = {Protocol.TCP: 4, Protocol.UDP: 8, Protocol.SCTP: 16}[protocol]
    if len(load) < at + 4:
        return None
    (number,) = struct.unpack_from("!I", load, at)
    if protocol == Protocol.TCP and load[13] & _RST:
        (acknowledged,) = struct.unpack_from("!I", load, 8)
        return Seen(acknowledged - 1, protocol, source, source_port, destination, port, refused=True)
    segment = 0
    if protocol is Protocol.TCP and load[20:22] == _MAXSEG:
        (segment,) = struct.unpack_from("!H", load, 22)
    return Seen(number, protocol, source, source_port, destination, port, segment=segment)


def _load(protocol: Protocol, source_port: int, port: int, number: int) -> bytes:
    if protocol is Protocol.TCP:
        return struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, _SYN, 65535, 0, 0)
    if protocol is Protocol.UDP:
        return struct.pack("!HHHHI", source_port, port, 12, 0, number)
    init = struct.pack("!BBHIIHHI", 1, 0, 20, number, 65535, 1, 1, number)
    return struct.pack("!HHII", source_port, port, 0, 0) + init


def checksum(raw: bytes) -> int:
    """The Internet checksum."""
    raw += b"\0" * (len(raw) % 2)
    total: int = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901 - a register
        made.append(value)
    return tuple(made)


_CRC32C = _table()


def crc32c(raw: bytes) -> int:
    """SCTP's checksum, over a packet whose checksum field is zero."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF
