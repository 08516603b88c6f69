"""`handover-agent cleanup`: this node without us, as it was before, whatever state it is in.

For when the operator is gone and nobody takes the node down the ladder any more. Where kube-proxy's rules
have been removed, nobody would serve afterwards: that needs --force, and puts the snapshot back first.
"""

import os
import shutil
from collections.abc import Iterator

from handover_agent import kubeproxy
from handover_agent.datapath import Datapath
from handover_agent.health.listening import listeners
from handover_agent.kubeproxy import KubeProxyError, Snapshot, keeper
from handover_agent.node import find_cgroup_anywhere
from handover_agent.packetpath import handing, rules
from handover_agent.settings import Settings
from handover_agent.state import AnotherAgent


class CleanupRefused(Exception):
    """Nothing more is removed; says why and what to do."""


def clean(settings: Settings, *, force: bool) -> Iterator[str]:
    """Remove what is ours, step by step, telling each. Raises CleanupRefused."""
    try:
        handle = settings.state.lock()
    except AnotherAgent as error:
        raise CleanupRefused(
            f"the agent is running: {error}. Take the node down with the operator (spec.target: "
            "KubeProxy), or "
            "delete the agent's DaemonSet first"
        ) from error
    try:
        yield from _clean(settings, force=force)
        shutil.rmtree(settings.state_dir, ignore_errors=True)
        yield f"removed {settings.state_dir}"
    except (KubeProxyError, OSError) as error:
        raise CleanupRefused(
            f"stopped: {error}. What was not removed is still in place; run cleanup again"
        ) from error
    finally:
        os.close(handle)


def _clean(settings: Settings, *, force: bool) -> Iterator[str]:
    datapath = Datapath(settings.pins, settings.cgroup or find_cgroup_anywhere(settings.cgroup_search))
    snapshot = Snapshot.load(settings.state.snapshot) if Snapshot.is_there(settings.state.snapshot) else None
    if kubeproxy.inspect().rule_count == 0 or _half_restored(snapshot, settings):
        if not force:
            raise CleanupRefused(
                "kube-proxy's rules are not in force on this node, or not all of them: without our datapath nobody would serve "
                "Services. "
                "Start kube-proxy here first, or use --force, which puts the snapshot back if there is one"
            )
        if snapshot is not None:
            places = snapshot.restore()
            yield f"put back kube-proxy's rules: {', '.join(places) or 'as they were'}"
        else:
            yield "there is no snapshot of kube-proxy's rules: nobody serves Services here until kube-proxy runs"
    if datapath.state().attached:
        datapath.set_accepting(False)
    datapath.unload()
    yield f"detached and unloaded the datapath, removed {settings.pins}"
    rules.remove()
    handing.unguard()
    keeper.remove()
    yield "removed the packet path's table and the keeper"


def _half_restored(snapshot: Snapshot | None, settings: Settings) -> bool:
    """Whether somebody was interrupted while the snapshot went back, and no kube-proxy runs that writes all of its rules."""
    return snapshot is not None and snapshot.flushing and not listeners(settings.proxy_health_port)
