"""How full the maps are that programs write.

They are LRU: nothing fails when they are full, but for each new entry the one that was silent longest is forgotten, and
somewhere a connection that was only quiet ends. So it is told before that happens. Counting means reading a map whole,
hence once a minute.
"""

from pathlib import Path

from handover_agent import bpfbatch, bpfmap
from handover_agent.bpfsys import obj_get

WRITTEN_BY_PROGRAMS = ("reverse", "forward", "sockets", "affinity", "flows", "fragments")
PRESSED_AT = 0.9
PASSING = frozenset({"fragments"})
"""Maps whose entries stay when they count no more (FRAGMENT_S in bpf/consts.h): that one is full says little."""
MORE_ROOM = "It was sized by nf_conntrack_max when this node left Standby: raise that, then take the node down and up again"
"""What to do when a map of connections is full; not true of `PASSING`, whose room is fixed."""


def ratios(maps: Path) -> dict[str, float]:
    """Share of each map's room that is used; without those that are not pinned there. Raises BpfError."""
    found: dict[str, float] = {}
    for name in WRITTEN_BY_PROGRAMS:
        try:
            descriptor = obj_get(maps / name)
        except FileNotFoundError:
            continue
        with descriptor as opened:
            info = bpfmap.map_info(opened.fd)
            used = sum(1 for _ in bpfbatch.read_hash(opened.fd, info.key_bytes, info.value_bytes))
            found[name] = used / info.max_entries
    return found
