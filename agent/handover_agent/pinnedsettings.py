"""The record by which the agent switches programs (struct settings): whether they accept new connections, whether they
note stranded sockets, whether they leave pods' sockets alone, and as whom they know the node.

The maps of each layout have one. All begin with the first of these, so that it is read and written in those of a
layout that this agent knows nothing else of.
"""

import contextlib
from pathlib import Path

from handover_agent import bpfmap, bpfsys, layout
from handover_agent.bpffs import Pins


def is_accepting(maps: Path) -> bool:
    """Whether new connections are accepted, by the maps of whatever layout; no when there are none."""
    raw = _read(maps)
    return bool(raw) and layout.unpack_settings(raw)


def accept(pins: Pins, accepting: bool) -> None:
    """Have new connections accepted by the maps that are in force, or by those of no layout. Where none are, nothing
    happens.
    """
    for maps in [pins.in_force] if accepting else pins.layouts.values():
        with contextlib.suppress(FileNotFoundError):
            write_accepting(maps, accepting)


def write_accepting(maps: Path, accepting: bool) -> None:
    """What the settings begin with, of whatever layout. Raises FileNotFoundError."""
    _write(maps, layout.with_accepting(_read(maps), accepting))


def write_node(maps: Path, own_ipv4: bytes, node_only: bool) -> None:
    """The node's address for what it sends from 127.0.0.1 (zeros: it has none), and whether pods' sockets are left to the
    packet path. Nothing happens where no maps are.
    """
    raw = _read(maps)
    if raw:
        _change(maps, raw, own_ipv4, layout.unpack_noting(raw), node_only)


def is_noting(maps: Path) -> bool | None:
    """Whether stranded sockets are noted; None where no maps are."""
    raw = _read(maps)
    return layout.unpack_noting(raw) if raw else None


def write_noting(maps: Path, noting: bool) -> None:
    """Have stranded sockets noted, or not. Nothing happens where no maps are."""
    raw = _read(maps)
    if raw:
        _change(maps, raw, layout.unpack_own_ipv4(raw), noting, layout.unpack_node_only(raw))


def is_node_only(maps: Path) -> bool:
    """Whether pods' sockets are left to the packet path; no where no maps are."""
    raw = _read(maps)
    return bool(raw) and layout.unpack_node_only(raw)


def _change(maps: Path, raw: bytes, own: bytes, noting: bool, node_only: bool) -> None:
    """Write these, if they are others."""
    wanted = layout.pack_settings(layout.unpack_settings(raw), own, noting, node_only)
    if wanted != raw:
        _write(maps, wanted)


def _read(maps: Path) -> bytes:
    """Empty when there are none."""
    try:
        opened = bpfsys.obj_get(maps / "settings")
    except FileNotFoundError:
        return b""
    with opened as settings:
        length = bpfmap.map_info(settings.fd).value_bytes
        return bpfmap.lookup(settings.fd, layout.pack_index(0), length) or b""


def _write(maps: Path, raw: bytes) -> None:
    with bpfsys.obj_get(maps / "settings") as settings:
        bpfmap.update(settings.fd, layout.pack_index(0), raw)
