"""Connections change hands between the programs and the kernel's conntrack, so that they survive either's end.

On the way down, each flow of the programs becomes an entry of conntrack's with the same translation, as kube-proxy's
rules would have made it (`conntrack.moving`): then the programs are not needed any more. What has no entry there,
because packets do not pass conntrack, cannot be handed over; it ends with the programs.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from handover_agent import bpfbatch, bpfmap, bpfsys
from handover_agent.conntrack import ConntrackError
from handover_agent.conntrack.entries import Tuple
from handover_agent.conntrack.moving import Moving, inverse
from handover_agent.conntrack.netlink import Mover
from handover_agent.entries import Direction, Flow, FlowFlags, unpack_flow
from handover_agent.kubeproxy import nftables
from handover_agent.packetpath import holding
from handover_agent.packetpath.holding import Held, key_of
from handover_agent.table import Protocol

log = logging.getLogger(__name__)

GUARD = ("inet", "handover-moving")
_LOST = "meta l4proto tcp tcp flags & (syn | rst) == 0 ct state new,invalid drop"


@dataclass(frozen=True, slots=True)
class Handed:
    """How many flows conntrack translates now, how many it does not know, and what went wrong."""

    moved: int = 0
    unknown: int = 0
    problems: tuple[str, ...] = ()


def to_conntrack(flows: Path, read: Callable[[bytes, bytes], Flow] = unpack_flow) -> Handed:
    """Hand every flow of the pinned map to conntrack, and forget it. New ones must not be accepted any more.

    `read`: what the map's entries say, if they are of another layout. Raises what that raises, and KubeProxyError when
    nft cannot be used; then nothing has been done.
    """
    try:
        opened = bpfsys.obj_get(flows)
    except FileNotFoundError:
        return Handed()
    with opened:
        info = bpfmap.map_info(opened.fd)
        entries = dict(bpfbatch.read_hash(opened.fd, info.key_bytes, info.value_bytes))
        forward = [
            (key, flow)
            for key, value in entries.items()
            if (flow := read(key, value)).direction is Direction.FORWARD and goes_on(flow)
        ]
        if not forward:
            return Handed()
        outcomes = list[bool | ConntrackError]()
        with guard(), Mover() as mover:
            held = list[Held]()
            for key, flow in forward:
                moving = moving_of(flow)
                keys = [key, key_of(Direction.BACKWARD, inverse(moving.seen))]
                if flow.protocol == Protocol.UDP:
                    held.append(Held(moving, tuple((key, entries[key]) for key in keys if key in entries)))
                    continue
                try:
                    outcomes.append(mover.move(moving))
                except ConntrackError as error:
                    outcomes.append(error)
                    continue
                bpfbatch.delete(opened.fd, keys)  # the first one first: the client's packets are conntrack's
            outcomes += holding.move(opened.fd, mover, held)
    problems = tuple(str(outcome) for outcome in outcomes if isinstance(outcome, ConntrackError))
    told = Handed(outcomes.count(True), outcomes.count(False), problems)
    log.info(
        "flows handed over to conntrack",
        extra={"moved": told.moved, "unknown": told.unknown, "failed": len(problems), "first": problems[:1]},
    )
    return told


def goes_on(flow: Flow) -> bool:
    """Whether a flow is ours, and may have packets yet to come."""
    return not flow.flags & FlowFlags.LEFT and not (
        flow.reset or (flow.client_finished and flow.backend_finished)
    )


def moving_of(flow: Flow) -> Moving:
    """A forward entry by its two faces."""
    client, frontend, backend = flow.source, flow.destination, flow.other
    return Moving(
        asked=Tuple(client.address, client.port, frontend.address, frontend.port, flow.protocol),
        seen=Tuple(client.address, flow.client_port, backend.address, backend.port, flow.protocol),
    )


@contextmanager
def guard() -> Iterator[None]:
    """While entries change hands, a packet that meets none is dropped, to be sent again.

    It would begin an entry of its own otherwise, with another backend, or be answered by a reset. Only connections
    without an entry feel it: those that are just being moved.
    """
    nftables.apply(_guarding())
    try:
        yield
    finally:
        unguard()


def unguard() -> None:
    """Remove the guard, also one that somebody who was killed left behind. Idempotent."""
    if GUARD in nftables.tables():
        nftables.apply(nftables.removal(GUARD))


def _guarding() -> str:
    name = " ".join(GUARD)
    lines = [nftables.removal(GUARD).rstrip("\n"), f"add table {name}"]
    for hook in ("prerouting", "output"):  # after conntrack has looked (-200), before NAT does (-100)
        lines.append(
            f"add chain {name} {hook}-lost {{ type filter hook {hook} priority -150; policy accept; }}"
        )
        lines.append(f"add rule {name} {hook}-lost {_LOST}")
    return "\n".join((*lines, ""))
