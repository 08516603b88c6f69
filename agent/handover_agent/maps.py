"""The kernel's frontends and backends through their pins: `table.Maps` with a kernel behind it."""

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from handover_agent import bpfbatch, layout
from handover_agent.bpfmap import map_info
from handover_agent.bpfsys import BpfError, obj_get
from handover_agent.known import KnownAddresses
from handover_agent.table import Backend, FrontendKey, FrontendValue, MapFull, Prefix, Source


class PinnedMaps:
    """table.Maps over the maps pinned in a directory, and these only: after an unload and a load, open anew.

    Within a region, backends have to be sorted: the programs find an affinity's backend by binary search.
    """

    def __init__(self, directory: Path) -> None:
        self._frontends = obj_get(directory / "frontends")
        self._backends = obj_get(directory / "backends")
        self._frontend_info, self._backend_info = map_info(self._frontends.fd), map_info(self._backends.fd)
        self._sources = obj_get(directory / "sources")
        self._known = KnownAddresses(directory / "addresses")
        self._source_info = map_info(self._sources.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; the maps stay pinned."""
        for opened in (self._frontends, self._backends, self._sources, self._known):
            opened.close()

    @property
    def frontend_capacity(self) -> int:
        """How many frontends the map holds."""
        return self._frontend_info.max_entries

    @property
    def backend_capacity(self) -> int:
        """How many slots the backend array has."""
        return self._backend_info.max_entries

    @property
    def source_capacity(self) -> int:
        """How many source ranges the map holds."""
        return self._source_info.max_entries

    def read_frontends(self) -> dict[FrontendKey, FrontendValue]:
        """Everything in the frontend map."""
        info = self._frontend_info
        entries = bpfbatch.read_hash(self._frontends.fd, info.key_bytes, info.value_bytes)
        return {layout.unpack_key(key): layout.unpack_frontend(value) for key, value in entries}

    def write_frontends(self, entries: Mapping[FrontendKey, FrontendValue]) -> None:
        """Set frontends, each in one atomic step, in order. Raises MapFull after having written some."""
        packed = [(layout.pack_key(key), layout.pack_frontend(value)) for key, value in entries.items()]
        self._known.add(key.address for key in entries)
        try:
            bpfbatch.write(self._frontends.fd, packed)
        except BpfError as error:
            if error.errno == errno.E2BIG:
                wanted = len(entries.keys() | self.read_frontends().keys())
                raise MapFull("frontends", self.frontend_capacity, wanted) from error
            raise

    def keep_addresses(self, keys: Iterable[FrontendKey]) -> None:
        """Let packets be looked at that go to addresses of these, and no others. Only for whoever writes frontends."""
        self._known.be(key.address for key in keys)

    def delete_frontends(self, keys: Iterable[FrontendKey]) -> None:
        """Remove frontends; those that are not there are passed over."""
        bpfbatch.delete(self._frontends.fd, [layout.pack_key(key) for key in keys])

    def read_backends(self, offset: int, count: int) -> list[Backend]:
        """`count` slots from `offset` on. Raises MapFull when they are outside of the array."""
        self._check_region(offset, count)
        values = bpfbatch.read_array(self._backends.fd, offset, count, self._backend_info.value_bytes)
        return [layout.unpack_backend(value) for value in values]

    def write_backends(self, offset: int, backends: Sequence[Backend]) -> None:
        """Fill slots from `offset` on. Raises MapFull, having written nothing, when they do not fit."""
        self._check_region(offset, len(backends))
        indices = range(offset, offset + len(backends))
        packed = [layout.pack_backend(backend) for backend in backends]
        bpfbatch.write(self._backends.fd, list(zip(map(layout.pack_index, indices), packed, strict=True)))

    def read_sources(self) -> set[Source]:
        """Everything in the map of source ranges."""
        info = self._source_info
        entries = bpfbatch.read_hash(self._sources.fd, info.key_bytes, info.value_bytes)
        rows = (layout.unpack_source(key) for key, _ in entries)
        return {Source(number, Prefix(address, bits)) for number, address, bits in rows}

    def write_sources(self, rows: Collection[Source]) -> None:
        """Add rows. Raises MapFull after having written some."""
        value = bytes(self._source_info.value_bytes)
        try:
            bpfbatch.write(self._sources.fd, [(_key(row), value) for row in rows])
        except BpfError as error:
            if error.errno == errno.ENOSPC:
                wanted = len(set(rows) | self.read_sources())
                raise MapFull("sources", self._source_info.max_entries, wanted) from error
            raise

    def delete_sources(self, rows: Collection[Source]) -> None:
        """Remove rows; those that are not there are passed over."""
        bpfbatch.delete(self._sources.fd, [_key(row) for row in rows])

    def _check_region(self, offset: int, count: int) -> None:
        if offset < 0 or offset + count > self.backend_capacity:
            raise MapFull("backends", self.backend_capacity, offset + count)


def _key(source: Source) -> bytes:
    return layout.pack_source(source.service_id, source.prefix.address, source.prefix.bits)
