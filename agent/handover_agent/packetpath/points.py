"""Where on a device a program runs, and which program belongs there. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from handover_agent.devices import Place, Role


class Direction(StrEnum):
    """As the device sees packets: what comes in from the wire, what goes out on it."""

    EGRESS = "egress"
    INGRESS = "ingress"


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A device by its number, and a direction."""

    index: int
    direction: Direction

    def __str__(self) -> str:
        return f"{self.direction} of device {self.index}"


_PROGRAMS = {
    Role.OUTSIDE: {Direction.EGRESS: "from_node", Direction.INGRESS: "from_outside"},
    Role.POD: {Direction.EGRESS: "outward", Direction.INGRESS: "from_pod"},
    Role.ITSELF: {Direction.EGRESS: "to_itself"},
}
_INSTEAD = {"from_node": "outward"}


def wanted(places: Iterable[Place], lacking: Collection[str] = ()) -> dict[Point, str]:
    """Point → the program that belongs there; `lacking`: those that this kernel cannot have.

    In the order to attach in: no packet is translated on its way in before its answer would be on its way out.
    """
    return {
        Point(place.device.index, direction): _INSTEAD[name] if name in lacking else name
        for direction in (Direction.EGRESS, Direction.INGRESS)
        for place in places
        for at, name in _PROGRAMS.get(place.role, {}).items()
        if at is direction and (name not in lacking or name in _INSTEAD)
    }
