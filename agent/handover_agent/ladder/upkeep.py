"""What must go on being true on a rung, looked at again every few seconds, and put right where that is ours
to do.

Others have hands on a node: somebody detaches a program, reloads a firewall, starts kube-proxy by hand.
"""

from dataclasses import replace

from handover_api.base import Rung

from handover_agent.ladder.climb import bind_health_port
from handover_agent.ladder.ports import Blocked
from handover_agent.ladder.step import Ascent


async def upkeep(ascent: Ascent, rung: Rung) -> None:
    """Keep what belongs to this rung. Raises Blocked for what cannot be put right here."""
    if rung is Rung.STANDBY:
        return
    await ascent.ground.datapath.load()  # a newer agent brings newer programs; the same version does nothing
    if not ascent.journal.record.keeper_dropped:
        await ascent.ground.rules.ensure_keeper()
    programs = await ascent.ground.datapath.programs()
    serves = rung.height >= Rung.SERVING.height
    if serves or programs.attached:
        await ascent.ground.rules.ensure_path()
    if serves and not programs.serving:
        await ascent.ground.datapath.attach()
        await ascent.ground.datapath.set_accepting(True)
    else:
        await ascent.ground.datapath.follow()  # the loop that hears of devices does the same, at once
    if rung is Rung.SOLE:
        await _sole(ascent)
    # Last, since it waits for the API server: what is in the maps goes on serving meanwhile.
    await ascent.ground.table.fill()


async def _sole(ascent: Ascent) -> None:
    """Alone at the helm: the port is ours, no kube-proxy came back, none of its rules did."""
    pods = await ascent.ground.cluster.kube_proxy_pods() if ascent.ground.cluster.direct() else []
    if pods:
        raise Blocked(
            "KubeProxyReturned",
            f"kube-proxy runs on this node again ({', '.join(pods)}), though this node is drained of it: "
            "nothing more is "
            "removed. See who scheduled it (an upgrade, an add-on manager, GitOps), or take the node back",
        )
    await bind_health_port(ascent)
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
