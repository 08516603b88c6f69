"""A newer agent takes over maps of an older layout while the programs that use them run, and no packet is lost.

    prepared     maps and programs of our layout beside what is in use; maps that look the same in both are shared,
                 what only the agent writes is copied. Our programs are attached behind the older ones, everywhere: they get
                 what those leave alone. They accept nothing yet, and know no connection: nothing has changed
    committed    one rename. From here on it goes forward, whoever goes on with it
    changed over our programs accept, then the older ones do not any more: what is new is ours from its first packet.
                 What is known to the older ones they still translate; entry by entry it is moved to our maps, and is
                 ours from its next packet on
    swapped      the older programs, which know nothing any more, are replaced by ours in their own attachments; then the
                 second row goes, and the older maps. (The second row's programs are loaded apart: with one program in
                 two links of a device, taking one of them off broke connections on 6.18)

Every step before the commit is undone by the next load, every step after it can be repeated. Why: docs/adr/0021.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from handover_agent import bpfmap, links, pinnedsettings
from handover_agent.bpffs import LayoutMismatch, Pins, create
from handover_agent.bpfmap import MapInfo
from handover_agent.bpfsys import obj_get, pin
from handover_agent.carrying import Carrier
from handover_agent.enlarging import AGENTS
from handover_agent.layout import LAYOUT, MapSpec, pack_index, with_accepting
from handover_agent.layouts import CannotConvert, NoWay, Way, way
from handover_agent.packetpath import attaching
from handover_agent.packetpath.attaching import NotAttached
from handover_agent.packetpath.points import Point

log = logging.getLogger(__name__)

_CHOICE = ("affinity", "clients")
"""Written by programs, too, and asked before the first connection is ours."""
_PASSES = 100
"""So often entries are moved at most before the older programs go: they may make some of what is moved anew."""


@dataclass(frozen=True, slots=True)
class Attaching:
    """How programs are attached here: to what cgroup, and to devices."""

    cgroup: Path
    behind: Callable[[Path, Collection[Point]], list[str]]
    """Our programs of a directory behind those at some points; what is wrong with devices that are without them."""
    swap: Callable[[str], None]
    """The programs of a version into all attachments of the first row."""


def find_way(pins: Pins) -> tuple[Path, Way]:
    """From the pinned maps to those of this agent. Raises LayoutMismatch."""
    found, path = next(iter(pins.layouts.items()))
    try:
        return path, way(found, str(LAYOUT))
    except NoWay as error:
        raise LayoutMismatch(found, str(LAYOUT), path, str(error)) from None


def prepare(
    pins: Pins, specs: Iterable[MapSpec], version: str, load: Callable[[Path, Path], None], how: Attaching
) -> None:
    """Everything up to the commit, and that. Raises LayoutMismatch, LoadFailed, BpfError, NotAttached; then nothing has
    changed for anybody.
    """
    older, route = find_way(pins)
    _check(older, route)
    pins.remove(pins.programs(version))  # of a commit that did not get as far as the maps
    try:
        for path in (pins.next, pins.next_maps, pins.next_programs(version), pins.loading):
            pins.remove(path)
            path.mkdir(mode=0o700)
        for spec in specs:
            _make(pins, older, route, spec)
        for path in (pins.next_programs(version), pins.loading):
            load(pins.next_maps, path)
        with Carrier(older, pins.next_maps, route) as carrier:
            with contextlib.suppress(
                FileNotFoundError
            ):  # an older agent was killed while it made its first maps
                _copy_apart(older, pins.next_maps, route)
            carrier.copy((*AGENTS, *_CHOICE))
            carrier.mark()
            _attach_behind(pins, pins.next_programs(version), how)
            carrier.mark()
            carrier.copy(_CHOICE)  # once more: a client that is new since would else choose anew
    except Exception:
        undo(pins)
        raise
    pins.loading.rename(pins.programs(version))
    pins.next_maps.rename(pins.maps)


def undo(pins: Pins) -> None:
    """Remove what was prepared and not committed. Idempotent."""
    _detach_behind(pins)
    pins.remove(pins.next)


def finish(pins: Pins, how: Attaching) -> None:
    """Everything after the commit. Idempotent. Raises LayoutMismatch, BpfError."""
    began = time.monotonic()
    found = pins.layouts
    (first, older), (second, newer) = list(found.items())[:2]
    try:
        route = way(first, second)
    except NoWay as error:
        raise LayoutMismatch(first, second, older, str(error)) from None
    change_over(older, newer)
    with Carrier(older, newer, route) as carrier:
        moved = 0
        for _ in range(_PASSES):
            marked, more = carrier.mark(), carrier.move()
            moved += more
            if not marked and not more:
                break
        if pins.next_version:
            how.swap(pins.next_version)
        while more := carrier.move():
            moved += more
    _detach_behind(pins)
    pins.remove(pins.next)
    pins.remove_layout(first)
    seconds = round(time.monotonic() - began, 3)
    about = {"from": first, "to": second, "entries": moved, "seconds": seconds}
    log.info("maps of another layout taken over", extra=about)


def change_over(older: Path, newer: Path) -> None:
    """From now on new connections are the newer programs'. There is no moment at which they are nobody's."""
    if pinnedsettings.is_accepting(older):
        pinnedsettings.write_accepting(newer, True)
        pinnedsettings.write_accepting(older, False)


def _check(older: Path, route: Way) -> None:
    """Raise LayoutMismatch unless the maps are what this layout's are, and all that is in them can be expressed."""
    for name, shape in route.shapes.items():
        try:
            opened = obj_get(older / name)
        except FileNotFoundError:
            continue  # what nobody has nobody misses
        with opened:
            info = bpfmap.map_info(opened.fd)
        if (info.type, info.key_bytes, info.value_bytes) != (shape.type, shape.key_bytes, shape.value_bytes):
            why = (
                f"its {name} is of type {info.type} with keys of {info.key_bytes} and values of {info.value_bytes} "
                f"bytes, not {shape.type}, {shape.key_bytes} and {shape.value_bytes}"
            )
            raise LayoutMismatch(str(route.older), str(route.newer), older, why)
    with Carrier(older, older, route) as carrier:
        try:
            carrier.check()
        except CannotConvert as error:
            raise LayoutMismatch(str(route.older), str(route.newer), older, str(error)) from error


def _make(pins: Pins, older: Path, route: Way, spec: MapSpec) -> None:
    """The map that takes the place of the older one: that very map, or an empty one that is no smaller."""
    try:
        with obj_get(older / spec.name) as existing:
            info = bpfmap.map_info(existing.fd)
            if spec.name != "settings" and spec.name not in route.changed:
                if (info.type, info.key_bytes, info.value_bytes) != (
                    spec.type,
                    spec.key_bytes,
                    spec.value_bytes,
                ):
                    why = f"{spec.name} is said to be the same, and is not"
                    raise LayoutMismatch(str(route.older), str(route.newer), older, why)
                pin(existing.fd, pins.next_maps / spec.name)
                return
            spec = replace(spec, max_entries=_entries(spec, info))
    except FileNotFoundError:
        pass
    with create(spec) as made:
        pin(made.fd, pins.next_maps / spec.name)


def _entries(spec: MapSpec, older: MapInfo) -> int:
    fixed = spec.name in ("settings", "work")
    return spec.max_entries if fixed else max(spec.max_entries, older.max_entries)


def _copy_apart(older: Path, newer: Path, route: Way) -> None:
    """Settings, which accept nothing yet; and counters, if they changed."""
    with obj_get(older / "settings") as old, obj_get(newer / "settings") as new:
        raw = bpfmap.lookup(old.fd, pack_index(0), bpfmap.map_info(old.fd).value_bytes) or b""
        if "settings" in route.changed:
            _, raw = route.convert("settings", pack_index(0), raw)
        bpfmap.update(new.fd, pack_index(0), with_accepting(raw, False))
    if route.changed.get("counters") is not None:
        with obj_get(older / "counters") as old, obj_get(newer / "counters") as new:
            for index in range(bpfmap.map_info(old.fd).max_entries):
                raw = bpfmap.lookup(old.fd, pack_index(index), 8 * bpfmap.possible_cpus()) or b""
                bpfmap.update(new.fd, pack_index(index), raw)


def _attach_behind(pins: Pins, programs: Path, how: Attaching) -> None:
    """Our programs wherever older ones are. Raises NotAttached."""
    if links.read_links(pins.links):
        links.attach(pins.next_links, programs, how.cgroup)
    points = attaching.running(pins.devices).keys()
    problems = how.behind(programs, points) if points else []
    if problems:
        raise NotAttached(problems)


def _detach_behind(pins: Pins) -> None:
    links.detach(pins.next_links)
    attaching.detach(pins.next_devices, behind=True)
