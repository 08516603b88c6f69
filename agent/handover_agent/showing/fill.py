"""`maps`: how full the datapath's maps are, and what happens when one has no more room."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from handover_agent import layout
from handover_agent.bpfmap import MapType
from handover_agent.layout import MapSpec, Sizes
from handover_agent.settings import Settings
from handover_agent.showing.command import Command
from handover_agent.showing.listing import Listing, Row, bytes_text
from handover_agent.showing.node import Node, OpenMap

_PRESSED = 0.9
_LRU = "the least recently used entry goes for each new one: {what}"
_GROWS = "{what}. The agent replaces it by a larger one in time; where it cannot, the Node's Events say so (MapFull)"
_KINDS = {
    MapType.HASH: "hash",
    MapType.ARRAY: "array",
    MapType.PERCPU_ARRAY: "per-CPU array",
    MapType.LRU_HASH: "LRU hash",
    MapType.LPM_TRIE: "LPM trie",
}


@dataclass(frozen=True, slots=True)
class About:
    """What a map holds, and what it means that it is full."""

    holds: str
    when_full: str = ""


ABOUT: dict[str, About] = {
    "settings": About("whether new connections are accepted"),
    "frontends": About(
        "addresses at which Services are reached",
        _GROWS.format(what="further Services are not served here"),
    ),
    "backends": About(
        "regions of endpoints, one for each different set",
        _GROWS.format(what="changed Services keep their old backends"),
    ),
    "reverse": About(
        "sockets' translated destinations",
        _LRU.format(what="long idle UDP sockets get answers from an address that they did not ask"),
    ),
    "forward": About(
        "the backend that a UDP socket uses for a frontend",
        _LRU.format(what="long idle UDP sockets choose a backend anew"),
    ),
    "stranded": About(
        "connected UDP sockets that are about to be told that their backend serves no more",
        "the others are told later, when they send again",
    ),
    "sockets": About(
        "where a socket's translated destinations begin",
        _LRU.format(what="what is left of a closed socket stays until its own map needs the room"),
    ),
    "affinity": About(
        "clients with the backend that they stay with",
        _LRU.format(what="long idle clients choose a backend anew"),
    ),
    "flows": About(
        "connections that the packet path translates, two entries for each",
        _LRU.format(what="a long idle connection from outside ends, or chooses a backend anew"),
    ),
    "fragments": About(
        "datagrams that come in pieces",
        _LRU.format(what="only if that is of the last 30 s, the later pieces of a datagram are lost"),
    ),
    "addresses": About("places of the frontends' addresses, looked at before anything else"),
    "flow_addresses": About("the same of what flows go to"),
    "sources": About(
        "prefixes that may use a load balancer (loadBalancerSourceRanges)",
        _GROWS.format(what="further load balancers with source ranges are not served here"),
    ),
    "clients": About(
        "pods' addresses, by which `affinity` and `trace` show who a client is",
        "the agent empties it, and pods are shown again when they open their next TCP connection",
    ),
    "counters": About("what `handover-agent drops` shows"),
    "work": About("what one run of a program works on"),
}


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a map is."""

    spec: MapSpec
    used: int | None
    """None: an array without a notion of free slots."""
    room: int
    memory_bytes: int | None

    @property
    def share(self) -> float | None:
        """0 to 1; None where it has no meaning."""
        return None if self.used is None or not self.room else self.used / self.room


def listing(fills: Iterable[Fill], notes: tuple[str, ...] = ()) -> Listing:
    """The table: pure. Full maps are told of in the notes."""
    rows, told = [], list(notes)
    for fill in fills:
        about = ABOUT.get(fill.spec.name, About(""))
        share = fill.share
        kind = _KINDS.get(fill.spec.type, fill.spec.type.name.lower())
        rows.append(
            Row(
                (
                    fill.spec.name,
                    kind,
                    "-" if fill.used is None else str(fill.used),
                    str(fill.room),
                    "-" if share is None else f"{share:.0%}",
                    "-" if fill.memory_bytes is None else bytes_text(fill.memory_bytes),
                    about.holds,
                ),
                {
                    "map": fill.spec.name,
                    "kind": kind,
                    "used": fill.used,
                    "room": fill.room,
                    "share": None if share is None else round(share, 4),
                    "memory_bytes": fill.memory_bytes,
                    "holds": about.holds,
                    "when_full": about.when_full,
                },
            )
        )
        if share is not None and share >= _PRESSED and about.when_full:
            told.append(f"{fill.spec.name} is {share:.0%} full. When it is full, {about.when_full}")
    header = ("MAP", "KIND", "USED", "ROOM", "FULL", "MEMORY", "HOLDS")
    return Listing(header, rows, "No maps.", tuple(told))


def memory_bytes(fdinfo: str) -> int | None:
    """What the kernel says that a map costs (`memlock` of /proc/self/fdinfo/FD)."""
    for line in fdinfo.splitlines():
        name, _, value = line.partition(":")
        if name == "memlock" and value.strip().isdigit():
            return int(value)
    return None


def measure(node: Node) -> list[Fill]:
    """Look at every map. Raises CannotShow."""
    return [_measure(node, spec) for spec in layout.map_specs(Sizes())]


def _measure(node: Node, spec: MapSpec) -> Fill:
    with node.map(spec.name) as opened:
        info = Path(f"/proc/self/fdinfo/{opened.fd}").read_text(encoding="ascii")
        used = _COUNTS.get(spec.name, _entries)(node, opened)
        return Fill(spec, used, opened.info.max_entries, memory_bytes(info))


def _entries(_: Node, opened: OpenMap) -> int | None:
    if opened.info.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return None
    return sum(1 for _ in opened.entries())


def _slots(node: Node, _: OpenMap) -> int:
    """Slots of the backend array that a frontend points at; frontends may share a region."""
    with node.frontends() as maps:
        return sum({v.offset: v.slots for v in maps.read_frontends().values() if v.slots}.values())


def _named(_: Node, __: OpenMap) -> int:
    return len(layout.counter_names())


_COUNTS: dict[str, Callable[[Node, OpenMap], int | None]] = {"backends": _slots, "counters": _named}


def _show(_: argparse.Namespace, settings: Settings) -> Listing:
    node = Node.look(settings)
    return listing(measure(node), node.notes)


MAPS = Command(
    "maps",
    "how full the datapath's maps are, and what they cost",
    "Each pinned map: how many entries are used of how many there is room for, its memory as the kernel "
    "counts it, and what it holds. A map that is nearly full is told of on stderr, with what happens then.",
    _show,
)
