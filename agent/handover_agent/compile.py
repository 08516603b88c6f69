"""From one Service and its EndpointSlices to the frontends that local processes should find: a pure function.

The rules are kube-proxy's (its `topology.go` and `serviceport.go`), for connections that start on this node.
That makes them simpler than the whole: external traffic policies do not apply to local sources (they use the
Cluster set whatever the policy says), and a NodePort is a frontend on this node's own addresses only.

Where we leave something to the packet path on purpose:

* a ClusterIP that is assigned to a local interface (NodeLocal DNSCache): the local listener is meant; * load
balancer VIPs with source ranges that restrict: a socket's source address is not known before it connects, so
nobody can say whether the range admits it. `unserved` reports such a Service.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from handover_agent.objects import Endpoint, Port, Service, Slice, is_ipv4
from handover_agent.table import Backend, Entry, FrontendFlags, FrontendKey, Protocol, ip_bytes, ip_text

LOCALHOST = ip_bytes("127.0.0.1")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What compiling needs to know of this node."""

    name: str
    zone: str = ""  # the label topology.kubernetes.io/zone
    local_addresses: frozenset[bytes] = frozenset()
    """Every address on an interface of the node, except kube-ipvs0's (where kube-proxy puts ClusterIPs)."""
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


def compile_service(
    service: Service, slices: Collection[Slice], node: NodeInfo
) -> tuple[tuple[tuple[FrontendKey, Entry], ...], int]:
    """The frontends of one Service, each once, ClusterIPs first; and how many of them are ClusterIPs.

    A Service that is not this datapath's (see `Service.skipped`) has none.
    """
    if service.skipped:
        return (), 0
    cluster: dict[FrontendKey, Entry] = {}
    other: dict[FrontendKey, Entry] = {}
    for ipv4 in (True, False):
        cluster_ip = next((a for a in service.cluster_ips if is_ipv4(a) is ipv4), None)
        if cluster_ip is None:
            continue  # without a ClusterIP of a family, nothing of that family exists
        for port in service.ports:
            if port.protocol is None or not port.port:
                continue
            endpoints = _endpoints(service, port, port.protocol, slices, ipv4)
            everywhere = _cluster_set(endpoints, node)
            if cluster_ip not in node.local_addresses:
                if service.internal_local:
                    flags = FrontendFlags.DROP if endpoints else FrontendFlags.REFUSE
                    entry = _entry(service, port, _local_set(endpoints, node), flags)
                else:
                    entry = _entry(service, port, everywhere, FrontendFlags.REFUSE)
                cluster[FrontendKey(cluster_ip, port.port, port.protocol)] = entry
            reached_by = list(_others(service, port, node, ipv4))
            if reached_by:
                entry = _entry(service, port, everywhere, FrontendFlags.REFUSE)
                for address, number in reached_by:
                    other.setdefault(FrontendKey(address, number, port.protocol), entry)
    rows = cluster | {key: entry for key, entry in other.items() if key not in cluster} if other else cluster
    return tuple(rows.items()), len(cluster)


def source_ranges_restrict(service: Service, ipv4: bool) -> bool:
    """Whether loadBalancerSourceRanges keep anybody of this family out; a /0, or none of the family, does
    not.
    """
    ranges = [r for r in service.source_ranges if r.is_ipv4 is ipv4]
    return bool(ranges) and not any(r.everything for r in ranges)


def _others(service: Service, port: Port, node: NodeInfo, ipv4: bool) -> Iterator[tuple[bytes, int]]:
    """The addresses and ports besides the ClusterIP."""
    for address in service.external_ips:
        if is_ipv4(address) is ipv4:
            yield address, port.port
    if not source_ranges_restrict(service, ipv4):
        for address in service.load_balancer_vips:
            if is_ipv4(address) is ipv4:
                yield address, port.port
    if port.node_port:
        for address in node.node_ports_at:
            if is_ipv4(address) is ipv4:
                yield address, port.node_port


def _endpoints(
    service: Service, port: Port, protocol: Protocol, slices: Collection[Slice], ipv4: bool
) -> list[tuple[Endpoint, int]]:
    """The usable endpoints of a Service port, joined by port name and protocol, each one once."""
    found: dict[tuple[bytes, int], Endpoint] = {}
    several = len(slices) > 1
    for slice_ in slices:
        for slice_port in slice_.ports:
            if slice_port.name != port.name or slice_port.protocol is not protocol:
                continue
            for endpoint in slice_.endpoints:
                if is_ipv4(endpoint.address) is ipv4:
                    at = (endpoint.address, slice_port.port)
                    if several and at in found:
                        endpoint = _better(found[at], endpoint)  # noqa: PLW2901 - one of two sightings
                    found[at] = endpoint
    return [(endpoint, number) for (_, number), endpoint in found.items()]


def _better(one: Endpoint, two: Endpoint) -> Endpoint:
    """Which of two sightings of one endpoint counts (it is moving between slices): ready before terminating.

    kube-proxy prefers the local one; both sightings are of one pod, so that this is decided by the node name
    that one of them may still lack.
    """
    return max(one, two, key=lambda e: (bool(e.node), e.ready, e.node, e.zone_hints, e.node_hints))


def _cluster_set(endpoints: list[tuple[Endpoint, int]], node: NodeInfo) -> list[tuple[Endpoint, int]]:
    """The endpoints for the Cluster policy: ready ones that hints allow, else serving terminating ones."""
    ready = [item for item in endpoints if item[0].ready]
    if not ready:
        return endpoints
    if all(endpoint.node_hints for endpoint, _ in ready):
        near = [item for item in ready if node.name in item[0].node_hints]
        if near:
            return near
    if all(endpoint.zone_hints for endpoint, _ in ready):
        near = [item for item in ready if node.zone in item[0].zone_hints]
        if near:
            return near
    return ready


def _local_set(endpoints: list[tuple[Endpoint, int]], node: NodeInfo) -> list[tuple[Endpoint, int]]:
    """This node's endpoints: ready ones, else serving terminating ones; apart from the Cluster set."""
    local = [item for item in endpoints if item[0].node == node.name]
    return [item for item in local if item[0].ready] or local


def _entry(
    service: Service, port: Port, endpoints: Iterable[tuple[Endpoint, int]], when_empty: FrontendFlags
) -> Entry:
    pairs = sorted({(endpoint.address, number) for endpoint, number in endpoints})
    assert port.protocol is not None  # noqa: S101 - the caller skipped such ports
    flags = FrontendFlags.NONE if pairs else when_empty
    if service.affinity_timeout_s:
        flags |= FrontendFlags.AFFINITY
    return Entry(
        backends=tuple(Backend(address, number) for address, number in pairs),
        service=f"{service.namespace}/{service.name}:{port.name}/{port.protocol.name}",
        flags=flags,
        affinity_timeout_s=service.affinity_timeout_s,
    )


def _node_port_addresses(node: NodeInfo) -> Iterator[bytes]:
    cidrs = [ip_network(c, strict=False) for c in node.node_port_addresses if c != "primary"]
    if cidrs or not node.node_port_addresses:
        for packed in node.local_addresses:
            address = ip_address(ip_text(packed))
            if address.is_loopback or (address.version == 6 and address.is_link_local):
                continue  # loopback is decided below; fe80:: says nothing without an interface
            if not cidrs or any(address in cidr for cidr in cidrs):
                yield packed
    if "primary" in node.node_port_addresses:
        yield from node.primary_addresses
    localhost = ip_address("127.0.0.1")
    if node.localhost_node_ports and (
        not node.node_port_addresses or any(c.version == 4 and localhost in c for c in cidrs)
    ):
        yield LOCALHOST
