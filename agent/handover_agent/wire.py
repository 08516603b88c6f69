"""From the API server's JSON to the flat objects that are kept.

A cluster of 30,000 Services sends tens of megabytes of JSON of which a node proxy needs a twentieth. The
structs here name just those fields; msgspec skips the rest without building it.
"""

import sys
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address, ip_network

import msgspec

from handover_agent.objects import (
    Endpoint,
    Oddity,
    Port,
    Service,
    Slice,
    SlicePort,
    SourceRange,
    address_bytes,
    is_ipv4,
)
from handover_agent.table import Prefix, Protocol, ip_bytes, ip_text

_LONGEST_AFFINITY_S = 86400  # the API's bound
_PROTOCOLS = {protocol.name: protocol for protocol in Protocol if protocol is not Protocol.ANY}


class _Labels(msgspec.Struct):
    service_name: str = msgspec.field(default="", name="kubernetes.io/service-name")
    proxy_name: str | None = msgspec.field(default=None, name="service.kubernetes.io/service-proxy-name")
    headless: str | None = msgspec.field(default=None, name="service.kubernetes.io/headless")


class _Annotations(msgspec.Struct):
    triggered: str = msgspec.field(default="", name="endpoints.kubernetes.io/last-change-trigger-time")


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    creation_timestamp: str | None = None
    labels: _Labels | None = None
    annotations: _Annotations | None = None


class _WirePort(msgspec.Struct, rename="camel"):
    name: str | None = ""
    protocol: str | None = "TCP"
    port: int | None = 0
    node_port: int = 0


class _ClientIP(msgspec.Struct, rename="camel"):
    timeout_seconds: int | None = None


class _AffinityConfig(msgspec.Struct):
    client_ip: _ClientIP | None = msgspec.field(default=None, name="clientIP")


class _ServiceSpec(msgspec.Struct, rename="camel"):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    ports: list[_WirePort] | None = None
    session_affinity: str = "None"
    session_affinity_config: _AffinityConfig | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    health_check_node_port: int = 0
    load_balancer_source_ranges: list[str] | None = None


class _Ingress(msgspec.Struct, rename="camel"):
    ip: str = ""
    ip_mode: str | None = None


class _LoadBalancer(msgspec.Struct):
    ingress: list[_Ingress] | None = None


class _ServiceStatus(msgspec.Struct, rename="camel"):
    load_balancer: _LoadBalancer | None = None


class WireService(msgspec.Struct):
    """A Service as JSON has it."""

    metadata: _Metadata
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)
    status: _ServiceStatus | None = None


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Hint(msgspec.Struct):
    name: str = ""


class _Hints(msgspec.Struct, rename="camel"):
    for_zones: list[_Hint] | None = None
    for_nodes: list[_Hint] | None = None


class _WireEndpoint(msgspec.Struct, rename="camel"):
    addresses: list[str] | None = None
    conditions: _Conditions | None = None
    node_name: str | None = None
    hints: _Hints | None = None


class WireSlice(msgspec.Struct, rename="camel"):
    """An EndpointSlice as JSON has it."""

    metadata: _Metadata
    address_type: str = "IPv4"
    endpoints: list[_WireEndpoint] | None = None
    ports: list[_WirePort] | None = None


def service_of(wire: WireService) -> Service:
    """The flat Service of a decoded one."""
    meta, spec = wire.metadata, wire.spec
    labels = meta.labels
    cluster_ips = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    ours = labels is None or (labels.proxy_name is None and labels.headless is None)
    skipped = not ours or spec.cluster_ip in ("", "None") or spec.type == "ExternalName"
    balancer = wire.status.load_balancer if wire.status else None
    external_local = spec.external_traffic_policy == "Local"
    vips = [
        i.ip for i in (balancer.ingress if balancer else None) or () if i.ip and i.ip_mode in (None, "VIP")
    ]
    affinity = 0
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
        affinity = min(seconds, _LONGEST_AFFINITY_S) if seconds and seconds > 0 else 10800
    return Service(
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        created=meta.creation_timestamp or "",
        skipped=skipped,
        cluster_ips=_addresses(cluster_ips),
        ports=tuple(
            Port(
                sys.intern(p.name or ""),
                _PROTOCOLS.get(p.protocol or "TCP"),
                _number(p.port),
                _number(p.node_port),
            )
            for p in spec.ports or ()
        ),
        external_ips=_frontend_addresses(spec.external_ips or ()),
        load_balancer_vips=_frontend_addresses(vips),
        source_ranges=tuple(_source_range(text) for text in spec.load_balancer_source_ranges or ()),
        affinity_timeout_s=affinity,
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=external_local,
        # As kube-proxy asks: the port counts for this type with this policy only.
        health_check_node_port=(
            spec.health_check_node_port if external_local and spec.type == "LoadBalancer" else 0
        ),
        oddities=() if skipped else _oddities(spec, cluster_ips, vips),
    )


def slice_of(wire: WireSlice) -> Slice:
    """The flat EndpointSlice of a decoded one. Addresses of another family than it says are left out."""
    meta = wire.metadata
    owner = meta.labels.service_name if meta.labels else ""
    return Slice(
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        service=f"{meta.namespace}/{owner}" if owner else "",
        ports=tuple(
            SlicePort(sys.intern(p.name), protocol, number)
            for p in wire.ports or ()
            if p.name is not None
            and (number := _number(p.port))
            and (protocol := _PROTOCOLS.get(p.protocol or "TCP")) is not None
        ),
        endpoints=tuple(
            endpoint
            for e in wire.endpoints or ()
            if wire.address_type in ("IPv4", "IPv6")
            and (endpoint := _endpoint(e, wire.address_type == "IPv4")) is not None
        ),
        ipv4=wire.address_type == "IPv4",
        triggered=_moment(meta.annotations.triggered) if meta.annotations else 0.0,
    )


def _moment(text: str) -> float:
    """Unix time of an RFC 3339 text; 0 when it is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def _endpoint(wire: _WireEndpoint, ipv4: bool) -> Endpoint | None:
    address = address_bytes(wire.addresses[0]) if wire.addresses else None
    if address is None or is_ipv4(address) != ipv4:
        return None
    conditions = wire.conditions or _Conditions()
    ready = conditions.ready is not False
    if not ready and not (conditions.serving is not False and conditions.terminating):
        return None
    hints = wire.hints or _Hints()
    return Endpoint(
        address=address,
        node=sys.intern(wire.node_name or ""),
        ready=ready,
        zone_hints=tuple(sys.intern(hint.name) for hint in hints.for_zones or ()),
        node_hints=tuple(sys.intern(hint.name) for hint in hints.for_nodes or ()),
    )


def _oddities(spec: _ServiceSpec, cluster_ips: list[str], vips: list[str]) -> tuple[Oddity, ...]:
    """What is asked for in vain. The API server lets hardly any of it pass; objects may be older than its checks."""
    return tuple(
        Oddity(reason, message)
        for reason, message in (
            *_odd_addresses("externalIPs", spec.external_ips or [], cluster_ips),
            *_odd_addresses("status.loadBalancer", vips, cluster_ips),
            *(
                (
                    "InvalidSourceRange",
                    f"loadBalancerSourceRanges has {text.strip()!r}, which is no CIDR: nobody is let in because of it",
                )
                for text in spec.load_balancer_source_ranges or ()
                if _source_range(text).prefix is None
            ),
            *(
                (
                    "UnknownProtocol",
                    f"port {port.port} has protocol {port.protocol!r}, which nobody can serve",
                )
                for port in spec.ports or ()
                if (port.protocol or "TCP") not in _PROTOCOLS
            ),
        )
    )


def _odd_addresses(where: str, texts: list[str], cluster_ips: list[str]) -> Iterator[tuple[str, str]]:
    if not texts:
        return
    families = {is_ipv4(address) for address in _addresses(cluster_ips)}
    for text in texts:
        address = address_bytes(text)
        if address is None:
            yield "InvalidAddress", f"{where} has {text!r}, which is no IP address"
        elif _is_special(address):
            yield "InvalidAddress", f"{where} has {text}, which has a meaning of its own on every machine"
        elif is_ipv4(address) not in families:
            yield (
                "AddressWithoutFamily",
                f"{where} has {text}, but the Service has no ClusterIP of that address family: nobody answers there",
            )


def _addresses(texts: list[str] | tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(address for text in texts if (address := address_bytes(text)) is not None)


def _frontend_addresses(texts: list[str] | tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(address for address in _addresses(texts) if not _is_special(address))


def _is_special(address: bytes) -> bool:
    """Addresses that the API server does not let a Service have: whoever got one would have every process' traffic
    to itself.
    """
    ip = ip_address(ip_text(address))
    return ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_multicast


def _number(port: int | None) -> int:
    """A port's number; 0 for what is none."""
    return port if port is not None and 0 < port < 1 << 16 else 0


def _source_range(text: str) -> SourceRange:
    """A range that does not parse restricts: letting everybody in for a typing error would be worse."""
    cidr = text.strip()
    try:
        network = ip_network(cidr, strict=False)
    except ValueError:
        return SourceRange(is_ipv4=":" not in cidr, prefix=None)
    is_ipv4 = network.version == 4
    address = ip_bytes(str(network.network_address))
    return SourceRange(is_ipv4, Prefix(address, network.prefixlen + (96 if is_ipv4 else 0)))
