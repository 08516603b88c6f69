"""The lab's part of the machine's cgroups, which is also the list of its processes.

Everything that a lab starts lives under `handover-lab/<lab>/<part>` in every cgroup hierarchy: a program
attached to a node's subtree sees that node alone, and taking a lab down means killing what is in its
subtree, nothing that was found by name. Machines with cgroup v2 alone and hybrid ones (v1 controllers, v2
without) both work.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.wait import until

TOP = "handover-lab"
# What a process of a node's own (not of a pod) lives in: with cgroup v2, a group that has children has no
# processes.
LEAF = "system"
# A group counts as one process against all others of the machine; labs are many, and a test's pods must not starve.
WEIGHT = 16


@dataclass(frozen=True, slots=True)
class V1Hierarchy:
    """One cgroup v1 mount: where it is, and the options that mount it again inside a node."""

    path: Path
    options: str


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The cgroup mounts of this machine."""

    unified: Path
    v1: tuple[V1Hierarchy, ...]


def parse_mounts(mountinfo: str) -> Hierarchies:
    """Find the cgroup mounts in the text of /proc/self/mountinfo."""
    unified: Path | None = None
    v1: dict[str, V1Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3 or fields[3] != "/":
            continue
        path = Path(fields[4])
        if not path.is_relative_to("/sys/fs/cgroup"):
            continue
        if tail[0] == "cgroup2":
            unified = unified or path
        elif tail[0] == "cgroup":
            own = [
                o
                for o in tail[2].split(",")
                if o not in {"rw", "ro", "xattr"} and not o.startswith("release_agent")
            ]
            named = any(o.startswith("name=") for o in own)
            options = ",".join((["none"] if named else []) + own)
            v1.setdefault(options, V1Hierarchy(path, options))
    if unified is None:
        raise LabError(
            "no cgroup v2 hierarchy is mounted below /sys/fs/cgroup", "mount one: cgroup programs need it"
        )
    return Hierarchies(unified, tuple(v1.values()))


def hierarchies() -> Hierarchies:
    """The cgroup mounts of the machine this runs on."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text())


@dataclass(frozen=True, slots=True)
class Subtree:
    """`handover-lab/<lab>[/<part>]` in every hierarchy."""

    where: Hierarchies
    name: str

    def part(self, name: str) -> "Subtree":
        """The subtree of one part of the lab (a node, the control plane)."""
        return Subtree(self.where, f"{self.name}/{name}")

    @property
    def unified(self) -> Path:
        """The cgroup v2 directory: what programs are attached to."""
        return self.where.unified / TOP / self.name

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directory in each hierarchy, v2 first."""
        return (self.unified, *(h.path / TOP / self.name for h in self.where.v1))

    @property
    def exists(self) -> bool:
        """Whether anything of it is there."""
        return any(d.exists() for d in self.directories)

    def create(self) -> None:
        """Make the directories, ready for processes: cpusets filled, v2 controllers handed down."""
        parents = [Path(TOP)]
        for step in Path(self.name).parts:
            parents.append(parents[-1] / step)
        for hierarchy in self.where.v1:
            for relative in parents:
                directory = hierarchy.path / relative
                directory.mkdir(exist_ok=True)
                if "cpu" in hierarchy.options.split(",") and relative == parents[0]:
                    (directory / "cpu.shares").write_text(str(1024 * WEIGHT))
                if "cpuset" in hierarchy.options.split(","):
                    for knob in ("cpuset.cpus", "cpuset.mems"):
                        (directory / knob).write_text((directory.parent / knob).read_text())
        above = self.where.unified
        for relative in parents:
            directory = self.where.unified / relative
            directory.mkdir(exist_ok=True)
            hand_down(above)
            with contextlib.suppress(OSError):  # no cpu controller here: then it is in a v1 hierarchy
                if relative == parents[0]:
                    (directory / "cpu.weight").write_text(str(100 * WEIGHT))
            above = directory
        (self.unified / LEAF).mkdir(exist_ok=True)

    def joining(self, argv: Iterable[str], *, leaf: bool = True) -> list[str]:
        """The command that enters this subtree in every hierarchy and then becomes `argv`."""
        unified = self.unified / LEAF if leaf else self.unified
        targets = (unified, *self.directories[1:])
        script = (
            'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
        )
        return ["sh", "-c", script, "sh", *(str(t) for t in targets), "--", *argv]

    def settle(self) -> None:
        """Move processes from the node's own group to its leaf, then hand the v2 controllers down
        to the pods' groups.
        """

        def empty() -> bool:
            for pid in (found := _pids(self.unified)):  # one of them may fork meanwhile: hence again
                with contextlib.suppress(ProcessLookupError):
                    (self.unified / LEAF / "cgroup.procs").write_text(str(pid))
            return not found

        until(empty, what=f"the processes of {self.name} are in their leaf", timeout_s=10, every_s=0.01)
        hand_down(self.unified)

    def pids(self) -> list[int]:
        """Every process in the subtree, by any hierarchy."""
        found: set[int] = set()
        for directory in self.directories:
            for group in _groups(directory):
                found.update(_pids(group))
        return sorted(found - {0})

    def kill(self, *, timeout_s: float = 20) -> None:
        """Kill what is in the subtree (and only that) and return when it is gone."""
        until(
            lambda: not self._kill_once(),
            what=f"the processes of {self.name} are gone",
            timeout_s=timeout_s,
            every_s=0.05,
        )

    def remove(self) -> None:
        """Remove the directories, and whoever still joins them meanwhile; parents that are shared stay.

        A process that was started just before `kill` may join just after it; once the directory is gone it
        cannot.
        """
        for directory in self.directories:
            for group in _groups(directory):
                until(
                    partial(self._rmdir, group),
                    what=f"the cgroup {group} can be removed",
                    timeout_s=20,
                    every_s=0.05,
                )
            with contextlib.suppress(OSError):
                for parent in list(directory.parents)[: len(Path(self.name).parts)]:
                    parent.rmdir()

    def _rmdir(self, group: Path) -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            self._kill_once()
            return False
        return True

    def _kill_once(self) -> list[int]:
        """Send SIGKILL to all; returns who was there."""
        for pid in (alive := self.pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return alive


def hand_down(directory: Path) -> None:
    """Let the children of a v2 group have the controllers that it has itself."""
    controllers = (directory / "cgroup.controllers").read_text().split()
    have = set((directory / "cgroup.subtree_control").read_text().split())
    for controller in controllers:
        if controller not in have:
            # One by one: a machine may refuse one of them (rt tasks and cpu), which the lab can live without.
            with contextlib.suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _groups(directory: Path) -> Iterator[Path]:
    """The directory and all below, children first."""
    for path, _, _ in os.walk(directory, topdown=False):
        yield Path(path)


def _pids(group: Path) -> list[int]:
    try:
        return [int(p) for p in (group / "cgroup.procs").read_text().split()]
    except OSError:  # removed meanwhile, or a threaded group: its threads are listed in its parent
        return []
