"""What our wanted table says of a packet, read as the datapath's contract has it: pure, no program runs.

When this agrees with kube-proxy and the programs do not, the programs are wrong; when it does not, the compiler.
"""

import json
from collections.abc import Iterable
from typing import TypeVar

from handover_agent.model import Model
from handover_agent.table import Entry, FrontendFlags, FrontendKey, Prefix, Protocol, Scope, Table
from handover_agent.watch import SERVICE_KIND, SLICE_KIND
from handover_agent.watch import Kind as Watched
from tests.differential import packets
from tests.differential.generating import Cluster
from tests.differential.packets import DROPPED, LEFT, REFUSED, Ending, Endings, Origin, Packet
from tests.differential.setting import Json, Setting
from tests.kubeproxy.fakeapi import selected
from tests.table.whole import compile_table

T = TypeVar("T")


def table_of(clusters: Iterable[Cluster], of: Setting) -> Table:
    """The wanted table for all clusters, by the way that the agent goes: decode, model, compile."""
    model = Model()
    chosen = list(clusters)
    model.services_sink.replace(_listed(SERVICE_KIND, (each for one in chosen for each in one.services)))
    model.slices_sink.replace(_listed(SLICE_KIND, (each for one in chosen for each in one.slices)))
    return compile_table(model, of.node_info)


def _listed(kind: Watched[T], objects: Iterable[Json]) -> list[T]:
    """What the API server answers to a watch of this kind, decoded."""
    selector = kind.params["labelSelector"]
    return [kind.decode(json.dumps(each).encode()) for each in objects if selected(each, selector)]


def endings(table: Table, packet: Packet) -> Endings:
    """Every way in which the packet may end."""
    found = _hit(table, packet)
    if found is None:
        return LEFT
    hit, always_masqueraded = found
    if hit.flags & FrontendFlags.SOURCES and not any(_within(each, packet.source) for each in hit.sources):
        return DROPPED
    if hit.flags & FrontendFlags.REFUSE:
        return REFUSED
    if hit.flags & FrontendFlags.DROP:
        return DROPPED
    masqueraded = always_masqueraded or bool(hit.flags & FrontendFlags.MASQUERADE)
    return frozenset(
        Ending(packets.Kind.SERVED, backend, masqueraded or backend.address == packet.source)
        for backend in hit.backends
    )


def _hit(table: Table, packet: Packet) -> tuple[Entry, bool] | None:
    """The entry that a packet hits, and whether it is masqueraded whatever the entry says."""
    outside = packet.origin is Origin.OUTSIDE
    if outside:
        hit = table.get(FrontendKey(packet.destination, packet.port, packet.protocol, Scope.EXTERNAL))
        if hit is not None:
            return hit, False
    for port, protocol in ((packet.port, packet.protocol), (0, Protocol.ANY)):
        hit = table.get(FrontendKey(packet.destination, port, protocol))
        if hit is not None:
            return hit, outside
    return None


def _within(prefix: Prefix, address: bytes) -> bool:
    shift = 128 - prefix.bits
    return int.from_bytes(prefix.address) >> shift == int.from_bytes(address) >> shift
