"""A step between two rungs, as data: what must hold before it begins, and its acts in order.

A step whose checks fail has touched nothing, and the journal does not mention it. Once it has begun, every
act may be killed and done again: each first looks, or is idempotent in the kernel.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from handover_agent.ladder.journal import Journal
from handover_agent.ladder.ports import Blocked, Ground


@dataclass(frozen=True, slots=True)
class Ascent:
    """What a step works with, besides its ground."""

    ground: Ground
    journal: Journal
    now: Callable[[], datetime]
    grace_until: Callable[[], datetime]
    """When translated sockets must have ended, on the way to Standby."""


Run = Callable[[Ascent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that a step does; `doing` is what the status says meanwhile."""

    doing: str
    run: Run


@dataclass(frozen=True, slots=True)
class Step:
    """The way to a neighbouring rung."""

    checks: tuple[Act, ...]
    acts: tuple[Act, ...]


async def require_current_table(ascent: Ascent) -> None:
    """Services and EndpointSlices have been listed and the watches run."""
    behind = ascent.ground.table.behind()
    if behind:
        raise Blocked(
            "TableBehind",
            f"the table may not be what the cluster wants: {behind}; the API server is asked again by itself",
        )


async def require_true_maps(ascent: Ascent) -> None:
    """The maps hold what is wanted, read from the kernel just now."""
    await ascent.ground.table.fill()
    await ascent.ground.table.verify()  # repairs; so look a second time
    differences = await ascent.ground.table.verify()
    if differences:
        raise Blocked(
            "MapsDiffer",
            f"{len(differences)} frontends in the kernel are not as wanted, first: {differences[0]}",
        )


async def ensure_keeper(ascent: Ascent) -> None:
    await ascent.ground.rules.ensure_keeper()


async def ensure_path(ascent: Ascent) -> None:
    await ascent.ground.rules.ensure_path()


async def kube_proxy_signs(ascent: Ascent) -> str:
    """How one can tell that kube-proxy runs on this node; empty when nothing speaks for it. Asks the API
    server.
    """
    pods = await ascent.ground.cluster.kube_proxy_pods()
    if pods:
        return f"the API server lists {', '.join(pods)} on this node"
    if await ascent.ground.port.foreign():
        return "another process holds kube-proxy's health port"
    return ""
