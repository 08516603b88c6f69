"""Make the kernel's maps hold the wanted table, and keep it so.

One way for everything: the difference between what is wanted and what is held is written in the order of
`diff`. A failure leaves the old entry in force and is tried again with growing pauses, frontend by frontend;
what a failed batch has written is found out by reading it back, never guessed. `verify` reads the kernel anew
and repairs what differs.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from handover_agent.diff import Held, Region, changes
from handover_agent.held import Holdings
from handover_agent.identity import Identities
from handover_agent.regions import GRACE_S, RegionsResting
from handover_agent.table import Backend, Entry, FrontendKey, FrontendValue, MapFull, Maps, Table
from handover_agent.writing import Batch

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frontend is not as wanted yet, and when that is tried again (on the reconciler's clock)."""

    reason: str
    tries: int
    due: float


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did and what is left to do."""

    written: int = 0  # frontends inserted or flipped
    deleted: int = 0
    failed: Mapping[FrontendKey, str] = field(
        default_factory=dict
    )  # with the reason; the old entries are in force
    retry_in_s: float | None = None  # call `retry` then; None when nothing failed

    @property
    def in_sync(self) -> bool:
        """Whether the maps hold what is wanted."""
        return not self.failed


class Reconciler:
    """Writes the wanted table into the maps. Calls block and may come from any thread, one after the other.

    The kernel is read at the first sync; from then on only what is written by others is missed, until
    `verify`.
    """

    def __init__(
        self, maps: Maps, clock: Callable[[], float] = time.monotonic, *, grace_s: float = GRACE_S
    ) -> None:
        self._maps, self._clock = maps, clock
        self._held = Holdings(maps, clock, grace_s)
        self._read = False  # whether `_held` is what the kernel has
        self._identities = Identities()
        self._want: dict[FrontendKey, Entry] = {}
        self._failures: dict[FrontendKey, Failure] = {}
        self._lock = threading.Lock()

    @property
    def wanted(self) -> Table:
        """The table as last given."""
        return self._want

    @property
    def frontends(self) -> int:
        """Frontends in the kernel."""
        return len(self._held.frontends)

    @property
    def backends(self) -> int:
        """Slots of the backend array in use."""
        return self._held.regions.used

    @property
    def failures(self) -> Mapping[FrontendKey, Failure]:
        """The frontends that are not as wanted, and why."""
        return dict(self._failures)

    def names(self) -> dict[int, str]:
        """The Service port behind each number in the kernel, for people. May come from any thread."""
        with self._lock:
            return self._identities.names()

    def sync(self, wanted: Table) -> SyncReport:
        """Make this the wanted table; frontends that are not in it are removed.

        Raises OSError when the maps cannot be read; what cannot be written is in the report.
        """
        with self._lock:
            self._failures = {k: f for k, f in self._failures.items() if self._want.get(k) == wanted.get(k)}
            self._want = dict(wanted)
            self._ensure_read()
            now = self._clock()
            waiting = {key for key, failure in self._failures.items() if failure.due > now}
            keys = [*self._want, *(key for key in self._held.frontends if key not in self._want)]
            return self._write([key for key in keys if key not in waiting] if waiting else keys)

    def sync_changes(self, delta: Mapping[FrontendKey, Entry | None]) -> SyncReport:
        """Change the wanted table by this much (None: not wanted any more). Raises OSError as `sync` does."""
        with self._lock:
            for key, entry in delta.items():
                self._failures.pop(key, None)
                if entry is None:
                    self._want.pop(key, None)
                else:
                    self._want[key] = entry
            self._ensure_read()
            return self._write([*delta, *self._due()])

    def retry(self) -> SyncReport:
        """Try again what failed and is due."""
        return self.sync_changes({})

    def verify(self) -> list[str]:
        """Read the kernel, repair what is not as wanted, and tell what that was, readably. Raises OSError."""
        with self._lock:
            self._ensure_read()
            self._held.recheck()
            found = changes(self._held.frontends, self._want, self._identities.number)
            differences = [
                *(f"{key} is missing: {self._want[key].service}" for key in found.inserts),
                *(f"{key} is not wanted by any Service" for key in found.deletes),
                *(f"{key} {self._unlike(key)}" for key in found.flips),
            ]
            if differences:
                self._failures = {}
                self._write([*found.flips, *found.deletes, *found.inserts])
            return differences

    def _unlike(self, key: FrontendKey) -> str:
        held, entry = self._held.frontends[key], self._want[key]
        if held.region is not None and held.region.backends is None:
            return "points at a region that is another one's, or none"
        has = held.region.backends if held.region and held.region.backends else ()
        if has != entry.backends:
            return f"has backends [{_join(has)}] instead of [{_join(entry.backends)}]"
        value, number = held.value, self._identities.number(entry.service)
        return (
            f"has flags {value.flags!r}, affinity {value.affinity_timeout_s} s, number {value.service_id} "
            f"instead of {entry.flags!r}, {entry.affinity_timeout_s} s, {number}"
        )

    def _ensure_read(self) -> None:
        if not self._read:
            self._held.read()
            self._read = True
            self._adopt_identities()

    def _adopt_identities(self) -> None:
        for key, held in self._held.frontends.items():
            entry = self._want.get(key)
            if entry is not None:
                self._identities.adopt(entry.service, held.value.service_id)

    def _due(self) -> list[FrontendKey]:
        now = self._clock()
        return [key for key, failure in self._failures.items() if failure.due <= now]

    def _write(self, keys: Collection[FrontendKey]) -> SyncReport:
        todo = changes(self._held.frontends, self._want, self._identities.number, keys)
        tries = {key: failure.tries for key, failure in self._failures.items()}
        for key in keys:
            self._failures.pop(key, None)
        batch = Batch(self._maps, self._held)
        fresh: list[Region] = []
        flips = self._prepare(todo.flips, fresh, tries)
        inserts = self._prepare(todo.inserts, fresh, tries)
        for region, reason in batch.write_regions(fresh):
            for ready in (flips, inserts):
                for key in [key for key, held in ready.items() if held.region is region]:
                    self._held.leave(ready.pop(key).region)
                    batch.failed[key] = reason
        written = batch.put(flips)
        deleted = batch.delete(todo.deletes)
        written += batch.put(inserts)
        for key, reason in batch.failed.items():
            self._fail(key, reason, tries.get(key, 0))
        if batch.blind:
            self._read = False  # start from the kernel's truth next time
        if len(self._identities) > 2 * len(self._want) + 64:
            self._identities.keep({entry.service for entry in self._want.values()})
        return self._report(written, deleted)

    def _prepare(
        self, keys: list[FrontendKey], new: list[Region], tries: Mapping[FrontendKey, int]
    ) -> dict[FrontendKey, Held]:
        """Reserve a region for each frontend; one that finds none keeps what it has."""
        ready: dict[FrontendKey, Held] = {}
        for key in keys:
            entry = self._want[key]
            try:
                region, fresh = self._held.region(entry.backends)
            except RegionsResting as error:
                self._failures[key] = Failure(str(error), tries.get(key, 0), error.until)
                continue
            except MapFull as error:
                self._fail(key, str(error), tries.get(key, 0))
                continue
            if fresh and region is not None:
                new.append(region)
            value = FrontendValue(
                offset=region.offset if region else 0,
                count=len(entry.backends),
                service_id=self._identities.number(entry.service),
                flags=entry.flags,
                affinity_timeout_s=entry.affinity_timeout_s,
            )
            ready[key] = Held(value, region)
        return ready

    def _fail(self, key: FrontendKey, reason: str, tries: int) -> None:
        pause = min(RETRY_FIRST_S * 2.0 ** min(tries, 16), RETRY_MOST_S)
        self._failures[key] = Failure(reason, tries + 1, self._clock() + pause)

    def _report(self, written: int, deleted: int) -> SyncReport:
        if not self._failures:
            return SyncReport(written, deleted)
        if all(failure.tries for failure in self._failures.values()):
            key, failure = next(iter(self._failures.items()))
            log.warning(
                "frontends are not as wanted yet",
                extra={"frontends": len(self._failures), "first": str(key), "error": failure.reason},
            )
        due = min(failure.due for failure in self._failures.values())
        return SyncReport(
            written,
            deleted,
            {key: failure.reason for key, failure in self._failures.items()},
            max(0.0, due - self._clock()),
        )


def _join(backends: Iterable[Backend]) -> str:
    return " ".join(str(backend) for backend in backends)
