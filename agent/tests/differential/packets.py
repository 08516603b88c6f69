"""Packets that ask for something, and how they may end."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from handover_agent.table import Backend, Protocol, ip_text


class Origin(StrEnum):
    """From where a packet comes to the node's attention."""

    OUTSIDE = "outside"  # through a device of the node's own
    POD = "pod"  # through the port of a pod of this node
    NODE = "node"  # from a process in the node's own network namespace


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. Addresses have 16 bytes; IPv4 is v4-mapped."""

    origin: Origin
    source: bytes
    destination: bytes
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return (
            f"{self.protocol.name} from {self.origin} ({ip_text(self.source)}) to "
            f"{Backend(self.destination, self.port)}"
        )


class Kind(StrEnum):
    SERVED = "goes to"
    REFUSED = "is refused"
    DROPPED = "is dropped"
    LEFT = "is left alone"


@dataclass(frozen=True, slots=True, order=True)
class Ending:
    """One way in which a packet may end; `masqueraded`: the backend sees this node as its source."""

    kind: Kind
    backend: Backend | None = None
    masqueraded: bool = False

    def __str__(self) -> str:
        to = f" {self.backend}" if self.backend else ""
        return f"{self.kind}{to}{' masqueraded' if self.masqueraded else ''}"


Endings = frozenset[Ending]
REFUSED: Endings = frozenset({Ending(Kind.REFUSED)})
DROPPED: Endings = frozenset({Ending(Kind.DROPPED)})
LEFT: Endings = frozenset({Ending(Kind.LEFT)})


def told(endings: Iterable[Ending]) -> str:
    """Endings for a person."""
    return " or ".join(str(ending) for ending in sorted(endings)) or "has no ending"
