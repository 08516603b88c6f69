"""Writes a datapath's tables for a test, and tells what was counted since."""

from collections.abc import Sequence
from itertools import count
from typing import Self

from handover_agent.datapath import Datapath
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Protocol, ip_bytes
from tests.datapath.pods import TCP, UDP, frontend


class Rig:
    """A datapath's tables. Every service gets a region of its own, never one that was used before."""

    def __init__(self, datapath: Datapath) -> None:
        self.datapath = datapath
        self._maps = datapath.maps()
        self._offset = 1
        self._service_ids = count(1)
        self._before = datapath.counters()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.close()

    def serve(
        self,
        address: str,
        backends: Sequence[Backend],
        flags: FrontendFlags = FrontendFlags.NONE,
        timeout_s: int = 0,
        service_id: int = 0,
    ) -> int:
        """A Service of TCP and UDP at `address`; its region's offset."""
        offset = self._offset
        self._offset += len(backends) + 1
        self._maps.write_backends(offset, sorted(backends))
        value = FrontendValue(offset, len(backends), service_id or next(self._service_ids), flags, timeout_s)
        self._maps.write_frontends({frontend(address, TCP): value, frontend(address, UDP): value})
        return offset

    def refuse_other_ports(self, address: str) -> None:
        """What every ClusterIP has besides its ports."""
        key = FrontendKey(ip_bytes(address), 0, Protocol.ANY)
        self._maps.write_frontends({key: FrontendValue(0, 0, 0, FrontendFlags.REFUSE)})

    def point(self, address: str, value: FrontendValue) -> None:
        """Frontends with a value as given, be it sound or not."""
        self._maps.write_frontends({frontend(address, TCP): value, frontend(address, UDP): value})

    def remove(self, *keys: FrontendKey) -> None:
        self._maps.delete_frontends(keys)

    def counted(self) -> dict[str, int]:
        """What was counted since the last call (or the test's start), without zeros."""
        before, self._before = self._before, self.datapath.counters()
        return {name: n - before[name] for name, n in self._before.items() if n != before[name]}
