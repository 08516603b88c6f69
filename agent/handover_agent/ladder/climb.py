"""The way up: what must hold before each rung, and what is done to get there, in the order that keeps
connections alive.

The order is the point. Snapshot, keeper and a filled table exist before anything is attached; new connections
are ours before kube-proxy leaves; its rules go only when no kube-proxy can be running here, and when they are
on disk.
"""

from dataclasses import replace

from handover_api.base import Rung

from handover_agent.ladder.ports import Blocked, Waiting
from handover_agent.ladder.step import (
    Act,
    Ascent,
    Step,
    ensure_keeper,
    ensure_path,
    kube_proxy_signs,
    require_current_table,
    require_true_maps,
)

BEHIND_S = 30.0
"""So long kube-proxy may take to write what it has heard of. Of ten thousand Services it needs ten seconds for a change, and
where something changes all the time it is never done."""


async def require_hooks(ascent: Ascent) -> None:
    missing = await ascent.ground.datapath.missing()
    if missing:
        raise Blocked(
            "KernelUnsupported",
            f"this kernel lacks {', '.join(missing)}; leave this node out with spec.nodeSelector, or give "
            "it a newer kernel",
        )


async def require_direct_api_server(ascent: Ascent) -> None:
    if not ascent.ground.cluster.direct():
        raise Blocked(
            "ApiServerNotDirect",
            "the API server is not reached by an address of its own but through its ClusterIP, or not at "
            "all; "
            "this node must reach the addresses in the EndpointSlices of default/kubernetes",
        )


async def require_supported_rules(ascent: Ascent) -> None:
    seen = await ascent.ground.rules.inspect()
    if seen.unsupported:
        raise Blocked("KubeProxyModeUnsupported", seen.unsupported)
    if not seen.in_force:
        signs = await kube_proxy_signs(ascent)
        if signs:
            raise Waiting(f"{signs}, but its rules are not there yet", retry_s=1.0)


async def load_programs(ascent: Ascent) -> None:
    await ascent.ground.datapath.load()


async def compare_with_kube_proxy(ascent: Ascent) -> None:
    """Rules that nobody keeps up (after a reboot, or once kube-proxy has left) say nothing here."""
    if not (await ascent.ground.rules.inspect()).in_force or not await kube_proxy_signs(ascent):
        return
    differences = await ascent.ground.rules.parity(BEHIND_S)
    if differences:
        raise Blocked(
            "ParityDiffers",
            f"{len(differences)} frontends differ from what kube-proxy's rules do, first: {differences[0]}",
        )


async def take_snapshot(ascent: Ascent) -> None:
    """Rules in force are worth more than an older snapshot, and that is worth more than nothing.

    When a flush was interrupted, the taker keeps what the snapshot has of the places that are empty already.
    """
    rules = ascent.ground.rules
    if (await rules.inspect()).in_force or not await rules.snapshot():
        await rules.take_snapshot()
    if not await rules.snapshot():
        raise Blocked(
            "SnapshotUnreadable",
            "the snapshot was written but cannot be read back; is the disk of the state directory full?",
        )


async def probe_baseline(ascent: Ascent) -> None:
    if (await ascent.ground.rules.inspect()).in_force and not (
        await ascent.ground.datapath.programs()
    ).serving:
        await ascent.ground.prober.baseline()


async def attach(ascent: Ascent) -> None:
    """Without kube-proxy's rules there is nobody who would serve until every device has its programs."""
    seen = await ascent.ground.rules.inspect()
    await ascent.ground.datapath.attach(alone=not seen.in_force)
    await ascent.ground.datapath.set_accepting(True)
    if not (await ascent.ground.datapath.programs()).serving:
        raise Blocked("NotAttached", "the programs were attached, but the kernel does not list them as such")


async def require_serving(ascent: Ascent) -> None:
    if not (await ascent.ground.datapath.programs()).serving:
        await attach(ascent)
    await ascent.ground.datapath.follow()


async def require_no_kube_proxy_pod(ascent: Ascent) -> None:
    pods = await ascent.ground.cluster.kube_proxy_pods()
    if pods:
        _forget_flush(ascent)
        raise Blocked(
            "KubeProxyRunning",
            f"nothing is flushed while kube-proxy runs here: the API server lists {', '.join(pods)}",
        )


async def bind_health_port(ascent: Ascent) -> None:
    try:
        await ascent.ground.port.bind()
    except Blocked:
        _forget_flush(ascent)
        raise


async def flush(ascent: Ascent) -> None:
    """What could have changed since the checks is asked once more, as the very last thing before the flush."""
    rules, journal = ascent.ground.rules, ascent.journal
    if not ascent.ground.port.held:
        raise Blocked("HealthPortNotHeld", "nothing is flushed before kube-proxy's health port is ours")
    if not (await rules.inspect()).leftovers:
        return
    journal.write(replace(journal.record, flushing=True))
    await require_no_kube_proxy_pod(ascent)
    await rules.flush()


async def require_nothing_left(ascent: Ascent) -> None:
    left = (await ascent.ground.rules.inspect()).leftovers
    if left:
        raise Blocked(
            "Leftovers", f"{len(left)} of kube-proxy's tables and chains are still there, first: {left[0]}"
        )


async def reconcile_udp(ascent: Ascent) -> None:
    await ascent.ground.conntrack.reconcile_udp()


def _forget_flush(ascent: Ascent) -> None:
    """A kube-proxy that runs writes all of its rules again: they, not the snapshot, are the truth from now
    on.
    """
    record = ascent.journal.record
    if record.flushing:
        ascent.journal.write(replace(record, flushing=False))


CLIMB: dict[Rung, Step] = {
    Rung.SHADOW: Step(
        checks=(
            Act("looking for the kernel's hooks", require_hooks),
            Act("waiting for Services and EndpointSlices", require_current_table),
            Act("looking for the API server's own address", require_direct_api_server),
            Act("reading kube-proxy's rules", require_supported_rules),
        ),
        acts=(
            Act("loading the programs", load_programs),
            Act("filling the maps", require_true_maps),
            Act("comparing with kube-proxy's rules", compare_with_kube_proxy),
            Act("putting the keeper in place", ensure_keeper),
            Act("taking a snapshot of kube-proxy's rules", take_snapshot),
            Act("probing through kube-proxy", probe_baseline),
        ),
    ),
    Rung.SERVING: Step(
        checks=(
            Act("waiting for a current table", require_current_table),
            Act("comparing the maps with the API", require_true_maps),
        ),
        acts=(
            Act("putting the keeper in place", ensure_keeper),
            Act("putting the packet path's table in place", ensure_path),
            Act("attaching: new connections become ours", attach),
        ),
    ),
    Rung.SOLE: Step(
        checks=(
            Act("waiting for a current table", require_current_table),
            Act("looking for the API server's own address", require_direct_api_server),
            Act("making sure that kube-proxy is gone", require_no_kube_proxy_pod),
        ),
        acts=(
            Act("putting the packet path's table in place", ensure_path),
            Act("making sure that new connections are ours", require_serving),
            Act("comparing the maps with the API", require_true_maps),
            Act("taking over kube-proxy's health port", bind_health_port),
            Act("putting the keeper in place", ensure_keeper),
            Act("taking a fresh snapshot of kube-proxy's rules", take_snapshot),
            Act("removing kube-proxy's rules", flush),
            Act("looking for what is left of kube-proxy's rules", require_nothing_left),
            Act("removing stale UDP conntrack entries", reconcile_udp),
        ),
    ),
}
