"""Flows of datagrams that kube-proxy's rules began, and that conntrack goes on translating while new ones are ours.

A segment of TCP in the middle of a connection is left alone by the programs; a datagram says nothing of the kind. So
the map of flows says which are conntrack's: an entry from client to frontend with FLOW_LEFT (bpf/changing.h), of which
conntrack's own entry is the truth. The programs note those that they see while they stand at the devices and do not
accept yet; the agent adds the silent ones, and removes what conntrack has forgotten.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from handover_agent import bpfbatch, bpfmap, bpfsys
from handover_agent.conntrack import netlink
from handover_agent.conntrack.entries import Flow, destination
from handover_agent.conntrack.old import udp_timeout_s
from handover_agent.conntrack.serving import Serving, is_gone
from handover_agent.entries import NS_PER_S, Direction, FlowFlags, pack_flow_key, pack_left, unpack_flow
from handover_agent.table import Backend, FrontendKey, Protocol

_PROTOCOL_AT = 36  # in struct flow_key
_FLAGS_AT = 42  # in struct flow
_APART_NS = 5 * NS_PER_S
"""So much earlier than conntrack the programs may forget a flow of which only answers are seen."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long conntrack remembers a flow of datagrams without any, in seconds: at first, and an assured one."""

    first_s: int
    assured_s: int


def keep(flows: Path, services: Mapping[FrontendKey, int], serving: Serving | None = None) -> int:
    """Have the pinned map say which flows to these frontends are conntrack's; how many are.

    `services` has the number of each frontend's Service. With `serving`, what leads to a backend that serves no more
    is not kept. A flow that the programs have opened stays theirs. Raises BpfError, ConntrackError.
    """
    try:
        opened = bpfsys.obj_get(flows)
    except FileNotFoundError:
        return 0
    with opened:
        there = _left(opened.fd)
        wanted = _wanted(services, serving)
        for key, value in wanted.items():
            if key not in there:
                bpfmap.add(opened.fd, key, value)
            elif _differs(there[key], value, key):
                bpfmap.update(opened.fd, key, value)
        gone = there.keys() - wanted.keys()
        if gone:  # a datagram may have been on its way through conntrack when that was read
            gone -= _wanted(services, serving).keys()
            bpfbatch.delete(opened.fd, list(gone))
    return len(wanted)


def forget(flows: Path) -> None:
    """Have no flow be conntrack's any more: their next datagrams are given a backend. Raises BpfError."""
    try:
        opened = bpfsys.obj_get(flows)
    except FileNotFoundError:
        return
    with opened:
        bpfbatch.delete(opened.fd, list(_left(opened.fd)))


def wanted(
    entries: Iterable[Flow],
    services: Mapping[FrontendKey, int],
    serving: Serving | None,
    lives: Lives,
    now_ns: int,
) -> dict[bytes, bytes]:
    """Key and value of what the map should have for conntrack's entries: pure."""
    found = {}
    for entry in entries:
        ends = entry.original
        frontend = FrontendKey(ends.destination, ends.destination_port, Protocol.UDP)
        backend = Backend(entry.reply.source, entry.reply.source_port)
        if not entry.translated or frontend not in services:
            continue
        to = Backend(ends.destination, ends.destination_port)
        if serving is not None and is_gone(to, backend, serving):
            continue
        source = Backend(ends.source, ends.source_port)
        key = pack_flow_key(Direction.FORWARD, Protocol.UDP, source, to)
        lives_s = lives.assured_s if entry.assured else lives.first_s
        idle_s = max(0, lives_s - entry.timeout_s)
        found[key] = pack_left(backend, services[frontend], now_ns - idle_s * NS_PER_S, lives_s)
    return found


def _wanted(services: Mapping[FrontendKey, int], serving: Serving | None) -> dict[bytes, bytes]:
    to = {destination(key.address, key.port, key.protocol) for key in services}
    lives = Lives(udp_timeout_s(False), udp_timeout_s(True))
    found: dict[bytes, bytes] = {}
    for family in netlink.FAMILIES:
        entries = netlink.udp_flows(to, family)
        found |= wanted(entries, services, serving, lives, time.monotonic_ns())
    return found


def _left(flows: int) -> dict[bytes, bytes]:
    info = bpfmap.map_info(flows)
    entries = bpfbatch.read_hash(flows, info.key_bytes, info.value_bytes)
    return {
        key: value
        for key, value in entries
        if key[_PROTOCOL_AT] == Protocol.UDP and value[_FLAGS_AT] & FlowFlags.LEFT
    }


def _differs(there: bytes, wanted: bytes, key: bytes) -> bool:
    is_, should = unpack_flow(key, there), unpack_flow(key, wanted)
    if (is_.other, is_.lives_s) != (should.other, should.lives_s):
        return True
    return should.last_seen_ns - is_.last_seen_ns > _APART_NS
