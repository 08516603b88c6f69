"""Connections that were translated before conntrack saw them, as entries that conntrack translates: pure.

The packet path's programs change a packet before conntrack looks at it, so for conntrack client and backend speak to
each other directly (with the node's address for the client's, where it masquerades). When the programs are about
to go, such an entry is replaced by one with the NAT that kube-proxy's rules would have made: from client to frontend,
answered by the backend. The kernel's NAT hooks, which kube-proxy's rules keep in use, do the rest.

What the kernel knows about a connection's windows does not come along; both directions are marked as liberal, so
that it takes its next packets as they are.
"""

import struct
from dataclasses import dataclass

from handover_agent.conntrack.entries import (
    CTA_IP_DST,
    CTA_IP_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_PROTOINFO,
    CTA_PROTOINFO_TCP,
    CTA_STATUS,
    CTA_TIMEOUT,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    CTA_ZONE,
    FAMILY,
    IPS_ASSURED,
    Flow,
    Tuple,
    attribute,
    attributes,
    parse,
)

_AF_INET, _AF_INET6 = 2, 10
_V4_MAPPED = b"\0" * 10 + b"\xff\xff"
_CTA_NAT_SRC, _CTA_MARK, _CTA_NAT_DST = 6, 8, 13
_NAT_PROTO, _NAT_PORT_MIN, _NAT_PORT_MAX = 3, 1, 2
_NAT_MIN, _NAT_MAX = (1, 4), (2, 5)  # IPv4, IPv6
_TCP_FLAGS = frozenset({4, 5})  # CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, _REPLY
_BE_LIBERAL, _KEPT_FLAGS = 0x08, 0x07
"""Kept: window scaling, selective acknowledgements, who closes. Others speak of numbers that do not come along."""
_SEEN_REPLY, _CONFIRMED = 1 << 1, 1 << 3


@dataclass(frozen=True, slots=True)
class Moving:
    """A connection by its two faces: what the client sends, and what conntrack sees of it."""

    asked: Tuple
    """From the client to the frontend."""
    seen: Tuple
    """From the client, by the port that the programs gave it, to the backend."""


def request(seen: Tuple) -> bytes:
    """What to ask conntrack for, to get the entry of a connection."""
    return _family(seen) + _tuple(CTA_TUPLE_ORIG, seen)


def answers(payload: bytes, seen: Tuple) -> Tuple:
    """What a connection's answers look like where they arrive, by what conntrack said of it. Raises ValueError."""
    return _answers(_entry(payload), seen)


def replacement(payload: bytes, moving: Moving) -> tuple[Flow, bytes]:
    """The entry that conntrack answered with, and the one to create in its place. Raises ValueError."""
    old, asked = _entry(payload), moving.asked
    answer = _answers(old, moving.seen)
    status = _CONFIRMED | old.status & (_SEEN_REPLY | IPS_ASSURED)
    if answer is old.original:
        status |= _SEEN_REPLY
    body = _tuple(CTA_TUPLE_ORIG, asked) + _tuple(CTA_TUPLE_REPLY, inverse(asked))
    body += attribute(CTA_TIMEOUT, struct.pack(">I", max(old.timeout_s, 1)))
    body += attribute(CTA_STATUS, struct.pack(">I", status))
    for kind, start, end in attributes(payload, FAMILY.size, len(payload)):
        if kind == CTA_PROTOINFO:
            body += attribute(kind, _liberal(payload, start, end), nested=True)
        elif kind in {_CTA_MARK, CTA_ZONE}:
            body += attribute(kind, payload[start:end])
    if (answer.source, answer.source_port) != (asked.destination, asked.destination_port):
        body += _nat(_CTA_NAT_DST, answer.source, answer.source_port)
    if (answer.destination, answer.destination_port) != (asked.source, asked.source_port):
        body += _nat(_CTA_NAT_SRC, answer.destination, answer.destination_port)
    return old, _family(asked) + body


def _entry(payload: bytes) -> Flow:
    entry = parse(payload)
    if entry is None:
        raise ValueError(f"an entry without ports: {payload.hex()}")
    return entry


def _answers(entry: Flow, seen: Tuple) -> Tuple:
    """Of datagrams, the backend may have sent the first that conntrack knows of."""
    return entry.reply if entry.original == seen else entry.original


def _liberal(payload: bytes, start: int, end: int) -> bytes:
    """Protocol state as it was; for TCP with flags that keep it from being held against the next packets."""
    state = b""
    for kind, low, high in attributes(payload, start, end):
        value = payload[low:high]
        if kind == CTA_PROTOINFO_TCP:
            value = b"".join(
                attribute(
                    inner,
                    bytes((payload[a] & _KEPT_FLAGS | _BE_LIBERAL, 0xFF))
                    if inner in _TCP_FLAGS
                    else payload[a:b],
                )
                for inner, a, b in attributes(payload, low, high)
            )
        state += attribute(kind, value, nested=True)
    return state


def _family(about: Tuple) -> bytes:
    return FAMILY.pack(_AF_INET if _is_ipv4(about.source) else _AF_INET6, 0, 0)


def inverse(about: Tuple) -> Tuple:
    """What goes the other way."""
    return Tuple(about.destination, about.destination_port, about.source, about.source_port, about.protocol)


def _tuple(kind: int, about: Tuple) -> bytes:
    six = not _is_ipv4(about.source)
    addresses = attribute(CTA_IP_SRC[six], _plain(about.source))
    addresses += attribute(CTA_IP_DST[six], _plain(about.destination))
    ports = attribute(CTA_PROTO_NUM, bytes((about.protocol,)))
    ports += attribute(CTA_PROTO_SRC_PORT, struct.pack(">H", about.source_port))
    ports += attribute(CTA_PROTO_DST_PORT, struct.pack(">H", about.destination_port))
    parts = attribute(CTA_TUPLE_IP, addresses, nested=True) + attribute(CTA_TUPLE_PROTO, ports, nested=True)
    return attribute(kind, parts, nested=True)


def _nat(kind: int, address: bytes, port: int) -> bytes:
    """A translation to exactly this address and port."""
    six = not _is_ipv4(address)
    both = struct.pack(">H", port)
    ports = attribute(_NAT_PORT_MIN, both) + attribute(_NAT_PORT_MAX, both)
    parts = attribute(_NAT_MIN[six], _plain(address)) + attribute(_NAT_MAX[six], _plain(address))
    return attribute(kind, parts + attribute(_NAT_PROTO, ports, nested=True), nested=True)


def _is_ipv4(address: bytes) -> bool:
    return address.startswith(_V4_MAPPED)


def _plain(address: bytes) -> bytes:
    return address.removeprefix(_V4_MAPPED)
