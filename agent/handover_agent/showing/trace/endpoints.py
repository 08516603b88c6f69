"""A Service port's endpoints as a trace tells of them: who is chosen, who is not and why, and what should be. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from handover_agent.compile import NodeInfo, compile_service
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.node import node_info
from handover_agent.objects import Service, is_ipv4
from handover_agent.showing.frontends import Held
from handover_agent.showing.trace.cluster import Member, Seen
from handover_agent.table import Backend, Entry, FrontendKey, Scope


@dataclass(frozen=True, slots=True)
class Sorted:
    """The endpoints of a Service port."""

    chosen: tuple[tuple[Backend, Member | None], ...]
    """What a new connection may go to; None: no EndpointSlice that was read has it."""
    left_out: tuple[tuple[Member, str], ...]
    """The others, with the reason."""


_KEEPS = "; it keeps the flows that it has"


def is_local(service: Service, key: FrontendKey) -> bool:
    """Whether a frontend's policy is Local."""
    if key.address in service.cluster_ips:
        return service.internal_local
    return service.external_local and key.scope is Scope.EXTERNAL


def sort(
    backends: Sequence[Backend],
    draining: Sequence[Backend],
    members: Sequence[Member],
    key: FrontendKey,
    seen: Seen,
    node: str,
) -> Sorted:
    """Each member chosen or left out, the ones of the frontend's family."""
    by_end = {member.backend: member for member in members}
    chosen = tuple((backend, by_end.get(backend)) for backend in backends)
    others = [
        member
        for member in by_end.values()
        if member.backend not in backends and is_ipv4(member.backend.address) is is_ipv4(key.address)
    ]
    local = seen.service is not None and is_local(seen.service, key)
    here = seen.node.zone if seen.node else ""
    told = [
        (member, why_not(member, local, node, here, members) + _KEEPS * (member.backend in draining))
        for member in others
    ]
    return Sorted(chosen, tuple(sorted(told, key=lambda item: item[0].backend)))


def why_not(member: Member, local: bool, node: str, zone: str, members: Sequence[Member]) -> str:
    """Why an endpoint gets no new connections from here."""
    if not member.ready and not (member.serving and member.terminating):
        return "not ready"
    if local and node and member.node != node:
        return f"on node {member.node or '(none)'}, and the policy is Local"
    if not member.ready and any(other.ready for other in members):
        return "terminating, while others are ready"
    if member.nodes and node not in member.nodes:
        return f"its hint is for node {', '.join(member.nodes)}"
    if member.zones and zone not in member.zones:
        return f"its hint is for zone {', '.join(member.zones)}, this node is in {zone or 'none'}"
    return "should be chosen: the maps are behind"


def wanted(seen: Seen, key: FrontendKey, local: frozenset[bytes]) -> Entry | None:
    """What the cluster wants at a frontend now, compiled as the agent does it; None when nothing, or not known."""
    if seen.service is None or seen.node is None:
        return None
    node: NodeInfo = node_info(seen.node, local, NodePortPlaces())
    rows, _ = compile_service(seen.service, seen.slices, node)
    internal = FrontendKey(key.address, key.port, key.protocol)
    for row in rows:
        if row.key == internal:
            return row.external if key.scope is Scope.EXTERNAL else row.entry
    return None


def agreement(frontend: Held | None, entry: Entry | None) -> str:
    """Where the maps differ from what the cluster wants; empty when they do not."""
    if frontend is None:
        return f"the cluster wants {_count(entry.backends)} there, the maps have no frontend" if entry else ""
    if entry is None:
        return "the maps have a frontend there, the cluster wants none"
    differences = []
    for what, wants, have in (
        ("", entry.backends, frontend.backends),
        ("of those that keep their flows: ", entry.draining, frontend.draining),
    ):
        missing, surplus = sorted(set(wants) - set(have)), sorted(set(have) - set(wants))
        if missing:
            differences.append(f"{what}the maps lack {_some(missing)}")
        if surplus:
            differences.append(f"{what}the maps have {_some(surplus)} besides")
    if entry.flags != frontend.value.flags:
        differences.append(f"the maps say {frontend.value.flags!r}, the cluster {entry.flags!r}")
    if entry.affinity_timeout_s != frontend.value.affinity_timeout_s:
        ours, theirs = frontend.value.affinity_timeout_s, entry.affinity_timeout_s
        differences.append(f"the maps' affinity lasts {ours} s, the cluster's {theirs} s")
    return "; ".join(differences)


def _count(backends: Sequence[Backend]) -> str:
    return "1 backend" if len(backends) == 1 else f"{len(backends)} backends"


def _some(backends: Sequence[Backend], most: int = 5) -> str:
    more = len(backends) - most
    return ", ".join(map(str, backends[:most])) + (f" and {more} more" if more > 0 else "")
