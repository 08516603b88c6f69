"""Which Services ask for something that this node's datapath does not serve.

The socket path serves what starts on the node. What arrives from outside, and SCTP (which the kernel connects without
asking socket hooks), needs the packet path; on a node whose kernel cannot have it, a Service that uses these must not
lose them silently: the operator holds the cluster while anything listed here is not acknowledged.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from handover_api.base import Feature

from handover_agent.objects import Service
from handover_agent.sources import restrict
from handover_agent.table import Protocol, ip_text

BY_PACKETS = frozenset({Feature.NODE_PORT, Feature.LOAD_BALANCER, Feature.EXTERNAL_IPS, Feature.SCTP})
"""What only the packet path serves."""
_WHY = ", since this node's kernel runs no programs on its devices"


def lacking(features: Collection[str]) -> frozenset[Feature]:
    """What a datapath cannot serve on a kernel in which these features were found (see `features`)."""
    return frozenset() if "sched_cls" in features else BY_PACKETS


@dataclass(frozen=True, slots=True, order=True)
class Unserved:
    """A feature that a Service ("namespace/name") uses, with what that means and what its owner can do."""

    feature: Feature
    service: str
    message: str


def unserved(service: Service, lacking: Collection[Feature]) -> list[Unserved]:
    """What of this Service a datapath that lacks these features does not serve; nothing for Services that are not a
    node proxy's business.
    """
    if not lacking or service.skipped or not service.cluster_ips:
        return []
    found: list[Unserved] = []

    def add(feature: Feature, message: str) -> None:
        if feature in lacking:
            remedy = f"or accept the loss with spec.acknowledge: [{feature}]"
            found.append(Unserved(feature, service.key, f"{message}, {remedy}"))

    node_ports = [f"{p.node_port}/{p.protocol.name}" for p in service.ports if p.node_port and p.protocol]
    if node_ports:
        add(
            Feature.NODE_PORT,
            f"connections from outside to node port {_some(node_ports)} would have nobody to answer them{_WHY}; "
            "make the Service type ClusterIP (or allocateLoadBalancerNodePorts: false)",
        )
    if service.load_balancer_vips:
        vips = _some([ip_text(address) for address in service.load_balancer_vips])
        restricted = any(
            restrict(service, ipv4) for ipv4 in (True, False)
        )  # then local processes lose it too
        whom = "connections from outside and from pods" if restricted else "connections from outside"
        add(
            Feature.LOAD_BALANCER,
            f"{whom} to load balancer address {vips} would have nobody to answer them{_WHY}; "
            "use a load balancer that proxies (ipMode: Proxy)",
        )
    if service.external_ips:
        ips = _some([ip_text(address) for address in service.external_ips])
        add(
            Feature.EXTERNAL_IPS,
            f"connections from outside to external address {ips} would have nobody to answer them{_WHY}; "
            "remove spec.externalIPs",
        )
    sctp = [str(port.port) for port in service.ports if port.protocol is Protocol.SCTP]
    if sctp:
        add(
            Feature.SCTP,
            f"SCTP associations to port {_some(sctp)} would not be translated{_WHY}; "
            "remove the port from the Service",
        )
    return found


def all_unserved(services: Iterable[Service], lacking: Collection[Feature]) -> list[Unserved]:
    """Of all Services, in a stable order."""
    return sorted(item for service in services for item in unserved(service, lacking)) if lacking else []


def foremost(items: list[Unserved], limit: int) -> list[Unserved]:
    """At most `limit` of them with no feature left out: the status is bounded, yet decides what must be
    acknowledged.
    """
    if len(items) <= limit:
        return items
    first: dict[Feature, Unserved] = {}
    for item in items:
        first.setdefault(item.feature, item)
    rest = [item for item in items if first[item.feature] is not item]
    return sorted([*first.values(), *rest[: limit - len(first)]])


def _some(texts: list[str], limit: int = 5) -> str:
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")
