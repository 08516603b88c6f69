"""Programs on devices by classic filters, for kernels before 6.6: one filter per direction, in direct action.

Filters hang on the qdisc `clsact`, of which a device has at most one, whoever made it. Ours are known by priority
and handle, and by their name; others' are left alone. A qdisc that we made goes when the last filter has gone; a
directory among our pins says that we made it, written before it is made.

On a device with the qdisc `ingress` (traffic shaping by the CNI plug-in `bandwidth` makes one) there is no room for
`clsact`: that is an error which names the device.
"""

import contextlib
import errno
import struct
from dataclasses import dataclass
from pathlib import Path

from handover_agent.bpfsys import obj_get
from handover_agent.packetpath.points import Direction, Point
from handover_agent.rtnetlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    NetlinkError,
    RouteSocket,
    attribute,
    attributes,
    text,
)

PRIORITY, HANDLE = 23, 0x68616E64
"""Before filters that were added without a priority (49152), which the kernel counts down from there."""
BEHIND = PRIORITY + 1
"""For programs that get what those of PRIORITY leave alone."""
_PREFIX = "handover:"
_MESSAGE = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
_NEWQDISC, _DELQDISC, _GETQDISC, _NEWTFILTER, _DELTFILTER, _GETTFILTER = 36, 37, 38, 44, 45, 46
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_PARENT = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}
_KIND, _OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
_ALL_PROTOCOLS = 0x0300  # htons(ETH_P_ALL), as it stands in a little-endian number
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})
"""What the kernel answers about filters of a device, or of a qdisc, that is not there."""


class NoRoomForFilters(NetlinkError):
    """Something else sits where our filters would have to be."""

    def __init__(self, number: int, point: Point, kind: str) -> None:
        super().__init__(number, f"attach at the {point}: its qdisc `{kind}` leaves no room for `clsact`")


@dataclass(frozen=True, slots=True)
class Clsact:
    """Our filters of one priority; `directory` remembers the qdiscs that we made."""

    directory: Path
    priority: int = PRIORITY

    def attached(self) -> dict[Point, int]:
        """Where programs run for us, and their ids."""
        with RouteSocket() as kernel:
            return {
                point: program
                for index in sorted(_with_clsact(kernel))
                for direction in Direction
                for point in (Point(index, direction),)
                for program, ours in _filters(kernel, point, self.priority)
                if ours
            }

    def attach(self, point: Point, program: Path) -> None:
        """Have the pinned program run there; swaps what runs there for us. Raises NetlinkError, BpfError."""
        with obj_get(program) as opened, RouteSocket() as kernel:
            self._ensure_qdisc(kernel, point)
            options = attribute(_BPF_FD, struct.pack("=I", opened.fd))
            options += attribute(_BPF_NAME, f"{_PREFIX}{program.name}".encode() + b"\0")
            options += attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
            kernel.request(
                _NEWTFILTER,
                CREATE | REPLACE,
                _filter(point, self.priority) + attribute(_OPTIONS, options),
                f"attach {program.name} at the {point}",
            )

    def detach(self, point: Point) -> None:
        """Have no program of ours run there when this returns. Idempotent."""
        with RouteSocket() as kernel:
            if any(ours for _, ours in _filters(kernel, point, self.priority)):
                kernel.request(_DELTFILTER, 0, _filter(point, self.priority), f"detach from the {point}")
            both = [Point(point.index, direction) for direction in Direction]
            marker = self._marker(point.index)
            if marker.is_dir() and not any(_filters(kernel, each, self.priority) for each in both):
                with contextlib.suppress(FileNotFoundError):
                    _remove_qdisc(kernel, point.index)
                marker.rmdir()

    def tidy(self) -> None:
        """Forget the qdiscs of devices that are gone."""
        if not self.directory.is_dir():
            return
        with RouteSocket() as kernel:
            there = _with_clsact(kernel)
        for path in self.directory.iterdir():
            index, _, kind = path.name.partition("-")
            if kind == "clsact" and int(index) not in there:
                path.rmdir()

    def _ensure_qdisc(self, kernel: RouteSocket, point: Point) -> None:
        kinds = _qdiscs(kernel).get(point.index, ())
        if "clsact" in kinds:
            return
        if "ingress" in kinds:
            raise NoRoomForFilters(errno.EEXIST, point, "ingress")
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._marker(point.index).mkdir(mode=0o700, exist_ok=True)
        body = _MESSAGE.pack(0, point.index, _CLSACT_HANDLE, _CLSACT, 0) + attribute(_KIND, b"clsact\0")
        kernel.request(_NEWQDISC, CREATE | EXCLUSIVE, body, f"add the qdisc clsact to device {point.index}")

    def _marker(self, index: int) -> Path:
        return self.directory / f"{index}-clsact"


def _filter(point: Point, priority: int) -> bytes:
    info = priority << 16 | _ALL_PROTOCOLS
    head = _MESSAGE.pack(0, point.index, HANDLE, _PARENT[point.direction], info)
    return head + attribute(_KIND, b"bpf\0")


def _filters(kernel: RouteSocket, point: Point, priority: int) -> list[tuple[int, bool]]:
    """Program (0 if it is none) of each filter, and whether the filter is ours and of this priority."""
    body = _MESSAGE.pack(0, point.index, 0, _PARENT[point.direction], 0)
    try:
        answers = kernel.dump(_GETTFILTER, body, f"list filters at the {point}")
    except NetlinkError as error:
        if error.errno in _GONE:
            return []
        raise
    found = []
    for message in answers:
        _, index, handle, _, info = _MESSAGE.unpack_from(message.body)
        values = attributes(message.body[_MESSAGE.size :])
        if message.kind != _NEWTFILTER or index != point.index or not handle:
            continue  # each chain of filters is announced by a message without a handle
        options = attributes(values.get(_OPTIONS, b""))
        ours = info >> 16 == priority and handle == HANDLE and _is_named(options)
        program = struct.unpack("=I", options[_BPF_ID])[0] if _BPF_ID in options else 0
        found.append((program, ours))
    return found


def _is_named(options: dict[int, bytes]) -> bool:
    return text(options.get(_BPF_NAME, b"")).startswith(_PREFIX)


def _with_clsact(kernel: RouteSocket) -> set[int]:
    return {index for index, kinds in _qdiscs(kernel).items() if "clsact" in kinds}


def _qdiscs(kernel: RouteSocket) -> dict[int, set[str]]:
    """Device → the kinds of its qdiscs."""
    found: dict[int, set[str]] = {}
    for message in kernel.dump(_GETQDISC, _MESSAGE.pack(0, 0, 0, 0, 0), "list qdiscs"):
        if message.kind == _NEWQDISC:
            _, index, *_ = _MESSAGE.unpack_from(message.body)
            kind = text(attributes(message.body[_MESSAGE.size :]).get(_KIND, b""))
            found.setdefault(index, set()).add(kind)
    return found


def _remove_qdisc(kernel: RouteSocket, index: int) -> None:
    body = _MESSAGE.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0)
    try:
        kernel.request(_DELQDISC, 0, body, f"remove the qdisc clsact of device {index}")
    except NetlinkError as error:
        if error.errno not in _GONE:
            raise
