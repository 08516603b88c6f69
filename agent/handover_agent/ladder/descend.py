"""The way down: what was there before is put back first, and only then does ours let go.

At each rung somebody must be left who serves new connections: kube-proxy with its rules, or at least its
rules. Where that is not so, nothing is switched off and the fault says so.
"""

from dataclasses import replace

from handover_api.base import Rung

from handover_agent.ladder.journal import Journal
from handover_agent.ladder.ports import Blocked, Rules, Waiting
from handover_agent.ladder.step import Act, Ascent, Step, ensure_keeper, kube_proxy_signs

BEHIND_S = 10.0
"""So far kube-proxy may be behind when new connections are left to it. Less than on the way up: what it does not know yet
is lost from then on."""


async def put_rules_back(ascent: Ascent) -> None:
    """The snapshot, unless kube-proxy writes its rules itself or they were never touched.

    A kube-proxy that runs must not be overwritten with older rules; what it left behind after it had come
    back is newer than the snapshot.
    """
    rules, journal = ascent.ground.rules, ascent.journal
    seen = await rules.inspect()
    signs = await kube_proxy_signs_unless_unreachable(ascent)
    if signs:
        if not seen.in_force:
            raise Waiting(f"{signs}; it has not written its rules yet", retry_s=1.0)
    elif journal.record.flushing or not seen.in_force:
        if not await rules.snapshot():
            raise Blocked(
                "SnapshotLost",
                "the snapshot is not on the disk and kube-proxy's rules are not in force: going down would "
                "leave nobody "
                "to serve. Start kube-proxy on this node, it writes its rules anew",
            )
        await restore(ascent.ground.rules, journal)
    if journal.record.flushing:
        journal.write(replace(journal.record, flushing=False))


async def restore(rules: Rules, journal: Journal) -> None:
    """The snapshot's rules, all of them: they are written one table after the other, and whoever goes on after the half
    of them must not take that for the whole. So the record says `flushing` meanwhile.
    """
    journal.write(replace(journal.record, flushing=True))
    await rules.restore()


async def kube_proxy_signs_unless_unreachable(ascent: Ascent) -> str:
    """Going down must work without the API server: then only the health port tells."""
    if ascent.ground.port.held:
        if not ascent.ground.cluster.direct():
            return ""
        pods = await ascent.ground.cluster.kube_proxy_pods()
        return f"the API server lists {', '.join(pods)} on this node" if pods else ""
    if await ascent.ground.port.foreign():
        return "another process holds kube-proxy's health port"
    return await kube_proxy_signs(ascent) if ascent.ground.cluster.direct() else ""


async def release_health_port(ascent: Ascent) -> None:
    await ascent.ground.port.release()


async def require_kube_proxy_serves(ascent: Ascent) -> None:
    """Nothing of ours stops accepting before kube-proxy's rules are in force and say what the table says."""
    seen = await ascent.ground.rules.inspect()
    if not seen.in_force:
        raise Blocked(
            "NobodyElseServes",
            "kube-proxy's rules are not in force on this node: if the datapath let go now, nobody would "
            "serve new "
            "connections. Start kube-proxy on this node",
        )
    if not await kube_proxy_signs(ascent):
        raise Blocked(
            "KubeProxyAbsent", "kube-proxy does not run on this node, its rules would never be updated again"
        )
    differences = await ascent.ground.rules.parity(BEHIND_S)
    if differences:
        raise Blocked(
            "KubeProxyNotSynced",
            f"kube-proxy's rules do not do yet what the cluster wants: {len(differences)} frontends, "
            f"first: {differences[0]}",
        )


async def stop_accepting(ascent: Ascent) -> None:
    await ascent.ground.datapath.set_accepting(False)


async def probe_kube_proxy(ascent: Ascent) -> None:
    await ascent.ground.prober.latest("kube-proxy")


async def end_translated_sockets(ascent: Ascent) -> None:
    programs = await ascent.ground.datapath.programs()
    if not programs.attached:
        return
    if programs.accepting:  # a climb to Shadow does not attach; somebody else's doing must not be cut
        await ascent.ground.datapath.set_accepting(False)
    left = await ascent.ground.datapath.translated_udp()
    until = ascent.grace_until()
    if left and ascent.now() < until:
        raise Waiting(
            f"{left} translated UDP sockets are given until {until:%H:%M:%S} UTC to end by themselves"
        )


async def detach(ascent: Ascent) -> None:
    await ascent.ground.datapath.detach()


async def forget_untranslated_udp(ascent: Ascent) -> None:
    await ascent.ground.conntrack.forget_untranslated_udp()


async def unload(ascent: Ascent) -> None:
    await ascent.ground.table.close()
    await ascent.ground.datapath.unload()


async def remove_keeper(ascent: Ascent) -> None:
    await ascent.ground.rules.remove_keeper()


async def remove_path(ascent: Ascent) -> None:
    await ascent.ground.rules.remove_path()


async def forget(ascent: Ascent) -> None:
    await ascent.ground.rules.forget_snapshot()
    await ascent.ground.prober.forget()


async def put_rules_back_if_missing(ascent: Ascent) -> None:
    """After a reboot, or when somebody else removed them: the snapshot is about to go, this is its last
    chance.
    """
    seen = await ascent.ground.rules.inspect()
    if seen.in_force or not await ascent.ground.rules.snapshot():
        return
    signs = await kube_proxy_signs_unless_unreachable(ascent)
    if signs:
        raise Waiting(f"{signs}; it has not written its rules yet", retry_s=1.0)
    await ascent.ground.rules.restore()


DESCEND: dict[Rung, Step] = {
    Rung.SERVING: Step(
        checks=(),
        acts=(
            Act("putting the keeper in place", ensure_keeper),
            Act("putting kube-proxy's rules back", put_rules_back),
            Act("releasing kube-proxy's health port", release_health_port),
        ),
    ),
    Rung.SHADOW: Step(
        checks=(Act("making sure that kube-proxy serves again", require_kube_proxy_serves),),
        acts=(
            Act("leaving new connections to kube-proxy", stop_accepting),
            Act("probing through kube-proxy", probe_kube_proxy),
        ),
    ),
    Rung.STANDBY: Step(
        checks=(),
        acts=(
            Act("looking for kube-proxy's rules", put_rules_back_if_missing),
            Act("waiting for translated sockets to end", end_translated_sockets),
            Act("detaching", detach),
            Act("removing UDP conntrack entries that hide clients from kube-proxy", forget_untranslated_udp),
            Act("unloading", unload),
            Act("removing the packet path's table", remove_path),
            Act("removing the keeper", remove_keeper),
            Act("removing the snapshot", forget),
        ),
    ),
}
