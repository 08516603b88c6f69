"""The kernel's maps in memory, with faults to inject and a hook that sees every single write.

It behaves as the kernel's do where that matters: one frontend's value changes atomically, a batch is many
such changes and may end in the middle, deleting what is not there is no error. `test_maps_contract.py` holds
both to that.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EIO

from handover_agent.table import Backend, FrontendKey, FrontendValue, MapFull, Source


@dataclass
class Fault:
    """Let `after` single writes of this operation pass, then fail so many calls. `key`: only when it is
    written.
    """

    operation: str  # read_, write_ or delete_ and frontends, backends or sources
    after: int = 0
    times: int = 1
    key: FrontendKey | None = None


@dataclass
class FakeMaps:
    """Implements `table.Maps`."""

    frontend_capacity: int = 65536
    backend_capacity: int = 262144
    source_capacity: int = 1024
    frontends: dict[FrontendKey, FrontendValue] = field(default_factory=dict)
    addresses: set[bytes] = field(default_factory=set)
    """That packets are looked at for."""
    array: dict[int, Backend] = field(default_factory=dict)
    sources: set[Source] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    on_write: Callable[[], None] = lambda: None
    writes: int = 0  # single writes of all kinds, so that "writes nothing" can be shown
    calls: int = 0

    def read_frontends(self) -> dict[FrontendKey, FrontendValue]:
        self._call("read_frontends")
        return dict(self.frontends)

    def write_frontends(self, entries: Mapping[FrontendKey, FrontendValue]) -> None:
        self._call("write_frontends")
        self.addresses |= {key.address for key in entries}
        for key, value in entries.items():
            self._single("write_frontends", key)
            if key not in self.frontends and len(self.frontends) >= self.frontend_capacity:
                raise MapFull("frontends", self.frontend_capacity, len(self.frontends) + 1)
            self.frontends[key] = value
            self.on_write()

    def keep_addresses(self, keys: Iterable[FrontendKey]) -> None:
        self.addresses = {key.address for key in keys}

    def delete_frontends(self, keys: Iterable[FrontendKey]) -> None:
        self._call("delete_frontends")
        for key in keys:
            self._single("delete_frontends", key)
            self.frontends.pop(key, None)
            self.on_write()

    def read_backends(self, offset: int, count: int) -> list[Backend]:
        self._call("read_backends")
        self._bounds(offset, count)
        return [self.array.get(index, EMPTY) for index in range(offset, offset + count)]

    def write_backends(self, offset: int, backends: Sequence[Backend]) -> None:
        self._call("write_backends")
        self._bounds(offset, len(backends))
        for index, backend in enumerate(backends, start=offset):
            self._single("write_backends")
            self.array[index] = backend
            self.on_write()

    def read_sources(self) -> set[Source]:
        self._call("read_sources")
        return set(self.sources)

    def write_sources(self, rows: Collection[Source]) -> None:
        self._call("write_sources")
        for row in rows:
            self._single("write_sources")
            if row not in self.sources and len(self.sources) >= self.source_capacity:
                raise MapFull("sources", self.source_capacity, len(self.sources | set(rows)))
            self.sources.add(row)
            self.on_write()

    def delete_sources(self, rows: Collection[Source]) -> None:
        self._call("delete_sources")
        for row in rows:
            self._single("delete_sources")
            self.sources.discard(row)
            self.on_write()

    def lookup(self, key: FrontendKey) -> list[Backend] | None:
        """What a program that runs now finds: the frontend's whole region."""
        value = self.frontends.get(key)
        return None if value is None else self.region(value)

    def region(self, value: FrontendValue) -> list[Backend]:
        """The backends at a value's region, as they are now."""
        return [self.array.get(i, EMPTY) for i in range(value.offset, value.offset + value.slots)]

    def _bounds(self, offset: int, count: int) -> None:
        if offset < 0 or offset + count > self.backend_capacity:
            raise MapFull("backends", self.backend_capacity, offset + count)

    def _call(self, operation: str) -> None:
        self.calls += 1
        if operation.startswith("read"):
            self._trip(operation, None)

    def _single(self, operation: str, key: FrontendKey | None = None) -> None:
        self._trip(operation, key)
        self.writes += 1

    def _trip(self, operation: str, key: FrontendKey | None) -> None:
        for fault in self.faults:
            if fault.operation != operation or (fault.key is not None and fault.key != key):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            raise OSError(EIO, f"injected fault in {operation}")


EMPTY = Backend(bytes(16), 0)  # what an array's slot holds before it was ever written
