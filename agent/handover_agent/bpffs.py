"""Our directory in the bpffs: what is pinned, where, and how it is put there and taken away.

    <pins>/maps-<layout>/<map>           the maps, shared by all versions of one layout
    <pins>/maps-<layout>+<n>/<map>       the same after some have been replaced by larger ones n times
    <pins>/programs-<version>/<hook>     a complete set of programs, renamed into place when it is
    <pins>/programs-<version>+<n>/<hook> the same, using those larger maps
    <pins>/loading/<hook>                a set that is being loaded, or was when somebody was killed
    <pins>/growing/<map>                 maps that are being filled, or were
    <pins>/next/maps/<map>               maps of a newer layout that are being filled, or were (see `takeover`)
    <pins>/next/programs-<version>/<hook> programs that use them, in a second row behind those in force until entries
                                         have changed over, and <pins>/next/{links,devices}/ for their attachments
    <pins>/links/<hook>                  the attachments; a program runs exactly as long as its link exists
    <pins>/devices/<index>-<direction>   the same on devices (tcx)
    <pins>/devices/<index>-clsact/       a device on which we made the qdisc for our filters (before Linux 6.6)

Names have no dots: the bpffs keeps those for itself.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handover_agent.bpfmap import map_create, map_info
from handover_agent.bpfsys import DatapathError, Descriptor, obj_get, pin
from handover_agent.layout import LAYOUT, MapSpec, Sizes, map_specs


class NoBpffs(DatapathError):
    """The pins' directory is not in a bpffs."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not in a bpffs: mount one on the node "
            "(mount -t bpf bpf /sys/fs/bpf) and into the agent's pod"
        )


class LayoutMismatch(DatapathError):
    """Maps are pinned whose content we cannot carry over: we cannot use them, and replacing them would end connections."""

    def __init__(self, found: str, wanted: str, path: Path, why: str = "") -> None:
        super().__init__(
            f"pinned maps in {path} have layout {found}, this agent has layout {wanted} and cannot take them over"
            f"{f' ({why})' if why else ''}. Nothing was changed, and what is attached goes on serving. Go back to the "
            "agent that pinned them; to change to this one all the same, take the node down to Standby with that "
            "agent first"
        )
        self.found, self.wanted = found, wanted


class Pins:
    """Paths below our directory in the bpffs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.links = root / "links"
        self.devices = root / "devices"
        self.loading = root / "loading"
        self.growing = root / "growing"
        self.next = root / "next"
        self.next_maps = self.next / "maps"
        self.next_links = self.next / "links"
        self.next_devices = self.next / "devices"

    @property
    def generation(self) -> int:
        """How often maps have been replaced by larger ones."""
        tails = (path.name.partition("+")[2] for path in self._children(f"maps-{LAYOUT}+"))
        return max((int(tail) for tail in tails if tail.isdigit()), default=0)

    @property
    def maps(self) -> Path:
        """Where the maps of this agent's layout that are in use are pinned."""
        return self.maps_of(self.generation)

    @property
    def layouts(self) -> dict[str, Path]:
        """Every layout of which maps are pinned, the oldest first, and where those of it are that are in use."""
        found: dict[str, list[tuple[int, Path]]] = {}
        for path in self._children("maps-"):
            layout, _, generation = path.name.removeprefix("maps-").partition("+")
            found.setdefault(layout, []).append((int(generation) if generation.isdigit() else 0, path))
        return {layout: max(found[layout])[1] for layout in sorted(found, key=lambda one: (len(one), one))}

    @property
    def in_force(self) -> Path:
        """Where the maps are that the attached programs use, of whatever layout."""
        return self.layouts.get(str(LAYOUT)) or next(iter(self.layouts.values()), self.maps)

    @property
    def unsettled(self) -> bool:
        """Whether there is anything of another layout, or of a take-over that did not come to its end."""
        return self.next.exists() or any(layout != str(LAYOUT) for layout in self.layouts)

    def maps_of(self, generation: int) -> Path:
        """Where the maps of a generation are."""
        return self.root / (f"maps-{LAYOUT}+{generation}" if generation else f"maps-{LAYOUT}")

    def programs(self, version: str) -> Path:
        """Where the programs of a version are."""
        return self.root / f"programs-{version}"

    def next_programs(self, version: str) -> Path:
        """Where the second row's are. They are not the same ones once more: see docs/adr/0021."""
        return self.next / f"programs-{version}"

    @property
    def next_version(self) -> str:
        """Which version the second row is of; "" when there is none."""
        found = self.next.glob("programs-*") if self.next.is_dir() else ()
        return next((path.name.removeprefix("programs-") for path in found), "")

    def versions(self) -> list[str]:
        """The versions of which a complete set of programs is pinned."""
        return sorted(path.name.removeprefix("programs-") for path in self._children("programs-"))

    def check_layout(self) -> None:
        """Raise LayoutMismatch when maps are pinned, and none of our layout."""
        if str(LAYOUT) not in self.layouts:
            for found, path in self.layouts.items():
                raise LayoutMismatch(found, str(LAYOUT), path)

    def remove_old_maps(self) -> None:
        """Unpin what larger maps have replaced, and maps of other versions; programs that still use them keep them."""
        for path in self._of_layout(str(LAYOUT)):
            if path != self.maps:
                self.remove(path)
        ours = {spec.name for spec in map_specs(Sizes())}
        for path in (
            self.maps.iterdir() if self.maps.is_dir() else ()
        ):  # it finishes another layout's take-over
            if path.name not in ours:
                self.remove(path)

    def remove_layout(self, layout: str) -> None:
        """Unpin every map of a layout; programs that still use them keep them."""
        for path in self._of_layout(layout):
            self.remove(path)

    @contextmanager
    def locked(self, make: bool = True) -> Iterator[None]:
        """Keep everybody else, other threads too, from changing the directory.

        Where it is not there it is made, or else (not `make`) there is nothing to keep anybody from: what looks at pins or
        changes them must not leave a directory to a node that was just cleaned.
        """
        check_bpffs(self.root)
        while True:
            if make:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if make:
                    continue  # removed again just now
                yield
                return
            fcntl.flock(fd, fcntl.LOCK_EX)
            if self.root.exists() and self.root.stat().st_ino == os.fstat(fd).st_ino:
                break
            os.close(fd)  # removed by an unload while we waited
        try:
            yield
        finally:
            os.close(fd)

    def ensure_maps(self, specs: Iterable[MapSpec]) -> None:
        """Create and pin the maps that are missing; keep what is there, with its content and its capacity."""
        self.maps.mkdir(mode=0o700, exist_ok=True)
        for spec in specs:
            path = self.maps / spec.name
            if not path.exists():
                with create(spec) as created:
                    pin(created.fd, path)
                continue
            with obj_get(path) as existing:
                info = map_info(existing.fd)
            found = (info.type, info.key_bytes, info.value_bytes)
            if found != (spec.type, spec.key_bytes, spec.value_bytes):
                raise LayoutMismatch(
                    f"{LAYOUT}, but {spec.name} has (type, key, value) {found}", str(LAYOUT), path
                )

    def remove(self, path: Path) -> None:
        """Remove a pin, or a directory with all its pins; nothing happens when it is not there."""
        if path.is_dir():
            for child in path.iterdir():
                self.remove(child)
            try:
                path.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY:  # a mount point: the directory is not ours
                    raise
        else:
            path.unlink(missing_ok=True)

    def _of_layout(self, layout: str) -> list[Path]:
        return [path for path in self._children("maps-") if path.name[5:].partition("+")[0] == layout]

    def _children(self, prefix: str) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [path for path in self.root.iterdir() if path.name.startswith(prefix)]


def create(spec: MapSpec) -> Descriptor:
    """A map, not pinned yet. Raises BpfError."""
    sizes = (spec.key_bytes, spec.value_bytes, spec.max_entries)
    return map_create(spec.type, *sizes, spec.name, flags=spec.flags)


def check_bpffs(path: Path) -> None:
    """Raise NoBpffs when `path` would not be in a bpffs."""
    if filesystem(mountinfo(), path) != "bpf":
        raise NoBpffs(path)


def mountinfo(file: Path = Path("/proc/self/mountinfo")) -> str:
    """What is mounted where, as proc(5) describes it. A path may have any bytes: the node's own are not ours to choose."""
    return file.read_text(encoding="utf-8", errors="surrogateescape")


def filesystem(mountinfo: str, path: Path) -> str:
    """The type of the file system that `path` is in, by the text of /proc/self/mountinfo."""
    best, kind = -1, ""
    for point, fstype in mounts(mountinfo):
        if path.is_relative_to(point) and len(point.parts) >= best:  # a later mount covers an earlier one
            best, kind = len(point.parts), fstype
    return kind


def mounts(mountinfo: str) -> Iterator[tuple[Path, str]]:
    """Mount points with their file systems' types (proc(5): the fields after the lone dash)."""
    for line in mountinfo.split("\n"):
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4:
            yield Path(_unescaped(fields[4])), after.split(" ")[0]


def _unescaped(field: str) -> str:
    """Blanks and backslashes are written as in \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
