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
from handover_agent.conntrack.moving import Moving
from handover_agent.conntrack.netlink import Mover
from handover_agent.entries import Direction, Flow, unpack_flow
from handover_agent.kubeproxy import nftables

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
        entries = [
            (key, read(key, value))
            for key, value in bpfbatch.read_hash(opened.fd, info.key_bytes, info.value_bytes)
        ]
        backward = {_ends(flow): key for key, flow in entries if flow.direction is Direction.BACKWARD}
        forward = [
            (key, flow) for key, flow in entries if flow.direction is Direction.FORWARD and goes_on(flow)
        ]
        if not forward:
            return Handed()
        moved, unknown, problems = 0, 0, list[str]()
        with guard(), Mover() as mover:
            for key, flow in forward:
                moving = moving_of(flow)
                try:
                    known = mover.move(moving)
                except ConntrackError as error:
                    problems.append(str(error))
                    continue
                moved, unknown = moved + known, unknown + (not known)
                bpfmap.delete(opened.fd, key)  # first: from now on the client's packets are conntrack's
                bpfmap.delete(opened.fd, backward.get(_answer(moving.seen), key))
    told = Handed(moved, unknown, tuple(problems))
    log.info(
        "flows handed over to conntrack",
        extra={"moved": moved, "unknown": unknown, "failed": len(problems), "first": problems[:1]},
    )
    return told


def goes_on(flow: Flow) -> bool:
    """Whether a flow may have packets yet to come."""
    return not (flow.reset or (flow.client_finished and flow.backend_finished))


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


def _ends(flow: Flow) -> Tuple:
    source, destination = flow.source, flow.destination
    return Tuple(source.address, source.port, destination.address, destination.port, flow.protocol)


def _answer(seen: Tuple) -> Tuple:
    return Tuple(seen.destination, seen.destination_port, seen.source, seen.source_port, seen.protocol)
