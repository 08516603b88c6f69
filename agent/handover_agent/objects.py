"""Services and EndpointSlices as the agent keeps them: flat, small, and equal when nothing of interest
changed.

Addresses are 16 bytes, node and zone names are interned, and an endpoint that no rule could ever choose is
not kept at all. `wire` makes them out of JSON.
"""

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton

import msgspec

from handover_agent.table import Prefix, Protocol

V4_PREFIX = b"\0" * 10 + b"\xff\xff"


class SourceRange(msgspec.Struct, frozen=True, gc=False):
    """A CIDR of `loadBalancerSourceRanges`; `prefix` is None for one that does not parse, and admits nobody."""

    is_ipv4: bool
    prefix: Prefix | None

    @property
    def everything(self) -> bool:
        """Whether it is a /0: no restriction at all."""
        return self.prefix is not None and self.prefix.bits == (96 if self.is_ipv4 else 0)


class Port(msgspec.Struct, frozen=True, gc=False):
    """A port of a Service; `protocol` is None for one that no datapath knows."""

    name: str
    protocol: Protocol | None
    port: int
    node_port: int


class Oddity(msgspec.Struct, frozen=True, gc=False):
    """Something in a Service that nobody can serve: a word for programs, a sentence for its owner."""

    reason: str
    message: str


class Service(msgspec.Struct, frozen=True, gc=False):
    """A Service as the compiler needs it. Addresses that do not parse have been left out."""

    namespace: str
    name: str
    created: str  # RFC 3339 in UTC, so that text order is time order
    skipped: bool  # another proxy's, headless, or ExternalName: nothing of it is served
    cluster_ips: tuple[bytes, ...]
    ports: tuple[Port, ...]
    external_ips: tuple[bytes, ...]
    load_balancer_vips: tuple[bytes, ...]  # ipMode VIP or unset
    source_ranges: tuple[SourceRange, ...]
    affinity_timeout_s: int  # 0: no session affinity
    internal_local: bool  # internalTrafficPolicy: Local
    external_local: bool = False  # externalTrafficPolicy: Local
    health_check_node_port: int = 0  # only of a LoadBalancer with that policy

    oddities: tuple[Oddity, ...] = ()  # what it asks for in vain

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class SlicePort(msgspec.Struct, frozen=True, gc=False):
    """A port of an EndpointSlice that has a name and a number."""

    name: str
    protocol: Protocol
    port: int


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that is ready, or is serving while it terminates; others are never used and not kept."""

    address: bytes
    node: str
    ready: bool  # False: serving and terminating
    zone_hints: tuple[str, ...]
    node_hints: tuple[str, ...]


class Slice(msgspec.Struct, frozen=True, gc=False):
    """An EndpointSlice of one address family."""

    namespace: str
    name: str
    service: str  # "namespace/name"; empty when it belongs to none
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]
    ipv4: bool = True
    triggered: float = 0.0
    """When what it says came about, in Unix time; only on its way into the model, which keeps it apart."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@lru_cache(maxsize=1 << 16)
def address_bytes(text: str) -> bytes | None:
    """16 bytes of an address, IPv4 as v4-mapped; None when it is none.

    Faster than `ip_address` by an order of magnitude, and repeated addresses are one object. Leading zeros in
    IPv4 are decimal, as in Kubernetes' own sloppy parser.
    """
    try:
        if ":" in text:
            return inet_pton(AF_INET6, text)
        return V4_PREFIX + inet_pton(AF_INET, text)
    except OSError:
        parts = text.split(".")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            return None
        numbers = [int(part) for part in parts]
        return V4_PREFIX + bytes(numbers) if max(numbers) < 256 else None


def is_ipv4(address: bytes) -> bool:
    """Whether 16 address bytes hold an IPv4 address."""
    return address.startswith(V4_PREFIX)
