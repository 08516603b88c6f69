"""What there is of a lab on this machine, found by looking at the machine and not at what the lab remembers.

After `down`, an empty answer is the proof that nothing is left.
"""

from dataclasses import dataclass
from pathlib import Path

from e2e.lab import fabric
from e2e.lab.addressing import netns_path, netns_prefix
from e2e.lab.cgroup import Subtree, hierarchies
from e2e.lab.paths import Scratch


@dataclass(frozen=True, slots=True)
class Remains:
    """Everything of one lab, by kind."""

    processes: tuple[str, ...]
    namespaces: tuple[str, ...]
    mounts: tuple[str, ...]
    cgroups: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def anything(self) -> bool:
        """Whether there is anything at all."""
        return any((self.processes, self.namespaces, self.mounts, self.cgroups, self.files))

    def lines(self) -> list[str]:
        """One line per thing, for people."""
        kinds = ("processes", "namespaces", "mounts", "cgroups", "files")
        singular = ("process", "namespace", "mount", "cgroup", "file")
        return [
            f"{one}: {item}"
            for one, kind in zip(singular, kinds, strict=True)
            for item in getattr(self, kind)
        ]


def mounts_of(mountinfo: str, name: str, scratch: Path) -> list[str]:
    """The mount points that belong to the lab, in the text of /proc/self/mountinfo."""
    points = [line.split()[4] for line in mountinfo.splitlines() if len(line.split()) > 4]
    prefix = f"/run/netns/{netns_prefix(name)}"
    return [p for p in points if p.startswith(prefix) or Path(p).is_relative_to(scratch)]


def of(name: str) -> Remains:
    """Look for everything of the lab."""
    subtree = Subtree(hierarchies(), name)
    namespaces = fabric.existing(name)
    scratch = Scratch.of(name).root
    pids = set(subtree.pids()) | _in_network(_inodes(namespaces))
    return Remains(
        processes=tuple(_describe(pid) for pid in sorted(pids)),
        namespaces=tuple(namespaces),
        mounts=tuple(mounts_of(Path("/proc/self/mountinfo").read_text(), name, scratch)),
        cgroups=tuple(str(d) for d in subtree.directories if d.exists()),
        files=(str(scratch),) if scratch.exists() else (),
    )


def strangers(name: str) -> dict[int, str]:
    """Processes in the lab's network namespaces that are not in its cgroups: somebody used `ip netns
    exec`.
    """
    pids = _in_network(_inodes(fabric.existing(name))) - set(Subtree(hierarchies(), name).pids())
    return {pid: _describe(pid) for pid in sorted(pids)}


def _inodes(namespaces: list[str]) -> set[int]:
    """The identities of named network namespaces; never that of the machine itself, whatever a name
    stands for.
    """
    found = {netns_path(n).stat().st_ino for n in namespaces}
    return found - {Path("/proc/self/ns/net").stat().st_ino}


def _in_network(inodes: set[int]) -> set[int]:
    """Processes in one of these network namespaces, also those that are not in the lab's cgroups."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.add(int(entry.name))
            except OSError:  # ended meanwhile
                continue
    return found


def _describe(pid: int) -> str:
    try:
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        command = "(ended)"
    return f"{pid} {command[:100]}"
