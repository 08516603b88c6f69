"""Make the kernel's maps hold the wanted table, and keep it so.

One way for everything: the difference between what is wanted and what is held is written in the order of
`diff`. A failure leaves the old entry in force and is tried again with growing pauses, frontend by frontend;
what a failed batch has written is found out by reading it back, never guessed. `verify` reads the kernel anew
and repairs what differs.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from handover_agent.admission import Admission, is_filtered
from handover_agent.diff import Held, Region, changes, tell
from handover_agent.held import Holdings
from handover_agent.identity import Identities
from handover_agent.regions import GRACE_S, RegionsResting
from handover_agent.table import Entry, FrontendFlags, FrontendKey, FrontendValue, MapFull, Maps, Table
from handover_agent.writing import Batch

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frontend is not as wanted yet, and when that is tried again (on the reconciler's clock)."""

    reason: str
    tries: int
    due: float
    full: str = ""  # the map that has no room for it


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did and what is left to do."""

    written: int = 0  # frontends inserted or flipped
    deleted: int = 0
    failed: Mapping[FrontendKey, str] = field(
        default_factory=dict
    )  # with the reason; the old entries are in force
    retry_in_s: float | None = None  # sync again then; None when nothing failed
    full: Mapping[str, int] = field(
        default_factory=dict
    )  # maps without room, and for how many of these frontends

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
        self,
        maps: Maps,
        clock: Callable[[], float] = time.monotonic,
        *,
        grace_s: float = GRACE_S,
        identities: Identities | None = None,
    ) -> None:
        """`identities`: those of other maps, whose place these are going to take."""
        self._maps, self._clock = maps, clock
        self._held = Holdings(maps, clock, grace_s)
        self._read = False  # whether `_held` is what the kernel has
        self._identities = identities or Identities()
        self._admission = Admission(maps, self._identities.number)
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
    def sources(self) -> int:
        """Rows of source ranges in the kernel."""
        return self._admission.rows

    @property
    def failures(self) -> Mapping[FrontendKey, Failure]:
        """The frontends that are not as wanted, and why."""
        return dict(self._failures)

    @property
    def identities(self) -> Identities:
        """Who has which number."""
        return self._identities

    @property
    def names_revision(self) -> int:
        """Another number whenever `names` has other content."""
        return self._identities.revision

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
            self._admission.expect(self._want)
            now = self._clock()
            waiting = {key for key, failure in self._failures.items() if failure.due > now}
            keys = [*self._want, *(key for key in self._held.frontends if key not in self._want)]
            return self._write(
                [key for key in keys if key not in waiting] if waiting else keys, self._admission.strangers()
            )

    def sync_changes(self, delta: Mapping[FrontendKey, Entry | None]) -> SyncReport:
        """Change the wanted table by this much (None: not wanted any more), and try again what failed and is due.
        Raises OSError as `sync` does.
        """
        with self._lock:
            for key, entry in delta.items():
                self._failures.pop(key, None)
                before = self._want.pop(key, None)
                if entry is not None:
                    self._want[key] = entry
                if self._read:
                    self._admission.change(key, before, entry)
            self._ensure_read()
            return self._write([*delta, *self._due()])

    def verify(self) -> list[str]:
        """Read the kernel, repair what is not as wanted, and tell what that was, readably. Raises OSError."""
        with self._lock:
            self._ensure_read()
            self._held.recheck()
            self._admission.read()
            found = changes(self._held.frontends, self._want, self._identities.number)
            differences = [
                *tell(found, self._held.frontends, self._want, self._identities.number),
                *self._admission.differences(self._identities.names()),
            ]
            if differences:
                self._failures = {}
                filtered = (key for key, entry in self._want.items() if is_filtered(entry))
                keys = dict.fromkeys([*found.flips, *found.deletes, *found.inserts, *filtered])
                self._write(list(keys), self._admission.strangers())
            return differences

    def _ensure_read(self) -> None:
        if not self._read:
            self._held.read()
            self._admission.read()
            self._read = True
            self._adopt_identities()
            self._admission.expect(self._want)

    def _adopt_identities(self) -> None:
        for key, held in self._held.frontends.items():
            entry = self._want.get(key)
            if entry is not None:
                self._identities.adopt(entry.service, held.value.service_id)

    def _due(self) -> list[FrontendKey]:
        now = self._clock()
        return [key for key, failure in self._failures.items() if failure.due <= now]

    def _write(self, keys: Collection[FrontendKey], strangers: Collection[int] = ()) -> SyncReport:
        """Write these, and remove the source ranges of `strangers`."""
        tries = {key: failure.tries for key, failure in self._failures.items()}
        for key in keys:
            self._failures.pop(key, None)
        batch = Batch(self._maps, self._held)
        filtered = {k: entry for k in keys if (entry := self._want.get(k)) is not None and is_filtered(entry)}
        numbers = {*strangers, *self._asking(keys), *self._numbers(filtered.values())}
        for key, error in self._admission.admit(filtered).items():
            batch.failed[key] = f"source ranges could not be written: {error}"
            if isinstance(error, MapFull):
                batch.full[key] = error.name
        numbers -= self._numbers(
            filtered[key] for key in batch.failed
        )  # who lacks new ones keeps the old ones
        todo = changes(
            self._held.frontends,
            self._want,
            self._identities.number,
            [key for key in keys if key not in batch.failed] if batch.failed else keys,
        )
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
        if numbers and not batch.blind:
            batch.failed |= self._admission.dismiss(numbers, self._held.asking)
        for key, reason in batch.failed.items():
            self._fail(key, reason, tries.get(key, 0), batch.full.get(key, ""))
        if batch.blind:
            self._read = False  # start from the kernel's truth next time
        if len(self._identities) > 2 * len(self._want) + 64:
            self._identities.keep({entry.service for entry in self._want.values()})
        return self._report(written, deleted)

    def _numbers(self, entries: Iterable[Entry]) -> set[int]:
        return {self._identities.number(entry.service) for entry in entries}

    def _asking(self, keys: Iterable[FrontendKey]) -> set[int]:
        """The numbers by which these frontends, as they are in the kernel, ask for source ranges."""
        held = [self._held.frontends.get(key) for key in keys]
        return {h.value.service_id for h in held if h is not None and h.value.flags & FrontendFlags.SOURCES}

    def _prepare(
        self, keys: list[FrontendKey], new: list[Region], tries: Mapping[FrontendKey, int]
    ) -> dict[FrontendKey, Held]:
        """Reserve a region for each frontend; one that finds none keeps what it has."""
        ready: dict[FrontendKey, Held] = {}
        for key in keys:
            entry = self._want[key]
            try:
                region, fresh = self._held.region(entry.slots)
            except RegionsResting as error:
                self._failures[key] = Failure(str(error), tries.get(key, 0), error.until)
                continue
            except MapFull as error:
                self._fail(key, str(error), tries.get(key, 0), error.name)
                continue
            if fresh and region is not None:
                new.append(region)
            value = FrontendValue(
                offset=region.offset if region else 0,
                count=len(entry.backends),
                service_id=self._identities.number(entry.service),
                flags=entry.flags,
                affinity_timeout_s=entry.affinity_timeout_s,
                serving=entry.serving,
            )
            ready[key] = Held(value, region)
        return ready

    def _fail(self, key: FrontendKey, reason: str, tries: int, full: str = "") -> None:
        pause = min(RETRY_FIRST_S * 2.0 ** min(tries, 16), RETRY_MOST_S)
        self._failures[key] = Failure(reason, tries + 1, self._clock() + pause, full)

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
            Counter(failure.full for failure in self._failures.values() if failure.full),
        )
