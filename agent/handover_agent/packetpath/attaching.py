"""Brings the programs on a node's devices in line with what its devices are.

Nothing is remembered here: what is attached is read from the kernel, what should be from its list of devices.
So the same call attaches at first, follows pods that come and go, swaps programs for another version's, and goes
on after a kill at any instruction.
"""

import errno
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol as Interface

from handover_agent.bpfsys import BpfError, DatapathError, obj_get, program_id
from handover_agent.devices import Place
from handover_agent.hooks import NODE_PROGRAMS
from handover_agent.packetpath import switches
from handover_agent.packetpath.clsact import BEHIND, PRIORITY, Clsact
from handover_agent.packetpath.points import Direction, Point, wanted
from handover_agent.packetpath.tcx import Tcx
from handover_agent.rtnetlink import NetlinkError

_DEVICE_GONE = frozenset({errno.ENODEV, errno.ENXIO})


class NotAttached(DatapathError):
    """Some devices are without their programs."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{len(self.problems)} devices are not served, packets that come in there would not be "
            f"translated; first: {self.problems[0]}"
        )


class Means(Interface):
    """One of the two ways to have a program run at a point."""

    @property
    def directory(self) -> Path: ...
    def attached(self) -> dict[Point, int]: ...
    def attach(self, point: Point, program: Path) -> None: ...
    def detach(self, point: Point) -> None: ...
    def tidy(self) -> None: ...


def means(directory: Path, tcx: bool, behind: bool = False) -> Means:
    """The better way, or the one that kernels before 6.6 have.

    `behind`: for a second row of programs, which get what those that were attached before leave alone; it has a
    directory of its own.
    """
    return Tcx(directory) if tcx else Clsact(directory, BEHIND if behind else PRIORITY)


def align(
    how: Means, programs: Path, places: Iterable[Place], only: Collection[Point] | None = None
) -> list[str]:
    """Have each device's programs of the directory `programs` run, and none where none belongs (or not `only` there).

    Returns what is wrong with devices that are without their programs. A device that goes meanwhile is not.
    """
    how.tidy()
    places = tuple(places)
    should, there = wanted(places, lacking(programs)), how.attached()
    if only is not None:
        should = {point: name for point, name in should.items() if point in only}
    names = {place.device.index: place.device.name for place in places}
    ids = _ids(programs, should)
    for point in _inward_first(there.keys() - should.keys()):
        how.detach(point)
    problems: dict[int, str] = {}
    if only is None and "to_itself" in should.values():
        switches.turn_on(how.directory)  # the second row has its own directory, and goes first: these stay
    elif only is None:
        switches.restore(how.directory)
    for point, name in should.items():
        if there.get(point) == ids[name] or point.index in problems:
            continue  # a device without its way out must not get its way in
        try:
            how.attach(point, programs / name)
        except (BpfError, NetlinkError) as error:
            if error.errno not in _DEVICE_GONE:
                problems[point.index] = f"{names[point.index]}: {error}"
    return list(problems.values())


def lacking(programs: Path) -> frozenset[str]:
    """Programs that are not in a directory of pinned ones: before Linux 5.10, those for what the node itself sends."""
    return frozenset(hook.name for hook in NODE_PROGRAMS if not (programs / hook.name).exists())


def running(directory: Path, behind: bool = False) -> dict[Point, int]:
    """Where programs run for us, whichever way they got there, and their ids."""
    return means(directory, False, behind).attached() | means(directory, True, behind).attached()


def detach(
    directory: Path, directions: Collection[Direction] = tuple(Direction), behind: bool = False
) -> None:
    """Take programs off every device, the way in before the way out; none of them runs when this returns."""
    for how in (means(directory, True, behind), means(directory, False, behind)):
        for point in _inward_first(how.attached()):
            if point.direction in directions:
                how.detach(point)
        how.tidy()
    if Direction.EGRESS in directions:
        switches.restore(directory)


def _ids(programs: Path, should: Mapping[Point, str]) -> dict[str, int]:
    found = {}
    for name in set(should.values()):
        with obj_get(programs / name) as program:
            found[name] = program_id(program.fd)
    return found


def _inward_first(points: Iterable[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point.direction is Direction.EGRESS, point))
