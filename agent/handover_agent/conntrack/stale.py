"""UDP entries that lead to endpoints that are gone: kube-proxy deletes them, so on a migrated node we do.

A UDP client that goes on sending from one port keeps its conntrack entry alive for ever, and with it the
endpoint that was chosen once. kube-proxy looks for such entries whenever endpoints change
(pkg/proxy/conntrack/cleanup.go); the rules here are its rules: a frontend with at least one serving
endpoint, an entry whose original destination it is, and an answer that would come from something else.
Policies, hints and readiness do not matter, only serving, so that a change of a Service does not disturb
flows that work. Entries without translation count too: they were made while nobody translated, and would
keep kube-proxy's rules from being asked after a way back.
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from handover_agent.compile import NodeInfo, compile_service
from handover_agent.conntrack import netlink
from handover_agent.conntrack.entries import Flow, destination
from handover_agent.model import Model
from handover_agent.objects import Slice
from handover_agent.table import Backend, FrontendKey, Protocol

Serving = Mapping[FrontendKey, Collection[Backend]]


def serving(model: Model, node: NodeInfo) -> dict[FrontendKey, frozenset[Backend]]:
    """The UDP frontends on this node, each with all its serving endpoints, whatever policies and hints say.

    Raises NotListed.
    """
    model.require_complete()
    found: dict[FrontendKey, frozenset[Backend]] = {}
    for name, service in model.services.items():
        if not any(port.protocol is Protocol.UDP for port in service.ports):
            continue
        anywhere = replace(service, internal_local=False, external_local=False, source_ranges=())
        rows, _ = compile_service(anywhere, [_all_ready(each) for each in model.slices(name)], node)
        for key, entry, _ in rows:
            if key.protocol is Protocol.UDP:
                found[key] = found.get(key, frozenset()) | frozenset(entry.backends)
    return found


def reconcile_udp(frontends: Serving) -> int:
    """Delete the stale entries, each exactly; returns how many. Repeat it when endpoints have changed.

    Raises ConntrackError.
    """
    to = {destination(key.address, key.port, key.protocol) for key, backends in frontends.items() if backends}
    if not to:
        return 0
    with netlink.Deleter() as deleter:
        return sum(deleter.delete(flow) for flow in stale(list(netlink.udp_flows(to)), frontends))


def stale(flows: Iterable[Flow], frontends: Serving) -> list[Flow]:
    """The entries that `reconcile_udp` deletes: pure."""
    found = []
    for flow in flows:
        to, back = flow.original, flow.reply
        if to.protocol != Protocol.UDP:
            continue
        backends = frontends.get(FrontendKey(to.destination, to.destination_port, Protocol.UDP))
        if backends and Backend(back.source, back.source_port) not in backends:
            found.append(flow)
    return found


def _all_ready(slice_: Slice) -> Slice:
    return replace(
        slice_,
        endpoints=tuple(replace(each, ready=True, zone_hints=(), node_hints=()) for each in slice_.endpoints),
    )
