"""The processes of a pod, found by its cgroup; and killing them, as a crash would: without a word to Kubernetes."""

import contextlib
import os
import signal
from pathlib import Path

from e2e.kube import Object
from e2e.lab import Lab

_PAUSE = "pause"


def kill(lab: Lab, pod: Object) -> int:
    """SIGKILL to all processes of a pod's containers; returns how many there were."""
    killed = 0
    for pid in pids(lab, pod):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def pids(lab: Lab, pod: Object) -> list[int]:
    """The processes of a pod's containers, as this machine numbers them."""
    directory = lab.node(pod["spec"]["nodeName"]).cgroup
    uid = pod["metadata"]["uid"]
    names = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    found = []
    for group, _, _ in os.walk(directory):  # which passes over groups that vanish while we look
        if any(part.endswith(names) or f"{names[1]}.slice" in part for part in Path(group).parts):
            found += [pid for pid in _pids(Path(group) / "cgroup.procs") if _comm(pid) != _PAUSE]
    return found


def _pids(groups: Path) -> list[int]:
    with contextlib.suppress(OSError):  # gone while we looked
        return [int(line) for line in groups.read_text().split()]
    return []


def _comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
