"""Larger maps in the place of smaller ones, while the programs run.

A map's size is fixed when it is made, and programs are bound to their maps when they are loaded. So larger maps get
programs of their own, the same ones once more; when the maps have been filled, the attachments are swapped to these, one
atomic step for each. In between, some programs use the old maps and some the new ones, which say the same. That is
possible only for maps that nobody but the agent writes (`AGENTS`). All others, flows and affinity above all, are the very
same maps for both sets of programs, and keep their sizes.

Everything is prepared beside what is in use. The one step that counts is a rename of the new maps' directory; an
interruption before it leaves what was there, and one after it is finished by the next load.
"""

from collections.abc import Callable
from pathlib import Path

from handover_agent import bpfmap
from handover_agent.bpffs import Pins, create
from handover_agent.bpfsys import obj_get, pin
from handover_agent.layout import Sizes, map_specs

AGENTS = ("frontends", "backends", "sources")


def version(programs: str, generation: int) -> str:
    """How a set of programs is called that uses the maps of a generation."""
    return f"{programs}+{generation}" if generation else programs


def sizes(pins: Pins) -> Sizes:
    """The sizes of the maps in use, as far as they have any. Raises FileNotFoundError."""
    named = {"reverse": "sockets"}
    found = {}
    for name in (*AGENTS, "reverse", "affinity", "flows", "fragments", "clients"):
        with obj_get(pins.maps / name) as opened:
            found[named.get(name, name)] = bpfmap.map_info(opened.fd).max_entries
    return Sizes(**found)


def prepare(pins: Pins, wanted: Sizes, load: Callable[[Path, Path], None]) -> None:
    """Make the maps in `growing`, and have programs that use them loaded into `loading`. Raises BpfError, LoadFailed."""
    for path in (pins.growing, pins.loading):
        pins.remove(path)
        path.mkdir(mode=0o700)
    for spec in map_specs(wanted):
        path = pins.growing / spec.name
        if spec.name in AGENTS:
            with create(spec) as made:
                pin(made.fd, path)
        elif (pins.maps / spec.name).exists():
            with obj_get(pins.maps / spec.name) as shared:
                pin(shared.fd, path)
    load(pins.growing, pins.loading)


def commit(pins: Pins, programs: str) -> None:
    """Make what was prepared the next generation."""
    following = pins.generation + 1
    place = pins.programs(version(programs, following))
    pins.remove(place)  # of a commit that did not get as far as the maps
    pins.loading.rename(place)
    pins.growing.rename(pins.maps_of(following))
