"""How a lab comes and goes: at the end of the way up, either the lab is up or nothing is left of it."""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.lab import binaries, fabric, host, images, packages, pki, preload, remains, signals
from e2e.lab.addressing import DNS4, PODS4, PODS6
from e2e.lab.builder import Image
from e2e.lab.errors import LabError
from e2e.lab.manifests import render
from e2e.lab.paths import locked
from e2e.lab.progress import Progress
from e2e.lab.settings import Settings
from e2e.lab.wait import until

if TYPE_CHECKING:
    from e2e.lab.cluster import Lab


def up(lab: "Lab", extra: Sequence[Image]) -> bool:
    """See Lab.up."""
    host.check()
    with signals.unwinding(), _locked(lab):
        saved = Settings.load(lab.scratch.state)
        dead = lab.dead() if saved else ["it never came up completely"]
        if saved and not dead:
            if saved != lab.settings:
                raise LabError(
                    f"lab {lab.name} runs with other settings: {saved}",
                    f"handover-lab --name {lab.name} down, or choose another --name",
                )
            # All is there; a busy machine may make it slow, which is no reason to throw it away.
            until(
                lambda: not lab.problems(),
                what=f"lab {lab.name}, which runs already, is well",
                timeout_s=90,
                details=lambda: f"{'; '.join(lab.problems())}: handover-lab --name {lab.name} down, then up",
            )
            lab.progress.say(f"lab {lab.name} is up already: nothing to do")
            return False
        if remains.of(lab.name).anything:
            lab.progress.say(f"lab {lab.name} is half there ({'; '.join(dead)}): again from the start")
            _remove(lab)
        wanted = [*_prepare(lab.progress), *extra]
        preloaded = preload.ensure(wanted, lab.progress)
        try:
            _create(lab, preloaded)
            lab.remember_loaded(wanted)
            lab.settings.save(lab.scratch.state)
        except BaseException:
            with signals.ignored():
                lab.progress.say("not finished: cleaning up")
                _join_workers(lab)
                _keep_logs(lab)
                _remove(lab)
            raise
        shutil.rmtree(lab.scratch.failed, ignore_errors=True)
        lab.progress.say(f"lab {lab.name} is up")
    return True


def down(lab: "Lab") -> bool:
    """See Lab.down."""
    host.check_root()
    with _locked(lab):
        there = remains.of(lab.name).anything
        with signals.ignored():
            _remove(lab)
            shutil.rmtree(lab.scratch.failed, ignore_errors=True)
            with contextlib.suppress(OSError):  # another lab's files are there, or no directory is
                lab.scratch.root.parent.rmdir()
    return there


def _workers(lab: "Lab") -> str:
    return f"handover-lab {lab.name}"


def _join_workers(lab: "Lab") -> None:
    """A signal in the very moment in which a pool starts a thread leaves one that the pool does not wait for."""
    for thread in threading.enumerate():
        if thread.name.startswith(_workers(lab)):
            thread.join()


def _locked(lab: "Lab") -> contextlib.AbstractContextManager[None]:
    message = f"another command works on lab {lab.name}: waiting for it"
    return locked(lab.name, lambda: lab.progress.say(message))


def _prepare(progress: Progress) -> list[Image]:
    """Packages, binaries and images: what is kept from lab to lab."""
    packages.ensure(packages.RUNNING, progress)
    host.check_features()
    binaries.ensure(progress)
    return images.for_cluster(progress)


def _create(lab: "Lab", preloaded: Path) -> None:
    say = lab.progress.say
    say(f"lab {lab.name}: {lab.settings}")
    lab.scratch.root.mkdir(parents=True, mode=0o755)
    pki.create(lab.scratch.pki, lab.plan)
    fabric.create(lab.plan)
    lab.subtree.part("client").create()
    lab.control.create()
    say("control plane started; starting nodes")
    nodes = lab.nodes
    with ThreadPoolExecutor(4, thread_name_prefix=_workers(lab)) as pool:
        list(pool.map(lambda node: node.create(preloaded), nodes))
    lab.wait_apiserver()
    say("API server ready; starting kubelets")
    for node in nodes:
        node.start_kubelet()
    _create_system(lab, "kube-proxy.yaml")
    wanted = {n.name for n in nodes}
    until(
        lambda: lab.ready_nodes() >= wanted,
        what="all nodes are Ready",
        timeout_s=120,
        every_s=0.3,
    )
    say(f"{len(wanted)} nodes Ready; waiting for kube-proxy and CoreDNS")
    lab.rollout("daemonset/kube-proxy", "kube-system")
    # Not before: its pods are spread over all nodes, and need a Service at once to reach the API server.
    _create_system(lab, "coredns.yaml")
    lab.rollout("deployment/coredns", "kube-system")


def _create_system(lab: "Lab", manifest: str) -> None:
    values = {
        "API": lab.plan.api_url,
        "PODS4": PODS4,
        "PODS6": PODS6,
        "DNS": DNS4,
        "MODE": lab.settings.mode,
        "KUBE_PROXY": images.KUBE_PROXY,
        "COREDNS": images.COREDNS,
    }
    # Created, not applied, and by this name: managedFields are then as after `kubeadm init`.
    lab.kubectl("create", "--field-manager=kubeadm", "-f", "-", stdin=render(manifest, values))


def _remove(lab: "Lab") -> None:
    subtree = lab.subtree
    with signals.ignored():
        subtree.kill()
        for pid, command in remains.strangers(lab.name).items():
            lab.progress.say(f"killing {pid}, started in this lab's network by hand: {command}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        fabric.remove(lab.name)
        subtree.remove()
        if lab.scratch.root.exists():
            shutil.rmtree(lab.scratch.root)


def _keep_logs(lab: "Lab") -> None:
    """The logs of a lab that did not come up, beside its files, which are removed."""
    kept = lab.scratch.failed
    shutil.rmtree(kept, ignore_errors=True)
    logs = sorted(lab.scratch.root.glob("**/*.log"))
    for log in logs:
        target = kept / log.relative_to(lab.scratch.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(log, target)
    if logs:
        lab.progress.say(f"logs are kept in {kept}")
