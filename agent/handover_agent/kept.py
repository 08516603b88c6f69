"""The wanted table on its way into the maps: written within milliseconds of a change, looked over again and
again.

It compiles on the event loop (a changed Service costs microseconds) and writes in a thread of its own. While
the maps are not there (Standby) it only keeps the table, so that parity and probes know what is wanted.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Protocol as Interface

from handover_agent.compile import NodeInfo
from handover_agent.gathering import gathering_s
from handover_agent.ladder.ports import Waiting
from handover_agent.lately import Lately
from handover_agent.maps import PinnedMaps
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.objects import is_ipv4
from handover_agent.reconcile import Reconciler, SyncReport
from handover_agent.sync import Sync
from handover_agent.table import FrontendKey, Table
from handover_agent.thread import Thread
from handover_agent.wanted import Delta, Dispute, WantedTable

log = logging.getLogger(__name__)

_NAMES_EVERY_S = 2.0


class TableNotMoved(Exception):
    """Other maps could not be filled; the old ones are still in use."""

    def __init__(self, why: str) -> None:
        super().__init__(f"other maps could not be filled with the table: {why}")


class Watcher(Interface):
    """Who takes down how long things take; see `proxymetrics`."""

    def begin(self) -> None: ...
    def synced(self, *, full: bool, seconds: float, families: Collection[str], in_sync: bool) -> None: ...


class KeptTable:
    """Keeps the maps what the model wants. All methods are for one event loop."""

    def __init__(
        self,
        model: Model,
        node: NodeInfo,
        open_maps: Callable[[], PinnedMaps],
        names: NamesFile,
        *,
        stale: Callable[[], str],
        changed: Callable[[Sync], None],
        watched: Watcher | None = None,
    ) -> None:
        self._model, self._open_maps, self._names = model, open_maps, names
        self._stale, self._changed, self._watched = stale, changed, watched
        self._wanted = WantedTable(node)
        self._maps: PinnedMaps | None = None
        self._reconciler: Reconciler | None = None
        self._lock = asyncio.Lock()
        self._call = Thread("maps")
        self._retry_in_s: float | None = None
        self._names_revision = -1  # that is in the file
        self._names_from = 0.0  # when the file may be written again
        self._node_known = False
        self._followed_at = 0.0
        self.sync = Sync()
        self.lately = Lately()
        self.repaired = 0
        self.udp_changed = asyncio.Event()
        self.listed = asyncio.Event()
        """Set once the table is compiled from all Services, for this very node."""

    @property
    def table(self) -> Table:
        """What is wanted, as last compiled."""
        return self._wanted.table

    @property
    def node(self) -> NodeInfo:
        return self._wanted.node

    @property
    def disputes(self) -> list[Dispute]:
        """Frontends that more than one Service asks for."""
        return self._wanted.disputes()

    @property
    def unwritten(self) -> dict[str, str]:
        """Service ports with a frontend that is not as wanted, each with the first reason."""
        found: dict[str, str] = {}
        if self._reconciler is not None:
            for key, failure in self._reconciler.failures.items():
                entry = self._wanted.table.get(key)
                if entry is not None and failure.tries:
                    reason = f"BPF map {failure.full} has no room" if failure.full else failure.reason
                    found.setdefault(entry.service, f"{key}: {reason}")
        return found

    @property
    def fill_ratios(self) -> dict[str, float]:
        """Share of each map's room that is used; nothing while the maps are not open."""
        maps, kept = self._maps, self._reconciler
        if maps is None or kept is None:
            return {}
        return {
            "frontends": kept.frontends / maps.frontend_capacity,
            "backends": kept.backends / maps.backend_capacity,
            "sources": kept.sources / maps.source_capacity,
        }

    def behind(self) -> str:
        """Why the table may not be what the cluster wants now; empty when it is."""
        return self._missing() or self._stale() or self.sync.problem

    def _missing(self) -> str:
        if not self._model.complete:
            return "Services and EndpointSlices have not been listed yet"
        return "" if self._node_known else "this node's Node has not been read yet"

    async def set_node(self, node: NodeInfo) -> None:
        """Compile anew if the node is not what it was. Nothing is filled in before this was called once."""
        async with self._lock:
            self._node_known = True
            if node != self._wanted.node:
                self._wanted.set_node(node, self._model)
                self._model.changed.set()

    async def fill(self) -> None:
        """Open the maps if they are not, and make them hold the table. Raises Waiting, OSError, NotLoaded."""
        missing = self._missing()
        if missing:
            raise Waiting(missing)
        async with self._lock:
            began, first = time.monotonic(), self._reconciler is None
            if self._reconciler is None:
                self._maps = await self._call(self._open_maps)
                self._reconciler = Reconciler(self._maps)
            self._begin()
            self._refresh()
            self._note(await self._call(self._reconciler.sync, dict(self._wanted.table)))
            self._took(began, self._wanted.table, full=True)
            if first:
                counts = {"frontends": self.sync.frontends, "backends": self.sync.backends}
                log.info("maps filled", extra={**counts, "seconds": round(time.monotonic() - began, 3)})
            await self._write_names()

    async def verify(self) -> list[str]:
        """Read the maps anew, repair what differs, and tell what that was. Raises OSError."""
        async with self._lock:
            if self._reconciler is None:
                return []
            differences: list[str] = await self._call(self._reconciler.verify)
            if differences:
                self.repaired += len(differences)
                log.warning("maps repaired", extra={"differences": len(differences), "first": differences[0]})
            return differences

    async def move(self, maps: PinnedMaps, take: Callable[[], Awaitable[None]]) -> None:
        """Fill other maps with the table, then `take` them into use; changes wait meanwhile. Raises what `take` raises
        and TableNotMoved; then the maps are closed where nobody knows which ones are in use, until `fill`.
        """
        async with self._lock:
            old, kept = self._maps, self._reconciler
            if old is None or kept is None:
                maps.close()
                raise TableNotMoved("the maps are not open")
            fresh = Reconciler(maps, identities=kept.identities)
            try:
                report = await self._call(fresh.sync, dict(kept.wanted))
                if report.failed:
                    key, reason = next(iter(report.failed.items()))
                    raise TableNotMoved(f"{len(report.failed)} frontends, first {key}: {reason}")
            except (OSError, TableNotMoved):
                maps.close()
                raise
            try:
                await take()
            except BaseException:
                self._maps = self._reconciler = None
                for each in (old, maps):
                    await self._call(each.close)
                self._set(self.sync.closed("maps are being replaced"))
                raise
            self._maps, self._reconciler = maps, fresh
            await self._call(old.close)
            self._note(report)

    async def close(self) -> None:
        """Stop writing: the maps are about to go."""
        async with self._lock:
            maps, self._maps, self._reconciler = self._maps, None, None
            if maps is not None:
                await self._call(maps.close)
            self._set(Sync())
            self._names_revision = -1
            await self._call(self._names.remove)

    async def run(self) -> None:
        """Until cancelled: write what changes."""
        try:
            while True:
                await self._wait()
                if self._model.complete:
                    await self._follow()
                    self._followed_at = time.monotonic()
        finally:
            self._call.end()

    async def _wait(self) -> None:
        limit = self._retry_in_s
        if limit is None and self._names_due:
            limit = max(0.0, self._names_from - time.monotonic())
        try:
            async with asyncio.timeout(limit):
                await self._model.changed.wait()
                await asyncio.sleep(gathering_s(time.monotonic() - self._followed_at))
        except TimeoutError:
            return

    async def _follow(self) -> None:
        async with self._lock:
            began = time.monotonic()
            delta = self._refresh()
            if self._reconciler is None:
                self._retry_in_s = None
                self._model.triggers.clear()  # nobody is going to write for them
                return
            self._begin()
            if delta:
                self.sync = self.sync.waiting(datetime.now(UTC))
            try:
                self._note(await self._call(self._reconciler.sync_changes, dict(delta)))
                self._took(began, delta, full=False)
            except OSError as error:
                self._fail(f"the maps cannot be read: {error}")
            if any(key.protocol.name == "UDP" for key in delta):
                self.udp_changed.set()
            if self._names_due and time.monotonic() >= self._names_from:
                await self._write_names()

    def _refresh(self) -> Delta:
        delta = self._wanted.refresh(self._model)
        # Before that, what was there is what we did not know, not what the cluster wanted.
        if self.listed.is_set():
            self.lately.note(self._wanted.replaced)
        if self._node_known:
            self.listed.set()
        return delta

    @property
    def _names_due(self) -> bool:
        return self._reconciler is not None and self._reconciler.names_revision != self._names_revision

    async def _write_names(self) -> None:
        """They are for people; where many Services come and go, writing them costs more than the maps do."""
        reconciler = self._reconciler
        if reconciler is not None:
            revision, self._names_from = reconciler.names_revision, time.monotonic() + _NAMES_EVERY_S
            try:
                await self._call(self._names.write, reconciler.names())
                self._names_revision = revision
            except OSError as error:
                log.warning("the names file could not be written", extra={"error": str(error)})

    def _note(self, report: SyncReport) -> None:
        reconciler = self._reconciler
        if reconciler is None:
            return
        self._retry_in_s = report.retry_in_s
        self._set(self.sync.written(report, reconciler.frontends, reconciler.backends, datetime.now(UTC)))

    def _fail(self, problem: str) -> None:
        if problem != self.sync.problem:
            log.error("maps could not be written", extra={"problem": problem})
        self._retry_in_s = 1.0
        self._set(self.sync.not_written(problem, datetime.now(UTC)))

    def _begin(self) -> None:
        if self._watched is not None:
            self._watched.begin()

    def _took(self, began: float, keys: Iterable[FrontendKey], *, full: bool) -> None:
        if self._watched is not None:
            found = {is_ipv4(key.address) for key in keys}
            families = [name for name, ipv4 in (("IPv4", True), ("IPv6", False)) if ipv4 in found]
            seconds = time.monotonic() - began
            self._watched.synced(full=full, seconds=seconds, families=families, in_sync=self.sync.in_sync)

    def _set(self, sync: Sync) -> None:
        self.sync = sync
        self._changed(sync)
