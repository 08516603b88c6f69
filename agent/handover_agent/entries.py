"""What the programs write into the maps, as values: the Python side of the structs that C fills in. Pure.

The agent itself writes flows only while they change hands between the programs and conntrack.

Times are the kernel's monotonic clock (CLOCK_MONOTONIC, nanoseconds), which `time.monotonic_ns` reads too.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from handover_agent.table import Backend, Protocol, ip_text

NS_PER_S = 1_000_000_000

_ENDPOINT = struct.Struct("=16s2s2x")
_AFFINITY_KEY = struct.Struct("=16sI4x")
_AFFINITY = struct.Struct("=Q20sI")
_REVERSE_KEY = struct.Struct("=Q20s4x")
_REVERSE = struct.Struct("=20s20xI")
_CLIENT = struct.Struct("=Q")
_NOTE_KEY = struct.Struct("=16s16s2s2s4x")
_COOKIE = struct.Struct("=II8x")
_FLOW_KEY = struct.Struct("=16s16s2s2sBB2x")
_FLOW = struct.Struct("=20sIQII2sBBBBBB")
_SEEN_AT, _FLAGS_AT = 24, 42  # in struct flow
_STREAM = 2  # enum answered


class Direction(IntEnum):
    """enum direction: which way the packets go that a flow entry is for."""

    FORWARD = 0  # from the client to the frontend
    BACKWARD = 1  # from the backend to the client


class FlowFlags(IntFlag):
    """enum flow_flags."""

    MASQUERADE = 1  # its packets get the node's address as source
    DIRECT = 2  # to no frontend: only the client's port changes, which a flow of ours has there
    NODE = 4  # the client is this node
    LOCALHOST = 8  # at 127.0.0.1: the backend sees another of its addresses
    LEFT = 16  # datagrams that the kernel's conntrack translates; there is only a forward entry
    HELD = 32  # datagrams whose flow is just being handed to conntrack


@dataclass(frozen=True, slots=True)
class Client:
    """Whom session affinity counts as one client: a network namespace by its cookie, or an address."""

    address: bytes | None
    netns_cookie: int | None

    def __str__(self) -> str:
        return f"netns {self.netns_cookie}" if self.address is None else ip_text(self.address)


@dataclass(frozen=True, slots=True)
class Affinity:
    """An entry of `affinity`."""

    client: Client
    service_id: int
    backend: Backend
    last_used_ns: int


@dataclass(frozen=True, slots=True)
class Reverse:
    """An entry of `reverse`: a socket's destination was translated."""

    cookie: int
    frontend: Backend
    backend: Backend
    protocol: int


@dataclass(frozen=True, slots=True)
class Flow:
    """An entry of `flows`: packets from `source` to `destination` become such with `other` in its place."""

    direction: Direction
    protocol: int
    source: Backend
    destination: Backend
    other: Backend
    """FORWARD: the backend that takes the destination's place. BACKWARD: the frontend, the source's."""
    service_id: int
    last_seen_ns: int
    client_port: int
    flags: FlowFlags
    answered: bool
    client_finished: bool
    backend_finished: bool
    reset: bool
    confused: bool
    lives_s: int = 0
    """LEFT: how long conntrack remembers it after a datagram, in seconds."""
    stream: bool = False
    """Of datagrams: it went on after its first second, and lives as long without one as a connection does."""


@dataclass(frozen=True, slots=True)
class Note:
    """An entry of `stranded`: a connected UDP socket sent a datagram where its frontend has no backend any more."""

    source: Backend
    destination: Backend
    frontend: Backend


def unpack_affinity(key: bytes, value: bytes) -> Affinity:
    """struct affinity_key and struct affinity."""
    client, service_id = _AFFINITY_KEY.unpack(key)
    last_used_ns, backend, _ = _AFFINITY.unpack(value)
    return Affinity(unpack_client(client), service_id, _endpoint(backend), last_used_ns)


def unpack_client(raw: bytes) -> Client:
    """struct address as affinity.h uses it: a namespace's cookie fills the first half, the other is zero."""
    low, high = _COOKIE.unpack(raw)
    if raw[8:] == bytes(8) and (low or high):
        return Client(None, low | high << 32)
    return Client(raw, None)


def unpack_netns_cookie(raw: bytes) -> int:
    """The value of a pod's address in the map of clients."""
    return int(_CLIENT.unpack(raw)[0])


def unpack_reverse(key: bytes, value: bytes) -> Reverse:
    """struct reverse_key and struct reverse."""
    cookie, backend = _REVERSE_KEY.unpack(key)
    frontend, protocol = _REVERSE.unpack(value)
    return Reverse(cookie, _endpoint(frontend), _endpoint(backend), protocol)


def unpack_note(key: bytes, value: bytes) -> Note:
    """struct flow_key and struct endpoint."""
    source, destination, source_port, destination_port = _NOTE_KEY.unpack(key)
    return Note(
        Backend(source, int.from_bytes(source_port, "big")),
        Backend(destination, int.from_bytes(destination_port, "big")),
        _endpoint(value),
    )


def unpack_flow(key: bytes, value: bytes) -> Flow:
    """struct flow_key and struct flow."""
    source, destination, source_port, destination_port, protocol, direction = _FLOW_KEY.unpack(key)
    other, service_id, last_seen_ns, proof, _, client_port, flags, answered, *seen = _FLOW.unpack(value)
    client_finished, backend_finished, reset, confused = map(bool, seen)
    return Flow(
        Direction(direction),
        protocol,
        Backend(source, int.from_bytes(source_port, "big")),
        Backend(destination, int.from_bytes(destination_port, "big")),
        _endpoint(other),
        service_id,
        last_seen_ns,
        int.from_bytes(client_port, "big"),
        FlowFlags(flags),
        bool(answered),
        client_finished,
        backend_finished,
        reset,
        confused,
        proof if flags & FlowFlags.LEFT else 0,
        answered == _STREAM,
    )


def pack_flow_key(direction: Direction, protocol: int, source: Backend, destination: Backend) -> bytes:
    """struct flow_key: packets from `source` to `destination`."""
    ports = source.port.to_bytes(2, "big"), destination.port.to_bytes(2, "big")
    return _FLOW_KEY.pack(source.address, destination.address, *ports, protocol, direction)


def pack_left(backend: Backend, service_id: int, last_seen_ns: int, lives_s: int) -> bytes:
    """struct flow, of one that conntrack translates, and forgets `lives_s` after its last datagram."""
    other = _ENDPOINT.pack(backend.address, backend.port.to_bytes(2, "big"))
    return _FLOW.pack(other, service_id, last_seen_ns, lives_s, 0, bytes(2), FlowFlags.LEFT, *bytes(5))


def pack_held(value: bytes, now_ns: int) -> bytes:
    """This struct flow (empty: one that says nothing else), with its datagrams waiting from now on."""
    held = bytearray(value or bytes(_FLOW.size))
    held[_SEEN_AT : _SEEN_AT + 8] = struct.pack("=Q", now_ns)
    held[_FLAGS_AT] |= FlowFlags.HELD
    return bytes(held)


def protocol_text(number: int) -> str:
    """TCP for 6, and the number itself for what we do not know."""
    return Protocol(number).name if number in Protocol._value2member_map_ else str(number)


def _endpoint(raw: bytes) -> Backend:
    address, port = _ENDPOINT.unpack(raw)
    return Backend(address, int.from_bytes(port, "big"))
