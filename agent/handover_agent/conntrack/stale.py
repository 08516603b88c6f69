"""UDP entries that lead to endpoints that are gone: kube-proxy deletes them, so on a migrated node we do.

A UDP client that goes on sending from one port keeps its conntrack entry alive for ever, and with it the
endpoint that was chosen once. kube-proxy looks for such entries whenever endpoints change
(pkg/proxy/conntrack/cleanup.go); the rules here are its rules: a frontend with at least one serving
endpoint, an entry whose original destination it is, and an answer that would come from something else.

Entries that nobody translated are another matter. While this datapath serves alone there are no rules that such an entry
could keep from being asked, and the node's own traffic to a ClusterIP has one, since it is translated behind conntrack:
without its entry, a firewall would take the next answer for a stranger's. When kube-proxy's rules are to serve again,
they go, and only they: a kube-proxy that runs may know an endpoint already that we do not, and without its entry the
answer of that one would come from an address that nobody has asked.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from handover_agent.conntrack import netlink
from handover_agent.conntrack.entries import Flow, destination
from handover_agent.conntrack.serving import Serving, is_gone
from handover_agent.table import Backend, Protocol


@dataclass(frozen=True, slots=True)
class Pass:
    """One look through the entries of a family."""

    ipv4: bool
    deleted: int
    seconds: float


def reconcile_udp(frontends: Serving, *, untranslated: bool = False) -> tuple[Pass, ...]:
    """Delete the stale entries, each exactly. Repeat it when endpoints have changed.

    `untranslated`: instead, those that were not translated. Raises ConntrackError.
    """
    to = {destination(key.address, key.port, key.protocol) for key, backends in frontends.items() if backends}
    passes = []
    with netlink.Deleter() as deleter:
        for family in netlink.FAMILIES:
            began = time.monotonic()
            found = stale(list(netlink.udp_flows(to, family)), frontends, untranslated=untranslated)
            deleted = sum(deleter.delete(flow) for flow in found)
            passes.append(Pass(family == netlink.FAMILIES[0], deleted, time.monotonic() - began))
    return tuple(passes)


def stale(flows: Iterable[Flow], frontends: Serving, *, untranslated: bool) -> list[Flow]:
    """The entries that `reconcile_udp` deletes: pure."""
    found = []
    for flow in flows:
        to, back = flow.original, flow.reply
        if to.protocol != Protocol.UDP or flow.translated is untranslated:
            continue
        frontend = Backend(to.destination, to.destination_port)
        if is_gone(frontend, Backend(back.source, back.source_port), frontends):
            found.append(flow)
    return found
