"""From one Service and its EndpointSlices to the frontends of this node: a pure function.

The rules are kube-proxy's (its `serviceport.go` and nftables `proxier.go`):

* A ClusterIP follows the internal policy. Whatever else is sent to it than its ports is refused.
* NodePorts (on this node's own addresses only), load balancers' and external addresses always use the Cluster set for
  what starts on this node. Their answers have to come back through this node, so packets are masqueraded, except under
  the external policy Local: there, what arrives from outside has frontends of its own (scope EXTERNAL), with this
  node's endpoints and the client's address.
* Source ranges filter the load balancer's addresses, for every source.
* Policies, hints and readiness decide about new connections. A flow of datagrams stays where it is as long as that
  serves, be it terminating, elsewhere or for another zone (pkg/proxy/conntrack/cleanup.go).

A ClusterIP that is assigned to a local interface (NodeLocal DNSCache) has no frontend: the local listener is meant.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from msgspec.structs import replace

from handover_agent.endpoints import Candidate, cluster_set, local_set, usable
from handover_agent.objects import Port, Service, Slice, is_ipv4
from handover_agent.sources import admitted, restrict
from handover_agent.table import (
    MOST_SERVING,
    Backend,
    Entry,
    FrontendFlags,
    FrontendKey,
    Prefix,
    Protocol,
    ip_bytes,
    ip_text,
)

LOCALHOST = ip_bytes("127.0.0.1")
NONE, REFUSE, DROP = FrontendFlags.NONE, FrontendFlags.REFUSE, FrontendFlags.DROP
MASQUERADE = FrontendFlags.MASQUERADE


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What compiling needs to know of this node."""

    name: str
    zone: str = ""  # the label topology.kubernetes.io/zone
    local_addresses: frozenset[bytes] = frozenset()
    """Every address on an interface of the node, except kube-ipvs0's (where kube-proxy puts ClusterIPs) and fe80::/10."""
    primary_addresses: tuple[bytes, ...] = ()
    """The Node object's own addresses (InternalIP), at most one per family."""
    node_port_addresses: tuple[str, ...] = ()
    """kube-proxy's nodePortAddresses: CIDRs, or `primary`; empty means all local addresses."""
    localhost_node_ports: bool = True
    """Whether NodePorts answer on 127.0.0.1, as kube-proxy's do in iptables mode (not in nftables mode)."""
    node_ports_at: tuple[bytes, ...] = field(init=False)
    """Derived: where NodePorts are reached on this node. Raises ValueError for what is no CIDR."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "node_ports_at", tuple(sorted(set(_node_port_addresses(self)))))


class Row(NamedTuple):
    """A frontend as it is for what starts on this node, and for arrivals from outside where that differs."""

    key: FrontendKey  # of scope INTERNAL
    entry: Entry
    external: Entry | None = None


def compile_service(
    service: Service, slices: Collection[Slice], node: NodeInfo
) -> tuple[tuple[Row, ...], int]:
    """The frontends of one Service, each once, ClusterIPs first; and how many of them are ClusterIPs.

    A Service that is not this datapath's (see `Service.skipped`) has none.
    """
    if service.skipped:
        return (), 0
    cluster: dict[FrontendKey, Row] = {}
    other: dict[FrontendKey, Row] = {}
    for ipv4 in (True, False):
        cluster_ip = next((a for a in service.cluster_ips if is_ipv4(a) is ipv4), None)
        if cluster_ip is None:
            continue  # without a ClusterIP of a family, nothing of that family exists
        ranges = admitted(service, ipv4, node.primary_addresses) if restrict(service, ipv4) else None
        for port in service.ports:
            if port.protocol is None or not port.port:
                continue
            endpoints = usable(port, slices, ipv4)
            serving = _backends(endpoints) if port.protocol is Protocol.UDP else ()
            everywhere = _backends(cluster_set(endpoints, node.name, node.zone))
            if cluster_ip not in node.local_addresses:
                if service.internal_local:
                    here = _backends(local_set(endpoints, node.name))
                    entry = _entry(service, port, here, serving, DROP if endpoints else REFUSE)
                else:
                    entry = _entry(service, port, everywhere, serving, REFUSE)
                key = FrontendKey(cluster_ip, port.port, port.protocol)
                cluster[key] = Row(key, entry)
            for row in _others(service, port, node, ipv4, endpoints, everywhere, serving, ranges):
                other.setdefault(row.key, row)
        if cluster_ip not in node.local_addresses and service.ports:
            key = FrontendKey(cluster_ip, 0, Protocol.ANY)
            cluster[key] = Row(key, Entry((), f"{service.namespace}/{service.name}:/ANY", REFUSE))
    rows = cluster | {key: row for key, row in other.items() if key not in cluster} if other else cluster
    return tuple(rows.values()), len(cluster)


def _others(
    service: Service,
    port: Port,
    node: NodeInfo,
    ipv4: bool,
    endpoints: list[Candidate],
    everywhere: tuple[Backend, ...],
    serving: tuple[Backend, ...],
    ranges: tuple[Prefix, ...] | None,
) -> Iterator[Row]:
    """The frontends besides the ClusterIP. The load balancer's come first: where one address is that and an
    external one, the ranges hold.
    """
    vips, ips = _of_family(service.load_balancer_vips, ipv4), _of_family(service.external_ips, ipv4)
    at = _of_family(node.node_ports_at, ipv4) if port.node_port else []
    if not (vips or ips or at) or port.protocol is None:
        return
    external: Entry | None = None
    if service.external_local:
        internal = _entry(service, port, everywhere, serving, REFUSE)
        here = _backends(local_set(endpoints, node.name))
        external = _entry(service, port, here, serving, DROP if endpoints else REFUSE)
    else:
        internal = _entry(service, port, everywhere, serving, REFUSE, MASQUERADE)
    for address in vips:
        key = FrontendKey(address, port.port, port.protocol)
        if ranges is None:
            yield Row(key, internal, external)
        else:
            yield Row(key, _filtered(internal, ranges), external and _filtered(external, ranges))
    for address in ips:
        yield Row(FrontendKey(address, port.port, port.protocol), internal, external)
    for address in at:
        outside = None if address == LOCALHOST else external
        yield Row(FrontendKey(address, port.node_port, port.protocol), internal, outside)


def _of_family(addresses: Iterable[bytes], ipv4: bool) -> list[bytes]:
    return [address for address in addresses if is_ipv4(address) is ipv4]


def _backends(endpoints: Iterable[Candidate]) -> tuple[Backend, ...]:
    pairs = sorted([(endpoint.address, number) for endpoint, number in endpoints])
    return tuple([Backend(address, number) for address, number in pairs])


def _entry(
    service: Service,
    port: Port,
    backends: tuple[Backend, ...],
    serving: tuple[Backend, ...],
    when_empty: FrontendFlags,
    always: FrontendFlags = NONE,
) -> Entry:
    """`serving`: who keeps flows of datagrams, whether it gets new ones or not."""
    assert port.protocol is not None  # noqa: S101 - the caller skipped such ports
    flags = always if backends else always | when_empty
    if service.affinity_timeout_s:
        flags |= FrontendFlags.AFFINITY
    return Entry(
        backends=backends,
        service=f"{service.namespace}/{service.name}:{port.name}/{port.protocol.name}",
        flags=flags,
        affinity_timeout_s=service.affinity_timeout_s,
        draining=_without(serving, backends),
    )


def _without(serving: tuple[Backend, ...], backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    if len(serving) <= len(backends):
        return ()
    chosen = set(backends)
    draining = [backend for backend in serving if backend not in chosen]
    return tuple(draining[: max(0, MOST_SERVING - len(backends))])


def _filtered(entry: Entry, ranges: tuple[Prefix, ...]) -> Entry:
    flags = entry.flags | FrontendFlags.SOURCES
    return replace(entry, flags=flags, sources=ranges)


def _node_port_addresses(node: NodeInfo) -> Iterator[bytes]:
    """As kube-proxy reads them: CIDRs of one family say nothing about the other, where every address counts."""
    if "primary" in node.node_port_addresses:
        yield from node.primary_addresses
        return
    cidrs = [ip_network(cidr, strict=False) for cidr in node.node_port_addresses]
    for packed in node.local_addresses:
        address = ip_address(ip_text(packed))
        if address.is_loopback or (address.version == 6 and address.is_link_local):
            continue  # loopback is decided below; fe80:: says nothing without an interface
        own = [cidr for cidr in cidrs if cidr.version == address.version]
        if not own or any(address in cidr for cidr in own):
            yield packed
    localhost = ip_address("127.0.0.1")
    own = [cidr for cidr in cidrs if cidr.version == 4]
    if node.localhost_node_ports and (not own or any(localhost in cidr for cidr in own)):
        yield LOCALHOST
