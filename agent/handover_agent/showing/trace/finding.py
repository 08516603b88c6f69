"""Finds out what a trace is told from: the maps, the node, the cluster's DNS and API server."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handover_agent.apierrors import ApiError
from handover_agent.apiserver import Client
from handover_agent.conntrack import ConntrackError
from handover_agent.conntrack import entries as conntrack_entries
from handover_agent.conntrack.netlink import translated_flows
from handover_agent.conntrack.old import in_use
from handover_agent.layout import unpack_source
from handover_agent.settings import Settings
from handover_agent.showing import affinity, flows
from handover_agent.showing.affinity import Stay
from handover_agent.showing.command import CannotShow
from handover_agent.showing.connections import Connection, of_kube_proxy
from handover_agent.showing.frontends import Held, read
from handover_agent.showing.node import Node, NothingPinned
from handover_agent.showing.trace import dns
from handover_agent.showing.trace.asking import From, Origin, Target
from handover_agent.showing.trace.cluster import Asked, Pod, Seen, look_up, service_candidates
from handover_agent.showing.trace.destination import Destination, find, settle
from handover_agent.showing.trace.ground import Ground, look
from handover_agent.showing.trace.path import Source, source_text
from handover_agent.table import Backend, FrontendFlags, Protocol, Scope

_DNS_PORT = 53
_DNS_SERVICES = ("kube-system/kube-dns:", "kube-system/coredns:", "kube-system/rke2-coredns")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that one trace knows."""

    target: Target
    destination: Destination
    source: Source
    seen: Seen
    ground: Ground
    frontend: Held | None
    answer: dns.Answer | None = None
    direct_answer: dns.Answer | None = None
    """Of a backend of the DNS Service, asked when nobody answered at its address."""
    stay: Stay | None = None
    client_known: bool = True
    """Whether the client's affinity entry would have been recognized as its own."""
    connections: tuple[Connection, ...] = ()
    admitted: bool | None = None
    """Whether the source is in the ranges that may connect; None when it does not matter or is not known."""
    notes: tuple[str, ...] = ()


def find_out(target: Target, start: From, domain: str, settings: Settings) -> Facts:
    """Raises CannotShow, WrongUsage."""
    node = Node.look(settings)
    notes = list(node.notes)
    held = _held(node, notes)
    ground = look(settings)
    notes += ground.notes
    namespace = start.pod.partition("/")[0] or "default"
    asked = _asked(target, start, namespace, domain, held, settings)
    seen = asyncio.run(_ask(settings, asked))
    if seen.problem:
        notes.append(
            f"the API server could not be asked, so Service, EndpointSlices and pods are not known: {seen.problem}"
        )
    answer, direct = _resolve(target, namespace, domain, _dns_servers(held, seen))
    source = _source(start, seen, ground, settings)
    destination = settle(target, seen, answer, held)
    frontend = find(destination, held, source.origin is Origin.OUTSIDE)
    stay = _stay(node, frontend, source, ground) if frontend else None
    return Facts(
        target,
        destination,
        source,
        seen,
        ground,
        frontend,
        answer,
        direct,
        stay,
        stay is not None or _client_known(node, frontend, source),
        _connections(node, destination, notes),
        _admitted(node, frontend, source) if frontend else None,
        tuple(notes),
    )


def _held(node: Node, notes: list[str]) -> list[Held]:
    try:
        return read(node)
    except NothingPinned:
        return []  # the path says so
    except CannotShow as error:
        notes.append(str(error))
        return []


def _asked(
    target: Target, start: From, namespace: str, domain: str, held: Sequence[Held], settings: Settings
) -> Asked:
    services: list[tuple[str, str]] = []
    if target.service:
        services.append((target.service.partition("/")[0], target.service.partition("/")[2]))
    elif target.name:
        services += service_candidates(target.name, namespace, domain)
    else:
        at = {h.service.partition(":")[0] for h in held if h.key.address == target.address and not h.rest}
        if target.port:
            exact = {
                h.service.partition(":")[0]
                for h in held
                if h.key.address == target.address and h.key.port == target.port
            }
            at = exact or at
        services += [(name.partition("/")[0], name.partition("/")[2]) for name in sorted(at) if "/" in name]
    ask_dns = target.address is None and not _dns_servers(held, Seen())
    return Asked(start.pod, tuple(services), target.address, target.port, settings.node_name, ask_dns)


async def _ask(settings: Settings, asked: Asked) -> Seen:
    from handover_agent.runtime import credentials  # noqa: PLC0415 - costs a second's fraction, here only

    try:
        memory = settings.state.servers
        async with Client(credentials(settings), memory=memory, timeout_s=_TIMEOUT_S) as client:
            return await look_up(client, asked)
    except ApiError as error:
        return Seen(problem=str(error))


def _resolve(
    target: Target, namespace: str, domain: str, servers: Sequence[Backend]
) -> tuple[dns.Answer | None, dns.Answer | None]:
    """What the cluster's DNS says, by its Service's address; and one of its backends when nobody answers there."""
    if target.address is not None or not servers:
        return None, None
    if target.service:
        own, _, name = target.service.partition("/")
        names = [f"{name}.{own}.svc.{domain}"]
    else:
        names = dns.candidates(target.name, namespace, domain)
    answer = dns.resolve(servers[0], names)
    if answer.answered or len(servers) == 1:
        return answer, None
    return answer, dns.resolve(servers[1], names)


def _dns_servers(held: Sequence[Held], seen: Seen) -> list[Backend]:
    """The address of the cluster's DNS Service, then its backends where the maps have them."""
    for h in held:
        here = (h.key.port, h.key.protocol, h.key.scope) == (_DNS_PORT, Protocol.UDP, Scope.INTERNAL)
        if here and h.service.startswith(_DNS_SERVICES):
            return [Backend(h.key.address, h.key.port), *h.backends]
    return [Backend(address, _DNS_PORT) for address in seen.dns[:1]]


def _source(start: From, seen: Seen, ground: Ground, settings: Settings) -> Source:
    if start.origin is Origin.NODE:
        return Source(Origin.NODE, source_text(Origin.NODE, "", None))
    if start.origin is Origin.POD:
        return _pod_source(start.pod, seen, ground, settings)
    address = start.address
    assert address is not None  # noqa: S101 - From has one when its origin is not known
    if address in ground.local:
        return Source(Origin.NODE, source_text(Origin.NODE, "", None), address)
    device = ground.ports.get(address, "")
    if device and device in ground.pod_ports:
        return Source(Origin.POD, source_text(Origin.POD, "", address), address, device)
    return Source(Origin.OUTSIDE, source_text(Origin.OUTSIDE, "", address), address)


def _pod_source(name: str, seen: Seen, ground: Ground, settings: Settings) -> Source:
    pod = seen.pod
    if pod is None:
        if seen.problem:
            raise CannotShow(
                f"where pod {name} is cannot be found out: {seen.problem}. Give its address instead: --from ADDRESS"
            )
        raise CannotShow(f"there is no pod {name}; give --from NAMESPACE/NAME of a pod of this node")
    _check_place(pod, settings)
    if pod.host_network:
        return Source(Origin.NODE, f"pod {name}, in the node's own network", None, "", pod.runtime_class)
    address = pod.addresses[0] if pod.addresses else None
    device = ground.ports.get(address, "") if address else ""
    return Source(Origin.POD, source_text(Origin.POD, name, address), address, device, pod.runtime_class)


def _check_place(pod: Pod, settings: Settings) -> None:
    if not pod.node:
        raise CannotShow(f"pod {pod.name} is on no node yet: nothing can start there")
    if settings.node_name and pod.node != settings.node_name:
        raise CannotShow(
            f"pod {pod.name} is on node {pod.node}, this is {settings.node_name}: what it connects to is decided "
            f"there. Run this in the agent's pod of {pod.node} "
            f"(kubectl -n handover-system get pods -o wide --field-selector spec.nodeName={pod.node})"
        )


def _stay(node: Node, frontend: Held, source: Source, ground: Ground) -> Stay | None:
    """The client's entry, if the Service has affinity: by its namespace where that is known, else by address."""
    if not frontend.value.flags & FrontendFlags.AFFINITY:
        return None
    for stay in affinity.read(node):
        client = stay.entry.client
        if stay.entry.service_id != frontend.value.service_id:
            continue
        if source.origin is Origin.NODE and client.netns_cookie is not None:
            if client.netns_cookie == ground.netns_cookie:
                return stay
        elif source.address is not None and (
            client.address == source.address or source.address in stay.packed_addresses
        ):
            return stay
    return None


def _client_known(node: Node, frontend: Held | None, source: Source) -> bool:
    """A pod's entry is its namespace's where a socket made it: whose that is, the map of clients says."""
    if (
        frontend is None
        or not frontend.value.flags & FrontendFlags.AFFINITY
        or source.origin is not Origin.POD
    ):
        return True
    return affinity.knows(node, source.address)


def _connections(node: Node, destination: Destination, notes: list[str]) -> tuple[Connection, ...]:
    wanted = (destination.protocol, destination.address, destination.port)
    try:
        found, told = flows.read(node)
    except CannotShow:
        found, told = _kube_proxys(destination, notes), ()
    notes += told
    return tuple(c for c in found if (c.protocol, c.frontend.address, c.frontend.port) == wanted)


def _kube_proxys(destination: Destination, notes: list[str]) -> list[Connection]:
    """Without maps, kube-proxy's entries are all there is."""
    key = conntrack_entries.destination(destination.address, destination.port, destination.protocol)
    try:
        return of_kube_proxy(in_use(translated_flows({key})), {})
    except (ConntrackError, OSError) as error:
        notes.append(f"what kube-proxy's conntrack entries carry is not known: {error}")
        return []


def _admitted(node: Node, frontend: Held, source: Source) -> bool | None:
    if not frontend.value.flags & FrontendFlags.SOURCES or source.address is None:
        return None
    with node.map("sources") as opened:
        return any(
            service_id == frontend.value.service_id and _within(source.address, prefix, bits)
            for service_id, prefix, bits in _ranges(opened.entries())
        )


def _ranges(entries: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, int]]:
    return (unpack_source(key) for key, _ in entries)


def _within(address: bytes, prefix: bytes, bits: int) -> bool:
    shift = 128 - bits
    return int.from_bytes(address, "big") >> shift == int.from_bytes(prefix, "big") >> shift
