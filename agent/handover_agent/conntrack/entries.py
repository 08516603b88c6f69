"""Conntrack's entries as the kernel describes them over netlink, and as values: pure.

The messages are ctnetlink's (linux/netfilter/nfnetlink_conntrack.h): a header, then attributes of which
some are nested. Only what this project asks of an entry is decoded. The original tuple is kept as bytes
too, since it goes back to the kernel unchanged, with the entry's id, when exactly this entry is to be
deleted.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
FAMILY = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_KIND = 0x3FFF  # without the nested and byte-order flags

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_PROTOINFO, CTA_TIMEOUT, CTA_ID = 1, 2, 3, 4, 7, 12
CTA_ZONE, CTA_FILTER, CTA_STATUS_MASK = 18, 25, 26
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC, CTA_IP_DST = (1, 3), (2, 4)  # IPv4, IPv6
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE = 1, 1

IPS_ASSURED, IPS_DST_NAT = 1 << 2, 1 << 5
_AF_INET = 2
_V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class TcpState(IntEnum):
    """The kernel's enum tcp_conntrack."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of an entry. Addresses have 16 bytes; IPv4 is v4-mapped."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Flow:
    """An entry of conntrack's table."""

    family: int
    original: Tuple
    reply: Tuple
    status: int
    timeout_s: int  # until it expires if no packet comes
    tcp_state: int | None
    identity: bytes  # the attributes that name exactly this entry: original tuple, zone, id

    @property
    def translated(self) -> bool:
        """Whether its destination was rewritten."""
        return bool(self.status & IPS_DST_NAT)

    @property
    def assured(self) -> bool:
        """Whether packets went both ways for a while: UDP has its longer timeout only from then on."""
        return bool(self.status & IPS_ASSURED)


Destination = bytes
"""An original destination in a form that is quick to compare: address (4 or 16 bytes), port, protocol."""

# The kernel writes the original tuple first, and always alike: where its parts are, and what stands between them.
_V4 = (24, 28, 36, 52, bytes.fromhex("3400018014000180"), bytes.fromhex("1c00028005000100"), 28)
_V6 = (36, 52, 60, 76, bytes.fromhex("4c0001802c000180"), bytes.fromhex("1c00028005000100"), 52)


def destination(address: bytes, port: int, protocol: int) -> Destination:
    """The quick form of a destination; the address has 16 bytes, IPv4 v4-mapped."""
    return address.removeprefix(_V4_MAPPED) + port.to_bytes(2, "big") + bytes((protocol,))


def destination_of(flow: Flow) -> Destination:
    """The quick form of a flow's original destination."""
    to = flow.original
    return destination(to.destination, to.destination_port, to.protocol)


def peek(data: bytes, start: int) -> Destination | None:
    """The original destination of the message at `start`, decoding nothing else; None if it must be parsed.

    Parsing takes a tenth of a millisecond, and a node may have a million entries of which few are of
    interest.
    """
    low, high, protocol, port, head, middle, at = _V4 if data[start] == _AF_INET else _V6
    if data[start + 4 : start + 12] != head or data[start + at : start + at + 8] != middle:
        return None
    port += start
    return (
        data[start + low : start + high]
        + data[port : port + 2]
        + data[start + protocol : start + protocol + 1]
    )


def parse(payload: bytes) -> Flow | None:
    """The entry in a message without the netlink header; None if it has no ports (ICMP and the like)."""
    family = payload[0]
    original = reply = None
    status = timeout = 0
    state: int | None = None
    identity = b""
    for kind, start, end in attributes(payload, FAMILY.size, len(payload)):
        if kind == CTA_TUPLE_ORIG:
            original = _tuple(payload, start, end)
            identity += _whole(payload, start, end)
        elif kind == CTA_TUPLE_REPLY:
            reply = _tuple(payload, start, end)
        elif kind == CTA_STATUS:
            status = int.from_bytes(payload[start:end], "big")
        elif kind == CTA_TIMEOUT:
            timeout = int.from_bytes(payload[start:end], "big")
        elif kind == CTA_PROTOINFO:
            state = _tcp_state(payload, start, end)
        elif kind in {CTA_ID, CTA_ZONE}:
            identity += _whole(payload, start, end)
    if original is None or reply is None:
        return None
    return Flow(family, original, reply, status, timeout, state, identity)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each attribute's type, and where its value starts and ends."""
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > end:
            return  # cut off: the kernel does not send such a message
        yield kind & _KIND, start + _ATTRIBUTE.size, start + length
        start += (length + 3) & ~3


def attribute(kind: int, value: bytes, nested: bool = False) -> bytes:
    """An attribute, padded."""
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind | (0x8000 if nested else 0))
    return head + value + b"\0" * (-len(value) % 4)


def _whole(data: bytes, start: int, end: int) -> bytes:
    raw = data[start - _ATTRIBUTE.size : end]
    return raw + b"\0" * (-len(raw) % 4)


def _tuple(data: bytes, start: int, end: int) -> Tuple | None:
    source = destination = b""
    protocol = 0
    source_port = destination_port = -1
    for kind, low, high in attributes(data, start, end):
        if kind == CTA_TUPLE_IP:
            for inner, a, b in attributes(data, low, high):
                if inner in CTA_IP_SRC:
                    source = _address(data[a:b])
                elif inner in CTA_IP_DST:
                    destination = _address(data[a:b])
        elif kind == CTA_TUPLE_PROTO:
            for inner, a, b in attributes(data, low, high):
                if inner == CTA_PROTO_NUM:
                    protocol = data[a]
                elif inner == CTA_PROTO_SRC_PORT:
                    source_port = int.from_bytes(data[a:b], "big")
                elif inner == CTA_PROTO_DST_PORT:
                    destination_port = int.from_bytes(data[a:b], "big")
    if not source or not destination or source_port < 0 or destination_port < 0:
        return None
    return Tuple(source, source_port, destination, destination_port, protocol)


def _address(raw: bytes) -> bytes:
    return _V4_MAPPED + raw if len(raw) == 4 else raw


def _tcp_state(data: bytes, start: int, end: int) -> int | None:
    for kind, low, high in attributes(data, start, end):
        if kind == CTA_PROTOINFO_TCP:
            for inner, a, _ in attributes(data, low, high):
                if inner == CTA_PROTOINFO_TCP_STATE:
                    return data[a]
    return None
