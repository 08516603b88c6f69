"""Who may connect to a load balancer's addresses: loadBalancerSourceRanges, as kube-proxy takes them.

They hold for every source, pods and the node itself included. A socket has no source address before it connects, so
only the packet path can decide.
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv6Address, IPv6Network

from handover_agent.objects import Service, is_ipv4
from handover_agent.table import Prefix

_MAPPED = IPv6Network("::ffff:0:0/96")


def restrict(service: Service, ipv4: bool) -> bool:
    """Whether there are ranges that keep anybody of this family out; a /0, or none of the family, does not."""
    ranges = [r for r in service.source_ranges if r.is_ipv4 is ipv4]
    return bool(ranges) and not any(r.everything for r in ranges)


def admitted(service: Service, ipv4: bool, node_addresses: Collection[bytes]) -> tuple[Prefix, ...]:
    """Who is let in where `restrict`, sorted, each once.

    Where the node itself is, the load balancer's addresses are too: they are often the node's own as well, and a
    connection from here to there then has one as its source.
    """
    prefixes = {r.prefix for r in service.source_ranges if r.is_ipv4 is ipv4 and r.prefix is not None}
    found = {part for prefix in prefixes for part in ([prefix] if ipv4 else _without_ipv4(prefix))}
    own = [_number(address) for address in node_addresses if is_ipv4(address) is ipv4]
    if any(_contains(prefix, address) for prefix in prefixes for address in own):
        found |= {Prefix(vip, 128) for vip in service.load_balancer_vips if is_ipv4(vip) is ipv4}
    return tuple(sorted(found))


def _without_ipv4(prefix: Prefix) -> Iterator[Prefix]:
    """The same addresses without ::ffff:0:0/96, where the map has IPv4: a ::/1 lets nobody of IPv4 in."""
    network = IPv6Network((prefix.address, prefix.bits))
    if not network.supernet_of(_MAPPED):
        yield prefix
        return
    for part in network.address_exclude(_MAPPED):
        yield Prefix(part.network_address.packed, part.prefixlen)


def _contains(prefix: Prefix, address: int) -> bool:
    shift = 128 - prefix.bits
    return _number(prefix.address) >> shift == address >> shift


def _number(address: bytes) -> int:
    return int(IPv6Address(address))
