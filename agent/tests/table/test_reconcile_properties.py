"""At every moment of every order of syncs, faults and restarts, a program finds one whole wanted set of
backends.

A program's run is modelled as two reads: a frontend's value, and, at most one grace period later, all of its
region. Both are done at every single write that reaches the maps.
"""

from collections import defaultdict
from itertools import pairwise

import pytest
from handover_agent.identity import candidates
from handover_agent.reconcile import Reconciler
from handover_agent.table import (
    Backend,
    Entry,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Prefix,
    Source,
    ip_bytes,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from tests.fakes.clock import Clock
from tests.fakes.maps import FakeMaps, Fault
from tests.table.wanting import entry, key

pytestmark = pytest.mark.unit

GRACE_S = 2.0
KEYS = [key(f"10.96.0.{n}") for n in range(6)]
OPERATIONS = [
    *("write_frontends", "delete_frontends", "write_backends", "read_frontends", "read_backends"),
    *("write_sources", "delete_sources", "read_sources"),
]

PREFIXES = [Prefix(ip_bytes(f"10.{n}.0.0"), 112) for n in range(3)]


def made(backends: list[str], draining: int, service: str, affinity: bool, sources: list[Prefix]) -> Entry:
    flags = FrontendFlags.AFFINITY if affinity else FrontendFlags.NONE
    if sources:
        flags |= FrontendFlags.SOURCES
    chosen, rest = backends[draining:], backends[:draining]
    found = entry(*chosen, service=f"a/{service}:p/UDP", flags=flags, draining=rest)
    return replace(found, sources=tuple(sorted(sources)))


entries = st.builds(
    made,
    st.lists(st.sampled_from([f"10.1.1.{n}:80" for n in range(5)]), unique=True, max_size=4),
    st.integers(0, 2),
    st.sampled_from("xyz"),
    st.booleans(),
    st.lists(st.sampled_from(PREFIXES), unique=True, max_size=2),
)
keys = st.sampled_from(KEYS)
times = st.sampled_from([0.0, 0.1, 0.5, 1.9, 2.0, 5.0, 40.0])


class Readers(RuleBasedStateMachine):
    """Wishes, faults and restarts as they come, with readers that look on at every write."""

    @initialize(frontends=st.sampled_from([4, 100]), backends=st.sampled_from([10, 80]))
    def start(self, frontends: int, backends: int) -> None:
        self.roomy = frontends == 100 and backends == 80
        self.clock = Clock()
        self.maps = FakeMaps(frontend_capacity=frontends, backend_capacity=backends, on_write=self.look)
        self.reconciler = Reconciler(self.maps, self.clock, grace_s=GRACE_S)
        self.want: dict[FrontendKey, Entry] = {}
        self.asked: defaultdict[tuple[FrontendKey, int], list[set[Prefix]]] = defaultdict(list)
        self.ever: defaultdict[FrontendKey, set[tuple[tuple[Backend, ...], ...]]] = defaultdict(set)
        self.reading: dict[tuple[FrontendKey, FrontendValue], float] = {}  # when the value was last in force

    def look(self) -> None:
        for frontend, value in self.maps.frontends.items():
            self.reading[frontend, value] = self.clock()
        for (frontend, value), since in list(self.reading.items()):
            if self.clock() - since >= GRACE_S - 1e-6:  # sums of floats
                del self.reading[frontend, value]
                continue
            slots = tuple(self.maps.region(value))
            found = slots[: value.count], slots[value.count :]
            assert found in self.ever[frontend], f"{frontend} led to {[str(b) for b in slots]}"
        for frontend, value in self.maps.frontends.items():
            if value.flags & FrontendFlags.SOURCES:
                rows = {row.prefix for row in self.maps.sources if row.service_id == value.service_id}
                lately = self.asked[frontend, value.service_id]
                assert not lately or any(rows & asked for asked in lately), f"{frontend} lets nobody in"

    def wish(self, change: dict[FrontendKey, Entry | None]) -> None:
        for frontend, wanted in change.items():
            if wanted is None:
                self.want.pop(frontend, None)
            else:
                self.want[frontend] = wanted
                self.ever[frontend].add((wanted.backends, wanted.slots[len(wanted.backends) :]))
                if wanted.sources:
                    number = next(candidates(wanted.service))
                    self.asked[frontend, number].append(set(wanted.sources))

    @rule(table=st.dictionaries(keys, entries))
    def sync(self, table: dict[FrontendKey, Entry]) -> None:
        self.wish({frontend: table.get(frontend) for frontend in KEYS})
        self.attempt(lambda: self.reconciler.sync(self.want))

    @rule(change=st.dictionaries(keys, st.none() | entries, max_size=3))
    def sync_changes(self, change: dict[FrontendKey, Entry | None]) -> None:
        self.wish(change)
        self.attempt(lambda: self.reconciler.sync_changes(change))

    @rule()
    def retry(self) -> None:
        self.attempt(lambda: self.reconciler.sync_changes({}))

    @rule()
    def verify(self) -> None:
        self.attempt(self.reconciler.verify)

    @rule(seconds=times)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(operation=st.sampled_from(OPERATIONS), after=st.integers(0, 8), count=st.integers(1, 30))
    def fault(self, operation: str, after: int, count: int) -> None:
        self.maps.faults.append(Fault(operation, after, count))

    @rule(after=st.integers(0, 8))
    def blackout(self, after: int) -> None:
        """A write fails and what happened cannot be read."""
        self.maps.faults += [Fault("write_frontends", after), Fault("read_frontends")]

    @precondition(lambda self: self.maps.faults)
    @rule()
    def recover(self) -> None:
        self.maps.faults.clear()

    @rule(seconds=times)
    def restart(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.reconciler = Reconciler(self.maps, self.clock, grace_s=GRACE_S)
        if not self.maps.frontends:
            self.reading.clear()  # programs that ran before this process was started have ended
        self.attempt(lambda: self.reconciler.sync(self.want))

    def attempt(self, call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except OSError as error:
            assert "injected" in str(error)

    @invariant()
    def users_of_the_array_do_not_overlap(self) -> None:
        if not hasattr(self, "maps"):
            return
        spans = sorted({(v.offset, v.slots) for v in self.maps.frontends.values() if v.slots})
        for (one, size), (two, _) in pairwise(spans):
            assert one + size <= two

    def teardown(self) -> None:
        """Once nothing fails any more, the maps become what is wanted, and then nothing is written."""
        if not hasattr(self, "maps"):
            return
        self.maps.faults.clear()
        self.clock.advance(60)
        report = self.reconciler.sync(self.want)
        if not self.roomy:
            return
        for _ in range(5):
            if report.in_sync:
                break
            self.clock.advance(report.retry_in_s or 0)
            report = self.reconciler.sync_changes({})
        assert report.in_sync
        assert self.maps.frontends.keys() == self.want.keys()
        for frontend, wanted in self.want.items():
            assert self.maps.lookup(frontend) == list(wanted.slots)
            assert self.maps.frontends[frontend].count == len(wanted.backends)
            assert self.maps.frontends[frontend].flags == wanted.flags
        assert self.maps.sources == {
            Source(self.maps.frontends[frontend].service_id, prefix)
            for frontend, wanted in self.want.items()
            for prefix in wanted.sources
        }
        before = self.maps.writes
        assert self.reconciler.sync(self.want).in_sync
        assert self.reconciler.verify() == []
        assert self.maps.writes == before


TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
