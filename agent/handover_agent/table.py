"""The wanted table and what the kernel's maps hold, as values.

`compile` makes a `Table` out of Services and EndpointSlices, `diff` compares it with what the maps hold, and the
maps' side writes the difference. Everything here is pure; the kernel is behind the `Maps` protocol.

The values are msgspec's structs: there are hundreds of thousands of them in a large cluster, and these are made, hashed
and compared without Python's help, and no concern of the garbage collector's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol as Interface

import msgspec


class Protocol(IntEnum):
    """IANA protocol numbers, as the datapath's keys have them."""

    __hash__ = int.__hash__  # Enum's own asks for the name's, in Python

    ANY = 0  # every protocol, at port 0: what is at no port of a ClusterIP
    TCP = 6
    UDP = 17
    SCTP = 132


class Scope(IntEnum):
    """From where a frontend is reached; one address may be a frontend in both with different backends.

    What arrives from outside is looked up as EXTERNAL, then as INTERNAL, where a hit is always masqueraded.
    """

    __hash__ = int.__hash__

    INTERNAL = 0  # local processes, pods, and the node itself
    EXTERNAL = 1  # arrivals from outside the node, where they are treated differently (the packet path)


class FrontendFlags(IntFlag):
    """What the datapath does with a new connection to a frontend, besides choosing a backend."""

    NONE = 0
    REFUSE = 1  # no endpoint anywhere: ECONNREFUSED (or left to the stack before kernel 5.18)
    DROP = 2  # a Local policy without a local endpoint: a time-out, as kube-proxy does
    AFFINITY = 4  # session affinity ClientIP
    MASQUERADE = 8  # packets to its backends get the node's address as source; sockets take no notice
    SOURCES = 16  # only for sources in the map `sources`, others are dropped; sockets leave it to the packets


class FrontendKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """An address, port and protocol at which a Service is reached. `address` has 16 bytes; IPv4 is v4-mapped.

    Port 0 with Protocol.ANY stands for all that is not a frontend of that address.
    """

    address: bytes
    port: int
    protocol: Protocol
    scope: Scope = Scope.INTERNAL

    def __str__(self) -> str:
        host = ip_text(self.address)
        text = f"{self.protocol.name}/{f'[{host}]' if ':' in host else host}:{self.port}"
        return text if self.scope is Scope.INTERNAL else f"{text} from outside"


class Backend(msgspec.Struct, frozen=True, order=True, gc=False):
    """An endpoint's address (16 bytes, IPv4 v4-mapped) and port."""

    address: bytes
    port: int

    def __str__(self) -> str:
        host = ip_text(self.address)
        return f"{f'[{host}]' if ':' in host else host}:{self.port}"


class Prefix(msgspec.Struct, frozen=True, order=True, gc=False):
    """Addresses that begin with the same `bits` of 128 (for IPv4, v4-mapped, that is 96 more than people write)."""

    address: bytes
    bits: int

    def __str__(self) -> str:
        host = ip_text(self.address)
        return f"{host}/{self.bits if ':' in host else self.bits - 96}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a frontend should do: its backends (sorted, no duplicates), flags, and the Service port it comes from."""

    backends: tuple[Backend, ...]
    service: str  # "namespace/name:portName/PROTOCOL", the identity that affinity is keyed by
    flags: FrontendFlags = FrontendFlags.NONE
    affinity_timeout_s: int = 0
    sources: tuple[Prefix, ...] = ()  # with SOURCES: who may connect (sorted, no duplicates)
    draining: tuple[Backend, ...] = ()
    """Of UDP: others that serve, which keep the flows that they have and get no new ones (sorted, no duplicates)."""

    @property
    def slots(self) -> tuple[Backend, ...]:
        """Its region of the backend array: who gets new connections; then, if any others serve, once more all that do."""
        return (
            self.backends + tuple(sorted(self.backends + self.draining)) if self.draining else self.backends
        )

    @property
    def serving(self) -> int:
        """How long the second part of the region is."""
        return len(self.backends) + len(self.draining) if self.draining else 0


Table = Mapping[FrontendKey, Entry]


MOST_SERVING = 0xFFFF
"""So many backends that serve has a frontend at most, if any is draining: the datapath has two bytes for their number."""


class FrontendValue(msgspec.Struct, frozen=True, gc=False):
    """A frontend as the kernel holds it: a region of the backend array, flags, affinity."""

    offset: int  # index of the region's first slot in the backend array
    count: int  # of the backends that new connections may go to, which come first
    service_id: int  # identifies the Service port in the affinity map
    flags: FrontendFlags = FrontendFlags.NONE
    affinity_timeout_s: int = 0
    serving: int = 0  # behind them once more, all that serve, if some of these get no new connections

    @property
    def slots(self) -> int:
        """How long its region is."""
        return self.count + self.serving


class Source(msgspec.Struct, frozen=True, order=True, gc=False):
    """A row of the map `sources`: these addresses may connect to the frontends of that Service port."""

    service_id: int
    prefix: Prefix


class Maps(Interface):
    """The kernel's frontends, backends and source ranges.

    Calls raise `MapFull` or `OSError`; a batch may have been written in part.
    """

    @property
    def frontend_capacity(self) -> int: ...
    @property
    def backend_capacity(self) -> int: ...
    @property
    def source_capacity(self) -> int: ...
    def read_frontends(self) -> dict[FrontendKey, FrontendValue]: ...
    def write_frontends(self, entries: Mapping[FrontendKey, FrontendValue]) -> None: ...
    def delete_frontends(self, keys: Iterable[FrontendKey]) -> None: ...
    def keep_addresses(self, keys: Iterable[FrontendKey]) -> None: ...
    def read_backends(self, offset: int, count: int) -> list[Backend]: ...
    def write_backends(self, offset: int, backends: Sequence[Backend]) -> None: ...
    def read_sources(self) -> set[Source]: ...
    def write_sources(self, rows: Collection[Source]) -> None: ...
    def delete_sources(self, rows: Collection[Source]) -> None: ...


class MapFull(Exception):
    """A map has no room for what is wanted: names the map, its capacity and what was wanted."""

    def __init__(self, name: str, capacity: int, wanted: int) -> None:
        super().__init__(f"map {name} is full: it holds {capacity} entries, {wanted} are wanted")
        self.name, self.capacity, self.wanted = name, capacity, wanted


def ip_bytes(text: str) -> bytes:
    """16 bytes for an IPv4 or IPv6 address; IPv4 becomes v4-mapped. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def ip_text(packed: bytes) -> str:
    """The usual text of 16 address bytes: dotted for v4-mapped ones."""
    address = IPv6Address(packed)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else str(address)
