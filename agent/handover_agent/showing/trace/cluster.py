"""What the API server says about a trace: the Service, its EndpointSlices, the pods. Asked once, never watched.

All of it is optional: a node serves without an API server, and a trace then says what it could not ask.
"""

import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from handover_agent.apierrors import ApiError, NotFound
from handover_agent.apiserver import ENDPOINT_SLICES, NODES, PODS, SERVICES, Client
from handover_agent.node import NodeObject, decode_node
from handover_agent.objects import Service, Slice, address_bytes
from handover_agent.table import Backend
from handover_agent.watch import SERVICE_KIND, SLICE_KIND

Json = Mapping[str, Any]

_DNS_SERVICE = ("kube-system", "kube-dns")
"""So called wherever kubelet's clusterDNS is a Service: CoreDNS kept the name."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as far as it matters from where a connection starts."""

    name: str
    node: str
    addresses: tuple[bytes, ...]
    host_network: bool
    runtime_class: str
    running: bool


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint of a Service port, with what decides whether it is chosen."""

    backend: Backend
    slice: str
    pod: str
    """namespace/name; empty for an endpoint that is no pod."""
    node: str
    ready: bool
    serving: bool
    terminating: bool
    zones: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def condition(self) -> str:
        """In one word."""
        if self.ready:
            return "ready"
        return "terminating" if self.serving and self.terminating else "not ready"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out. Empty where `problem` says why nothing could be."""

    pod: Pod | None = None
    service: Service | None = None
    raw: Json = field(default_factory=dict)
    """The Service as it is."""
    slices: tuple[Slice, ...] = ()
    raw_slices: tuple[Json, ...] = ()
    node: NodeObject | None = None
    dns: tuple[bytes, ...] = ()
    """Addresses of the cluster's DNS Service."""
    problem: str = ""
    missing: tuple[str, ...] = ()
    """Objects that were asked for and do not exist."""

    def members(self, port_name: str, protocol: str) -> Iterator[Member]:
        """Every endpoint of a port, also those that no rule would choose."""
        for raw in self.raw_slices:
            for port in raw.get("ports") or ():
                named = (port.get("name") or "", port.get("protocol") or "TCP")
                if named != (port_name, protocol) or not port.get("port"):
                    continue
                for endpoint in raw.get("endpoints") or ():
                    member = _member(raw, endpoint, int(port["port"]))
                    if member is not None:
                        yield member

    def ports(self) -> Iterator[tuple[str, str, int, int]]:
        """Name, protocol, number and node port of each of the Service's ports."""
        for port in (self.raw.get("spec") or {}).get("ports") or ():
            name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
            yield name, protocol, int(port.get("port") or 0), int(port.get("nodePort") or 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What to ask for."""

    pod: str = ""
    services: tuple[tuple[str, str], ...] = ()
    """Candidates, namespace and name, in the order in which they are tried."""
    address: bytes | None = None
    """Find the Service that has this address, when none of the candidates is given."""
    port: int | None = None
    node: str = ""
    dns: bool = False
    """Also where the cluster's DNS is."""


async def look_up(client: Client, asked: Asked) -> Seen:
    """Ask the API server. Never raises ApiError: `problem` says what could not be asked."""
    found: dict[str, Any] = {}
    missing: list[str] = []
    try:
        if asked.pod:
            pod = await _get(client.get, PODS, *asked.pod.partition("/")[::2])
            if pod is None:
                missing.append(f"pod {asked.pod}")
            else:
                found["pod"] = _pod(pod)
        service = await _service(client, asked)
        if service is not None:
            raw = json.dumps(service).encode()
            found |= {"service": SERVICE_KIND.decode(raw), "raw": service}
            meta = service["metadata"]
            slices = await client.list_objects(
                ENDPOINT_SLICES,
                {"labelSelector": f"kubernetes.io/service-name={meta['name']}"},
                meta["namespace"],
            )
            found["raw_slices"] = tuple(slices)
            found["slices"] = tuple(SLICE_KIND.decode(json.dumps(item).encode()) for item in slices)
        elif asked.services:
            missing.append("Service " + " or ".join("/".join(names) for names in asked.services))
        if asked.dns:
            server = await _get(client.get, SERVICES, *_DNS_SERVICE)
            found["dns"] = _cluster_ips(server) if server else ()
        if asked.node:
            node = await _get(client.get, NODES, "", asked.node)
            if node is not None:
                found["node"] = decode_node(json.dumps(node).encode())
    except ApiError as error:
        return Seen(**found, problem=str(error), missing=tuple(missing))
    return Seen(**found, missing=tuple(missing))


def service_candidates(name: str, namespace: str, domain: str) -> list[tuple[str, str]]:
    """The Services that a DNS name may mean, seen from a namespace: namespace and name."""
    plain = name.rstrip(".")
    for suffix in (f".svc.{domain}", ".svc"):
        if plain.endswith(suffix):
            parts = plain.removesuffix(suffix).split(".")
            return [(parts[-1], parts[-2])] if len(parts) == 2 else []
    parts = plain.split(".")
    if len(parts) == 1:
        return [(namespace, plain)]
    return [(parts[1], parts[0])] if len(parts) == 2 else []


async def _get(
    get: Callable[..., Coroutine[Any, Any, dict[str, Any]]], resource: Any, namespace: str, name: str
) -> dict[str, Any] | None:
    try:
        return await get(resource, name, namespace)
    except NotFound:
        return None


async def _service(client: Client, asked: Asked) -> dict[str, Any] | None:
    for namespace, name in asked.services:
        found = await _get(client.get, SERVICES, namespace, name)
        if found is not None:
            return found
    if asked.services or asked.address is None:
        return None
    by_port: dict[str, Any] | None = None
    for service in await client.list_objects(SERVICES):
        if asked.address in _addresses(service):
            return service
        if asked.port and any(p.get("nodePort") == asked.port for p in service["spec"].get("ports") or ()):
            by_port = service
    return by_port


def _cluster_ips(service: Json) -> tuple[bytes, ...]:
    found = (address_bytes(text) for text in (service.get("spec") or {}).get("clusterIPs") or ())
    return tuple(address for address in found if address is not None)


def _addresses(service: Json) -> set[bytes | None]:
    spec, status = service.get("spec") or {}, service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    texts = [*(spec.get("clusterIPs") or ()), *(spec.get("externalIPs") or ())]
    texts += [item["ip"] for item in ingress if item.get("ip")]
    return {address_bytes(text) for text in texts} - {None}


def _pod(raw: Json) -> Pod:
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    found = [address_bytes(item["ip"]) for item in status.get("podIPs") or () if item.get("ip")]
    return Pod(
        name=f"{meta['namespace']}/{meta['name']}",
        node=spec.get("nodeName") or "",
        addresses=tuple(address for address in found if address is not None),
        host_network=bool(spec.get("hostNetwork")),
        runtime_class=spec.get("runtimeClassName") or "",
        running=status.get("phase") == "Running",
    )


def _member(raw: Json, endpoint: Json, port: int) -> Member | None:
    address = address_bytes((endpoint.get("addresses") or [""])[0])
    if address is None:
        return None
    conditions, hints = endpoint.get("conditions") or {}, endpoint.get("hints") or {}
    target = endpoint.get("targetRef") or {}
    pod = f"{target.get('namespace', '')}/{target.get('name', '')}" if target.get("kind") == "Pod" else ""
    ready = conditions.get("ready") is not False
    return Member(
        backend=Backend(address, port),
        slice=raw["metadata"]["name"],
        pod=pod,
        node=endpoint.get("nodeName") or "",
        ready=ready,
        serving=conditions.get("serving", ready) is not False,
        terminating=bool(conditions.get("terminating")),
        zones=tuple(hint.get("name", "") for hint in hints.get("forZones") or ()),
        nodes=tuple(hint.get("name", "") for hint in hints.get("forNodes") or ()),
    )
