"""Programs on devices by tcx links (Linux 6.6): pinned, swapped in one step, gone with their device.

A link runs next to whatever else is attached, before any classic filter, and outlives the agent by its pin.
When its device goes, the kernel takes the link off, but its pin stays until somebody removes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from handover_agent.bpfsys import (
    DeviceLink,
    device_link_info,
    link_create,
    link_detach,
    link_update,
    obj_get,
    pin,
    program_id,
)
from handover_agent.packetpath.points import Direction, Point

_ATTACH_TYPE = {Direction.INGRESS: 46, Direction.EGRESS: 47}  # enum bpf_attach_type


@dataclass(frozen=True, slots=True)
class Tcx:
    """The links pinned in `directory`."""

    directory: Path

    def attached(self) -> dict[Point, int]:
        """Where programs run, and the ids of these programs. Pins of devices that are gone do not count."""
        return {point: info.program_id for point, info in self._links() if info.index == point.index}

    def attach(self, point: Point, program: Path) -> None:
        """Have the pinned program run there; swaps what runs there for us. Raises BpfError."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(point)
        info = _info(path)
        if info and info.index != point.index:  # a device that had this number before
            path.unlink()
            info = None
        with obj_get(program) as opened:
            if info is None:
                where = f"{program.name} at {point}"
                with link_create(opened.fd, point.index, _ATTACH_TYPE[point.direction], where) as link:
                    pin(link.fd, path)
            elif info.program_id != program_id(opened.fd):
                with obj_get(path) as link:
                    link_update(link.fd, opened.fd, str(path))

    def detach(self, point: Point) -> None:
        """Have no program of ours run there when this returns. Idempotent."""
        path = self._path(point)
        info = _info(path)
        if info is None:
            return
        if info.index:
            with obj_get(path) as link:
                link_detach(link.fd, str(path))
        path.unlink()

    def tidy(self) -> None:
        """Remove the pins of links whose device is gone."""
        for point, info in list(self._links()):
            if info.index != point.index:
                self._path(point).unlink(missing_ok=True)

    def _links(self) -> Iterator[tuple[Point, DeviceLink]]:
        if not self.directory.is_dir():
            return
        for path in self.directory.iterdir():
            point = _point(path.name)
            info = _info(path) if point else None
            if point and info:
                yield point, info

    def _path(self, point: Point) -> Path:
        return self.directory / f"{point.index}-{point.direction}"


def _point(name: str) -> Point | None:
    index, _, direction = name.partition("-")
    return (
        Point(int(index), Direction(direction)) if index.isdigit() and direction in set(Direction) else None
    )


def _info(path: Path) -> DeviceLink | None:
    try:
        with obj_get(path) as link:
            return device_link_info(link.fd)
    except FileNotFoundError:
        return None
