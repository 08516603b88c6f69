"""How large the maps are made: by what the cluster wants now and by how many connections the kernel tracks, with room.

What the agent writes (frontends, backends, source ranges) can be made larger later, by `growth`. What programs write
about connections cannot, since they would go on writing into the old map while it is copied; so those maps are sized
once by the kernel's own limit for connections. They are LRU: a full one forgets the connection that was silent longest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from handover_agent.admission import is_filtered
from handover_agent.layout import Sizes
from handover_agent.table import Table

CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
GROW_AT = 0.75
"""A map that is fuller than this is made larger."""
_MOST = Sizes(frontends=1 << 20, backends=1 << 22, sources=1 << 20)


@dataclass(frozen=True, slots=True)
class Need:
    """What a table takes: entries of each map that the agent writes."""

    frontends: int = 0
    backends: int = 0
    sources: int = 0

    @classmethod
    def of(cls, table: Table) -> "Need":
        """Frontends with the same backends share them."""
        regions = {entry.slots for entry in table.values()}
        rows = {
            (entry.service, prefix)
            for entry in table.values()
            if is_filtered(entry)
            for prefix in entry.sources
        }
        return cls(len(table), sum(map(len, regions)), len(rows))


def sizes(need: Need, connections: int, least: Sizes) -> Sizes:
    """Maps for twice as much as is needed (backends thrice: a changed Service has its old and its new ones for a
    while), and for so many connections at once. Powers of two, and nowhere less than `least`.
    """
    flows = max(least.flows, _power(2 * min(connections, 1 << 19)))
    sockets = _power(min(max(connections // 4, least.sockets), 1 << 18))
    return replace(
        least,
        frontends=_within(2 * need.frontends, least.frontends, _MOST.frontends),
        backends=_within(3 * need.backends, least.backends, _MOST.backends),
        sources=_within(2 * need.sources, least.sources, _MOST.sources),
        flows=flows,
        sockets=sockets,
        affinity=max(least.affinity, sockets),
    )


def grown(need: Need, have: Sizes, full: Mapping[str, int]) -> Sizes:
    """The sizes that maps of `have` should be given now; `have` itself when all is well.

    A map that is `full` though it should not be (its free slots are in small pieces) is doubled.
    """

    def size(name: str, needed: int, now: int, most: int) -> int:
        if needed <= GROW_AT * now and name not in full:
            return now
        return max(now, min(max(_power(2 * needed), 2 * now), most))

    return replace(
        have,
        frontends=size("frontends", need.frontends, have.frontends, _MOST.frontends),
        backends=size("backends", need.backends, have.backends, _MOST.backends),
        sources=size("sources", need.sources, have.sources, _MOST.sources),
    )


def connections(path: Path = CONNTRACK_MAX) -> int:
    """How many connections the kernel tracks at most; 0 when it does not track any."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _within(wanted: int, least: int, most: int) -> int:
    return max(least, min(_power(wanted), most))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(number - 1, 0).bit_length()
