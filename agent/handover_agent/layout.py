"""What the pinned maps look like: the Python side of bpf/{consts,structs,counter_names}.h. Pure.

`LAYOUT` names this shape. It is part of the pins' path, so that programs of one layout never read maps of
another; a change of any size or meaning here or there needs another number.
"""

import re
import struct
from dataclasses import dataclass
from importlib import resources

from handover_agent.bpfmap import MapType
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Protocol, Scope

LAYOUT = 3
COUNTERS_ROOM = 128  # consts.h
WORK_BYTES = 512  # consts.h
KNOWN_GROUPS, KNOWN_GROUP_BYTES = 1024, 64  # consts.h
FORWARD_BYTES = 24  # struct forward
STRANDED_ROOM = 4096
"""Sockets that are noted at once; the others' next datagrams are other chances."""

_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC: a replaced value's memory is not at once another key's
_ENDPOINT = struct.Struct("=16s2s2x")
_PORT = struct.Struct(">H")
_KEY = struct.Struct("=16s2sBB")
_FRONTEND = struct.Struct("=IIIII")
_SERVING_SHIFT, _FRONTEND_FLAGS = 16, 0xFFFF  # consts.h
_INDEX = struct.Struct("=I")
_WORDS = struct.Struct("=4I")
_SETTINGS = struct.Struct("=HBB4s")
_ACCEPTING = struct.Struct("=H")  # the beginning of it, in every layout
_FORWARD_KEY = struct.Struct("=Q20s4x")
_SOURCE = struct.Struct("=I4s16s")
_SOURCE_ID_BITS = 32
_REVERSE_PROTOCOL = struct.Struct("=40xI")
_COUNTER = re.compile(r'^COUNTER\((\w+),\s*"([^"]*)"\)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map to create. Its place in the tuple of `map_specs` is its number in consts.h."""

    name: str
    type: MapType
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many entries the maps hold: frontends, slots for backends, sockets, affinity entries; flows of the
    packet path (two entries for each), datagrams in pieces, prefixes that may use a load balancer, pods'
    addresses.
    """

    frontends: int = 65_536
    backends: int = 262_144
    sockets: int = 65_536
    affinity: int = 65_536
    flows: int = 131_072
    fragments: int = 8_192
    sources: int = 65_536
    clients: int = 4_096


def map_specs(sizes: Sizes) -> tuple[MapSpec, ...]:
    """Every map of ours, in the order of enum map_number."""
    lru = MapType.LRU_HASH
    return (
        MapSpec("settings", MapType.ARRAY, 4, _SETTINGS.size, 1),
        MapSpec("frontends", MapType.HASH, _KEY.size, _FRONTEND.size, sizes.frontends, _NO_PREALLOC),
        MapSpec("backends", MapType.ARRAY, 4, _ENDPOINT.size, sizes.backends),
        MapSpec("reverse", lru, 32, 44, sizes.sockets),
        MapSpec("forward", lru, 32, 24, sizes.sockets),
        MapSpec("sockets", lru, 8, _ENDPOINT.size, sizes.sockets),
        MapSpec("affinity", lru, 24, 32, sizes.affinity),
        MapSpec("counters", MapType.PERCPU_ARRAY, 4, 8, COUNTERS_ROOM),
        MapSpec("flows", lru, 40, 48, sizes.flows),
        MapSpec("fragments", lru, 40, 32, sizes.fragments),
        MapSpec("sources", MapType.LPM_TRIE, _SOURCE.size, 4, sizes.sources, _NO_PREALLOC),
        MapSpec("clients", MapType.HASH, 16, 8, sizes.clients, _NO_PREALLOC),
        MapSpec("stranded", MapType.HASH, 40, _ENDPOINT.size, STRANDED_ROOM, _NO_PREALLOC),
        MapSpec("work", MapType.PERCPU_ARRAY, 4, WORK_BYTES, 1),
        MapSpec("addresses", MapType.ARRAY, 4, KNOWN_GROUP_BYTES, KNOWN_GROUPS),
        MapSpec("flow_addresses", MapType.ARRAY, 4, KNOWN_GROUP_BYTES, KNOWN_GROUPS),
    )


def pack_key(key: FrontendKey) -> bytes:
    """struct frontend_key."""
    return _KEY.pack(key.address, _PORT.pack(key.port), key.protocol, key.scope)


def unpack_key(raw: bytes) -> FrontendKey:
    """The inverse of `pack_key`."""
    address, port, protocol, scope = _KEY.unpack(raw)
    return FrontendKey(address, _PORT.unpack(port)[0], Protocol(protocol), Scope(scope))


def pack_frontend(value: FrontendValue) -> bytes:
    """struct frontend."""
    flags = int(value.flags) | value.serving << _SERVING_SHIFT
    return _FRONTEND.pack(value.offset, value.count, value.service_id, value.affinity_timeout_s, flags)


def unpack_frontend(raw: bytes) -> FrontendValue:
    """The inverse of `pack_frontend`."""
    offset, count, service_id, timeout, flags = _FRONTEND.unpack(raw)
    serving = flags >> _SERVING_SHIFT
    return FrontendValue(offset, count, service_id, FrontendFlags(flags & _FRONTEND_FLAGS), timeout, serving)


def place_of(address: bytes) -> tuple[int, int, int]:
    """Where an address has its place as a frontend's (known.h): group, byte in it, and bit of that."""
    return _place(_hash(address))


def place_as_backend(address: bytes) -> tuple[int, int, int]:
    """Where it has its place as a backend's that has flows (known.h: AS_BACKEND)."""
    return _place(~_hash(address) & 0xFFFFFFFF)


def _hash(address: bytes) -> int:
    first, second, third, fourth = _WORDS.unpack(address)
    return int((first ^ second ^ third ^ fourth) * 0x9E3779B1 & 0xFFFFFFFF)


def _place(place: int) -> tuple[int, int, int]:
    return place >> 22, place >> 16 & 63, place >> 13 & 7


def pack_backend(backend: Backend) -> bytes:
    """struct endpoint."""
    return _ENDPOINT.pack(backend.address, _PORT.pack(backend.port))


def unpack_backend(raw: bytes) -> Backend:
    """The inverse of `pack_backend`."""
    address, port = _ENDPOINT.unpack(raw)
    return Backend(address, _PORT.unpack(port)[0])


def pack_index(index: int) -> bytes:
    """The key of an array map."""
    return _INDEX.pack(index)


def pack_settings(
    accepting: bool, own_ipv4: bytes = bytes(4), noting: bool = False, node_only: bool = False
) -> bytes:
    """struct settings. `own_ipv4`: four bytes, zeros for none."""
    return _SETTINGS.pack(accepting, noting, node_only, own_ipv4)


def with_accepting(raw: bytes, accepting: bool) -> bytes:
    """The settings of any layout as they are, but for this."""
    return _ACCEPTING.pack(accepting) + raw[_ACCEPTING.size :]


def unpack_settings(raw: bytes) -> bool:
    """Whether new connections are accepted, by the settings of any layout."""
    return bool(_ACCEPTING.unpack_from(raw)[0])


def unpack_noting(raw: bytes) -> bool:
    """Whether stranded sockets are noted."""
    return bool(_SETTINGS.unpack(raw)[1])


def pack_forward_key(cookie: int, frontend: Backend) -> bytes:
    """struct forward_key."""
    return _FORWARD_KEY.pack(cookie, pack_backend(frontend))


def unpack_forward(raw: bytes) -> Backend:
    """The backend in a struct forward."""
    return unpack_backend(raw[: _ENDPOINT.size])


def unpack_own_ipv4(raw: bytes) -> bytes:
    """What the node's packets from 127.0.0.1 get as their source."""
    return bytes(_SETTINGS.unpack(raw)[3])


def unpack_node_only(raw: bytes) -> bool:
    """Whether pods' sockets are left to the packet path."""
    return bool(_SETTINGS.unpack(raw)[2])


def pack_source(service_id: int, address: bytes, prefix_bits: int) -> bytes:
    """struct source_key; `prefix_bits` counts in the 16 bytes (an IPv4 /24 is 120)."""
    return _SOURCE.pack(_SOURCE_ID_BITS + prefix_bits, service_id.to_bytes(4, "big"), address)


def unpack_source(raw: bytes) -> tuple[int, bytes, int]:
    """The inverse of `pack_source`."""
    bits, service_id, address = _SOURCE.unpack(raw)
    return int.from_bytes(service_id, "big"), address, bits - _SOURCE_ID_BITS


def sum_counter(raw: bytes) -> int:
    """The sum of a per-CPU value over all CPUs."""
    return sum(value for (value,) in struct.iter_unpack("=Q", raw))


def reverse_protocol(raw: bytes) -> int:
    """The protocol number in a struct reverse."""
    return int(_REVERSE_PROTOCOL.unpack(raw)[0])


def counter_names() -> dict[str, str]:
    """Name → what it means, in the order of enum counter: read from the header that C includes."""
    text = resources.files("handover_agent").joinpath("bpf/counter_names.h").read_text()
    return dict(_COUNTER.findall(text))
