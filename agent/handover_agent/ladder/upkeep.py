"""What must go on being true on a rung, looked at again every few seconds, and put right where that is ours
to do.

Others have hands on a node: somebody detaches a program, reloads a firewall, starts kube-proxy by hand. Each thing is
looked after by itself: one that cannot be put right is no reason to neglect the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from handover_api.base import Rung

from handover_agent.ladder.climb import attach, bind_health_port
from handover_agent.ladder.ports import Blocked, Waiting
from handover_agent.ladder.step import Ascent


async def upkeep(ascent: Ascent, rung: Rung) -> None:
    """Keep what belongs to this rung. Raises Blocked, or what else was met first, once everything has been tried."""
    if rung is Rung.STANDBY:
        return
    troubles: list[Exception] = []
    for part in _parts(rung):
        try:
            await part(ascent)
        except Exception as error:  # told below
            troubles.append(error)
    if troubles:
        raise min(troubles, key=lambda error: isinstance(error, Waiting))


def _parts(rung: Rung) -> tuple[Callable[[Ascent], Awaitable[None]], ...]:
    """In this order; the table comes last, since it waits for the API server: what is in the maps goes on serving."""
    if rung is Rung.SOLE:
        return (_programs, _keeper, _served, _alone, _table)
    if rung is Rung.SERVING:
        return (_programs, _keeper, _served, _table)
    return (_programs, _keeper, _followed, _table)


async def _programs(ascent: Ascent) -> None:
    """A newer agent brings newer programs; the same version does nothing."""
    await ascent.ground.datapath.load()


async def _keeper(ascent: Ascent) -> None:
    if ascent.journal.record.keeper_dropped:
        await ascent.ground.rules.ensure_accepts()
    else:
        await ascent.ground.rules.ensure_keeper()


async def _served(ascent: Ascent) -> None:
    await ascent.ground.rules.ensure_path()
    if (await ascent.ground.datapath.programs()).serving:
        await ascent.ground.datapath.follow()  # the loop that hears of devices does the same, at once
    else:
        await attach(ascent)


async def _followed(ascent: Ascent) -> None:
    """What is translated already goes on, by programs that accept nothing new."""
    if (await ascent.ground.datapath.programs()).attached:
        await ascent.ground.rules.ensure_path()
    await ascent.ground.datapath.follow()


async def _table(ascent: Ascent) -> None:
    await ascent.ground.table.fill()


async def _alone(ascent: Ascent) -> None:
    """Alone at the helm: the port is ours, no kube-proxy came back, none of its rules did."""
    unseen: Exception | None = None
    pods: list[str] = []
    if ascent.ground.cluster.direct():
        try:
            pods = await ascent.ground.cluster.kube_proxy_pods(fresh=False)
        except Exception as error:  # the port is ours all the same, and tells whether one runs
            unseen = error
    if pods:
        raise Blocked(
            "KubeProxyReturned",
            f"kube-proxy runs on this node again ({', '.join(pods)}), though this node is drained of it: "
            "nothing more is removed. See who scheduled it (an upgrade, an add-on manager, GitOps), or take the node "
            "back",
        )
    await bind_health_port(ascent)
    if unseen is not None:
        raise unseen
    left = (await ascent.ground.rules.inspect()).leftovers
    if left:
        # It came back and went again. Sole is no longer true; going there once more snapshots and
        # flushes what it left.
        record = ascent.journal.record
        ascent.journal.write(replace(record, rung=Rung.SERVING, since=ascent.now(), towards=Rung.SOLE))
        raise Blocked(
            "RulesReturned",
            f"{len(left)} tables and chains of kube-proxy's are there again, first: {left[0]}",
        )
