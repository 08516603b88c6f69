"""Entries of maps on their way from one layout's maps to another's, while programs of both run.

Copying is for what only the agent writes. What programs write is moved: each entry is written into the newer map first
and then taken out of the older one, so that at every moment one of the two rows of programs finds it. Nothing is
remembered in here: what is in the older maps is what is left to do, and another process can go on with it.

The older programs may change an entry, or forget it, between our reading and our taking it. Taking tells what it was at
last, and then the newer one is put right, unless the newer programs have written it meanwhile.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from handover_agent import bpfbatch, bpfmap
from handover_agent.bpfmap import MapInfo, MapType
from handover_agent.bpfsys import obj_get
from handover_agent.enlarging import AGENTS
from handover_agent.layout import pack_index
from handover_agent.layouts import COOKIE_BYTES, SOCKETS, CannotConvert, Way

log = logging.getLogger(__name__)

_APART = ("settings", "counters", "work")
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Pair:
    """A map that changed, in both layouts."""

    name: str
    older: int
    newer: int
    info: MapInfo
    newer_info: MapInfo

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Those of the older map."""
        if self.info.type in _ARRAYS:
            yield from self._array()
        else:
            yield from bpfbatch.read_hash(self.older, self.info.key_bytes, self.info.value_bytes)

    def _array(self) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, self.info.max_entries, _CHUNK):
            count = min(_CHUNK, self.info.max_entries - start)
            values = bpfbatch.read_array(self.older, start, count, self.info.value_bytes)
            for index, value in enumerate(values, start):
                yield pack_index(index), value


class Carrier:
    """The pinned maps of two directories; closes them at the end of its `with`."""

    def __init__(self, older: Path, newer: Path, way: Way) -> None:
        self._way, self._stack = way, ExitStack()
        self._pairs: dict[str, Pair] = {}
        for name, converters in way.changed.items():
            if converters is None or name in _APART:
                continue
            try:
                old = self._stack.enter_context(obj_get(older / name))
                new = self._stack.enter_context(obj_get(newer / name))
            except FileNotFoundError:  # the end of an older layout that was being removed
                continue
            infos = bpfmap.map_info(old.fd), bpfmap.map_info(new.fd)
            self._pairs[name] = Pair(name, old.fd, new.fd, *infos)
        self._derived: dict[str, Pair] = {}
        for name, derived in way.derived.items():
            try:
                old = self._stack.enter_context(obj_get(older / derived.source))
                new = self._stack.enter_context(obj_get(newer / name))
            except FileNotFoundError:
                continue
            infos = bpfmap.map_info(old.fd), bpfmap.map_info(new.fd)
            self._derived[name] = Pair(derived.source, old.fd, new.fd, *infos)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Convert everything, and write nothing. Raises CannotConvert."""
        for name, pair in self._pairs.items():
            for key, value in pair.entries():
                try:
                    self._way.convert(name, key, value)
                except CannotConvert as error:
                    raise CannotConvert(f"an entry of {name}: {error}") from error

    def copy(self, names: Iterable[str]) -> None:
        """Write what is in the older maps into the newer ones. Raises CannotConvert, BpfError."""
        for name in names:
            pair = self._pairs.get(name)
            if pair:
                entries = [self._way.convert(name, key, value) for key, value in pair.entries()]
                bpfbatch.write(pair.newer, entries[: pair.newer_info.max_entries])

    def mark(self) -> int:
        """Set the bits that follow from entries of older maps; how many values of an array were changed.

        Programs set bits there, too, each by a byte of its own: between reading and writing a value one could get lost.
        So a value is only written when a bit is missing; call it until nothing is.
        """
        changed = 0
        for name, pair in self._derived.items():
            marks = self._way.derived[name].marks
            wanted: dict[int, bytearray] = {}
            for key, value in pair.entries():
                with contextlib.suppress(CannotConvert):
                    for index, at, bits in marks(key, value):
                        wanted.setdefault(index, bytearray(pair.newer_info.value_bytes))[at] |= bits
            for index, more in wanted.items():
                there = bpfmap.lookup(pair.newer, pack_index(index), len(more)) or bytes(len(more))
                both = bytes(a | b for a, b in zip(there, more, strict=True))
                if both != there:
                    bpfmap.update(pair.newer, pack_index(index), both)
                    changed += 1
        return changed

    def move(self) -> int:
        """Move what programs have written; how many entries there were. What cannot be converted is forgotten."""
        moved = 0
        if "sockets" in self._pairs:
            moved += self._move_sockets()
        for name, pair in self._pairs.items():
            if name not in (*AGENTS, *SOCKETS) and pair.info.type not in _ARRAYS:
                for key, _ in pair.entries():
                    moved += self._move([(pair, key)])
        return moved

    def _move_sockets(self) -> int:
        """A socket's entries together, so that one that is closed meanwhile leaves none behind: what others are found
        by is written last and taken first.
        """
        sockets: dict[bytes, list[tuple[Pair, bytes]]] = {}
        for name in SOCKETS:
            pair = self._pairs.get(name)
            for key, _ in pair.entries() if pair else ():
                sockets.setdefault(key[:COOKIE_BYTES], []).append((pair, key))  # type: ignore[arg-type]
        return sum(self._move(entries) for entries in sockets.values())

    def _move(self, group: Sequence[tuple[Pair, bytes]]) -> int:
        written = []
        for pair, key in group:
            value = bpfmap.lookup(pair.older, key, pair.info.value_bytes)
            if value is not None:
                written.append((pair, key, value, self._write(pair, key, value)))
        for pair, key, value, entry in reversed(written):
            last = bpfmap.take(pair.older, key, pair.info.value_bytes)
            if entry is not None and last != value:
                self._correct(pair, entry, key, last)
        return len(written)

    def _write(self, pair: Pair, key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
        """The entry as it was written; None when the newer programs have one of their own."""
        try:
            entry = self._way.convert(pair.name, key, value)
        except CannotConvert as error:
            log.warning("an entry could not be carried over", extra={"map": pair.name, "error": str(error)})
            return None
        return entry if bpfmap.add(pair.newer, *entry) else None

    def _correct(self, pair: Pair, entry: tuple[bytes, bytes], key: bytes, last: bytes | None) -> None:
        """It became something else while it was moved, or was forgotten."""
        if bpfmap.lookup(pair.newer, entry[0], pair.newer_info.value_bytes) != entry[1]:
            return
        if last is None:
            bpfmap.delete(pair.newer, entry[0])
        else:
            try:
                bpfmap.update(pair.newer, *self._way.convert(pair.name, key, last))
            except CannotConvert as error:
                log.warning(
                    "an entry could not be carried over", extra={"map": pair.name, "error": str(error)}
                )
