"""Where packets from outside go that our programs give a backend, and what of that a rule's matches leave: pure.

A match that cannot be judged (an ipset, a named set of nft) may match, and it looks at the destination. Everything
that a rule asks besides the destination (sources, devices, states, marks) is left aside: it may be true of some packet.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol as Interface

from handover_agent.compile import NodeInfo
from handover_agent.objects import Service, is_ipv4
from handover_agent.table import Protocol, ip_text

NODE_PORTS = range(30000, 32768)
"""What Kubernetes hands out, unless told otherwise: a rule about these is meant for the NodePorts of tomorrow, too."""
_MOST_PORTS = 0xFFFF
_SPEAKING = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Ports of one protocol at one address that packets from outside go to. `local`: the address is the node's own.
    `keeps_client`: the Service has the external policy Local, so that answers go to the client's own address.
    """

    ipv4: bool
    protocol: int
    address: int
    first: int
    last: int
    local: bool
    keeps_client: bool = False


def outside(services: Iterable[Service], node: NodeInfo) -> list[Span]:
    """What is reached from outside on this node; nothing where no Service has a NodePort or such an address."""
    found: set[Span] = set()
    places = [address for address in node.node_ports_at if not _loopback(address)]
    for service in services:
        if service.skipped:
            continue
        families = {is_ipv4(address) for address in service.cluster_ips}
        addresses = (*service.load_balancer_vips, *service.external_ips)
        for port in service.ports:
            if port.protocol not in _SPEAKING:
                continue
            found |= {
                _span(address, port.protocol, range(port.port, port.port + 1), node, service.external_local)
                for address in addresses
                if is_ipv4(address) in families
            }
            if not port.node_port:
                continue
            usual = port.node_port in NODE_PORTS
            for address in places:
                if is_ipv4(address) not in families:
                    continue
                found |= {_span(address, protocol, NODE_PORTS, node, False) for protocol in _SPEAKING}
                if not usual or service.external_local:
                    ports = range(port.node_port, port.node_port + 1)
                    found.add(_span(address, port.protocol, ports, node, service.external_local))
    return sorted(found)


def _span(address: bytes, protocol: Protocol, ports: range, node: NodeInfo, keeps_client: bool) -> Span:
    ip = ip_address(ip_text(address))
    local = address in node.local_addresses
    return Span(ip.version == 4, int(protocol), int(ip), ports[0], ports[-1], local, keeps_client)


def _loopback(address: bytes) -> bool:
    return ip_address(ip_text(address)).is_loopback


class Match(Interface):
    """One thing that a rule asks of a packet."""

    @property
    def looks(self) -> bool:
        """Whether it asks where the packet goes. The protocol alone is not that."""
        ...

    def of(self, span: Span) -> Iterable[Span]:
        """What it may match of these destinations."""
        ...


def narrow(spans: Sequence[Span], matches: Iterable[Match]) -> Sequence[Span]:
    """What all of the matches together may match."""
    for match in matches:
        spans = [part for span in spans for part in match.of(span)]
    return spans


@dataclass(frozen=True, slots=True)
class Ports:
    """Destination ports, as pairs of first and last."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False
    looks: bool = True

    def of(self, span: Span) -> Iterator[Span]:
        for first, last in self._without() if self.negated else self.ranges:
            low, high = max(first, span.first), min(last, span.last)
            if low <= high:
                yield replace(span, first=low, last=high)

    def _without(self) -> Iterator[tuple[int, int]]:
        at = 0
        for first, last in sorted(self.ranges):
            if at < first:
                yield at, first - 1
            at = max(at, last + 1)
        if at <= _MOST_PORTS:
            yield at, _MOST_PORTS


@dataclass(frozen=True, slots=True)
class Addresses:
    """Destination addresses of one family, as pairs of first and last."""

    ipv4: bool
    ranges: tuple[tuple[int, int], ...]
    negated: bool = False
    looks: bool = True

    def of(self, span: Span) -> Iterator[Span]:
        inside = any(first <= span.address <= last for first, last in self.ranges)
        if span.ipv4 is self.ipv4 and inside is not self.negated:
            yield span


@dataclass(frozen=True, slots=True)
class Types:
    """What kind of address the destination is to this node's routes; a load balancer's is usually UNICAST."""

    names: frozenset[str]
    negated: bool = False
    looks: bool = True

    def of(self, span: Span) -> Iterator[Span]:
        if (("LOCAL" if span.local else "UNICAST") in self.names) is not self.negated:
            yield span


@dataclass(frozen=True, slots=True)
class Protocols:
    """IANA's numbers; those that no Service has stand for nothing here."""

    numbers: frozenset[int]
    negated: bool = False
    looks: bool = False

    def of(self, span: Span) -> Iterator[Span]:
        if (span.protocol in self.numbers) is not self.negated:
            yield span


@dataclass(frozen=True, slots=True)
class OfFamily:
    """Packets of IPv4, or of IPv6."""

    ipv4: bool
    looks: bool = False

    def of(self, span: Span) -> Iterator[Span]:
        if span.ipv4 is self.ipv4:
            yield span


@dataclass(frozen=True, slots=True)
class Unknown:
    """A destination that is not written in the rule."""

    looks: bool = True

    def of(self, span: Span) -> Iterator[Span]:
        yield span


@dataclass(frozen=True, slots=True)
class Never:
    """What no packet from outside is."""

    looks: bool = False

    def of(self, span: Span) -> Iterator[Span]:
        return iter(())


def addresses(texts: Iterable[str], negated: bool = False) -> Match:
    """Of networks, addresses, and ranges with a hyphen, all of one family; Unknown where they are none."""
    ranges: list[tuple[int, int]] = []
    ipv4 = True
    try:
        for text in texts:
            first, hyphen, last = text.partition("-")
            if hyphen:
                low, high = ip_address(first), ip_address(last)
                ipv4 = low.version == 4
                ranges.append((int(low), int(high)))
            else:
                network: IPv4Network | IPv6Network = ip_network(text, strict=False)
                ipv4 = network.version == 4
                ranges.append((int(network.network_address), int(network.broadcast_address)))
    except ValueError:
        return Unknown()
    return Addresses(ipv4, tuple(ranges), negated)


_PROTOCOLS = {protocol.name.lower(): int(protocol) for protocol in _SPEAKING}


def protocols(names: Iterable[str | int], negated: bool = False) -> Match:
    """By name or number; `all` asks nothing."""
    found: set[int] = set()
    for name in names:
        text = str(name).lower()
        if text in ("all", "0", "ip"):
            return Protocols(frozenset(), negated=True)
        found.add(int(text) if text.isdigit() else _PROTOCOLS.get(text, -1))
    return Protocols(frozenset(found), negated)
