"""Services and EndpointSlices for tests, built as JSON and decoded the way the watch does."""

import json
from typing import Any

from handover_agent.objects import Service, Slice
from handover_agent.watch import SERVICE_KIND, SLICE_KIND


def service_json(
    name: str = "default/web",
    ip: str | list[str] = "10.96.0.10",
    ports: list[dict[str, Any]] | None = None,
    *,
    labels: dict[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    ingress: list[dict[str, Any]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A Service's JSON; keyword arguments are fields of its spec."""
    namespace, _, plain = name.partition("/")
    ips = [ip] if isinstance(ip, str) else ip
    return {
        "metadata": {
            "name": plain,
            "namespace": namespace,
            "uid": "x",
            "creationTimestamp": created,
            "labels": labels or {},
            "resourceVersion": "1",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ips[0] if ips else "",
            "clusterIPs": ips,
            "sessionAffinity": "None",
            "ports": ports or [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": ingress} if ingress else {}},
    }


def slice_json(
    name: str = "default/web-1",
    service: str = "web",
    endpoints: list[dict[str, Any]] | None = None,
    ports: list[dict[str, Any]] | None = None,
    *,
    family: str = "IPv4",
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An EndpointSlice's JSON."""
    namespace, _, plain = name.partition("/")
    return {
        "metadata": {
            "name": plain,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service} if service else {},
            "resourceVersion": "1",
            **({"annotations": annotations} if annotations else {}),
        },
        "addressType": family,
        "endpoints": endpoints or [],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}] if ports is None else ports,
    }


def endpoint_json(
    address: str | list[str],
    node: str | None = None,
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    zones: list[str] | None = None,
    nodes: list[str] | None = None,
) -> dict[str, Any]:
    """An endpoint's JSON; None leaves a field out."""
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    hints: dict[str, Any] = {}
    if zones is not None:
        hints["forZones"] = [{"name": zone} for zone in zones]
    if nodes is not None:
        hints["forNodes"] = [{"name": name} for name in nodes]
    result: dict[str, Any] = {
        "addresses": [address] if isinstance(address, str) else address,
        "conditions": {key: value for key, value in conditions.items() if value is not None},
    }
    if node is not None:
        result["nodeName"] = node
    if hints:
        result["hints"] = hints
    return result


def service(*args: Any, **kwargs: Any) -> Service:
    """`service_json`, decoded."""
    return SERVICE_KIND.decode(json.dumps(service_json(*args, **kwargs)).encode())


def slice_(*args: Any, **kwargs: Any) -> Slice:
    """`slice_json`, decoded."""
    return SLICE_KIND.decode(json.dumps(slice_json(*args, **kwargs)).encode())
