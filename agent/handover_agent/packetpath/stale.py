"""UDP flows to backends that serve no more: what conntrack's reconcile is for kube-proxy's flows, for our own. Pure.

A client that goes on sending from one port keeps its flow, and the backend that was chosen with it. The rule is
kube-proxy's: while the frontend has a backend that serves, a flow to one that does not is removed, in both directions,
and the next datagram chooses anew.
"""

from collections.abc import Iterable

from handover_agent.conntrack.serving import Serving, is_gone
from handover_agent.entries import Direction, unpack_flow
from handover_agent.table import Protocol

_PROTOCOL_AT = 36  # in struct flow_key; most flows are TCP's, and are not worth unpacking


def stale_flows(entries: Iterable[tuple[bytes, bytes]], serving: Serving) -> list[bytes]:
    """The keys of these entries of the map `flows` that are to be removed."""
    found = []
    for key, value in entries:
        if key[_PROTOCOL_AT] != Protocol.UDP:
            continue
        flow = unpack_flow(key, value)
        if not flow.other.port:
            continue  # conntrack's, and not known yet by whom
        if flow.direction is Direction.FORWARD:
            frontend, backend = flow.destination, flow.other
        else:
            frontend, backend = flow.other, flow.source
        if is_gone(frontend, backend, serving):
            found.append(key)
    return found
