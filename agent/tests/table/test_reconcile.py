"""The reconciler makes the maps hold what is wanted, whatever fails on the way."""

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
    Table,
    ip_bytes,
)
from msgspec.structs import replace
from tests.fakes.clock import Clock
from tests.fakes.maps import FakeMaps, Fault
from tests.table.wanting import backend, entry, key

pytestmark = pytest.mark.unit

A, B, C = key("10.96.0.1"), key("10.96.0.2"), key("10.96.0.3")


def many(count: int, port: int = 8080) -> dict[FrontendKey, Entry]:
    """So many frontends of one backend each."""
    return {
        key(f"10.96.{n >> 8}.{n & 255}"): entry(f"10.1.{n >> 8}.{n & 255}:{port}", service=f"a/s{n}:p/TCP")
        for n in range(count)
    }


@pytest.fixture
def maps() -> FakeMaps:
    return FakeMaps(frontend_capacity=1000, backend_capacity=2000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reconciler(maps: FakeMaps, clock: Clock) -> Reconciler:
    return Reconciler(maps, clock, grace_s=2.0)


def holds(maps: FakeMaps, table: Table) -> bool:
    """Whether a program would find exactly this table."""
    return maps.frontends.keys() == table.keys() and all(
        maps.lookup(k) == list(e.backends)
        and maps.frontends[k].flags == e.flags
        and maps.frontends[k].affinity_timeout_s == e.affinity_timeout_s
        for k, e in table.items()
    )


class TestWithoutFaults:
    def test_a_first_sync_writes_everything(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        table = {
            A: entry("10.1.1.1:80", "10.1.1.2:80"),
            B: entry(service="a/b:p/TCP"),
            C: entry("10.1.1.9:80", service="a/c:p/TCP", flags=FrontendFlags.AFFINITY, affinity_timeout_s=60),
        }
        report = reconciler.sync(table)
        assert (report.written, report.deleted, report.in_sync, report.retry_in_s) == (3, 0, True, None)
        assert holds(maps, table)
        assert (reconciler.frontends, reconciler.backends) == (3, 3)

    def test_a_second_sync_writes_nothing(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        reconciler.sync(many(20))
        before = maps.writes
        report = reconciler.sync(many(20))
        assert (maps.writes, report.written, report.deleted) == (before, 0, 0)

    def test_a_restarted_agent_finds_its_table_and_writes_nothing(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        reconciler.sync(many(20))
        before = maps.writes
        assert Reconciler(maps, clock).sync(many(20)).in_sync
        assert maps.writes == before

    def test_what_is_not_wanted_is_pruned(self, maps: FakeMaps, reconciler: Reconciler, clock: Clock) -> None:
        reconciler.sync({A: entry("10.1.1.1:80"), B: entry("10.1.1.2:80", service="a/b:p/TCP")})
        report = Reconciler(maps, clock).sync({A: entry("10.1.1.1:80")})
        assert (report.written, report.deleted) == (0, 1)
        assert maps.frontends.keys() == {A}

    def test_changes_touch_only_what_they_name(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        table = many(20)
        reconciler.sync(table)
        before = maps.writes
        new = entry("10.1.1.1:80", "10.1.1.2:80", service="a/s0:p/TCP")
        first, second = list(table)[:2]
        report = reconciler.sync_changes({first: new, second: None})
        assert (report.written, report.deleted) == (1, 1)
        assert maps.writes - before == 2 + 1 + 1  # two backends, a flip, a deletion
        assert holds(maps, {k: new if k == first else e for k, e in table.items() if k != second})

    def test_a_changed_set_of_backends_gets_a_region_of_its_own(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80", "10.1.1.2:80")})
        old = maps.frontends[A]
        reconciler.sync({A: entry("10.1.1.1:80", "10.1.1.3:80")})
        assert maps.frontends[A].offset != old.offset
        assert maps.region(old) == [backend("10.1.1.1:80"), backend("10.1.1.2:80")]

    def test_frontends_with_the_same_backends_share_a_region(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80"), B: entry("10.1.1.1:80")})
        assert maps.frontends[A].offset == maps.frontends[B].offset
        assert reconciler.backends == 1
        reconciler.sync_changes({A: entry("10.1.1.2:80")})
        assert maps.lookup(B) == [backend("10.1.1.1:80")]
        assert reconciler.backends == 2

    def test_behind_those_that_new_connections_go_to_all_that_serve_stand_once_more(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80", "10.1.1.2:80")})
        before = maps.frontends[A]
        reconciler.sync({A: entry("10.1.1.2:80", draining=["10.1.1.1:80"])})
        assert maps.lookup(A) == [backend(f"10.1.1.{n}:80") for n in (2, 1, 2)]
        assert maps.frontends[A] == replace(before, offset=maps.frontends[A].offset, count=1, serving=2)
        assert maps.frontends[A].offset != before.offset
        assert reconciler.verify() == []

    def test_a_frontend_that_only_keeps_flows_has_a_region_too(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        wanted = {A: entry(flags=FrontendFlags.DROP, draining=["10.1.1.1:80"]), B: entry("10.1.1.2:80")}
        reconciler.sync(wanted)
        assert maps.lookup(A) == [backend("10.1.1.1:80")]
        writes, again = maps.writes, Reconciler(maps, clock)
        again.sync(wanted)
        assert (again.verify(), again.backends, maps.writes) == ([], 2, writes)

    def test_a_region_is_used_again_after_its_grace_period(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80")})
        reconciler.sync({A: entry("10.1.1.2:80")})
        clock.advance(2.0)
        reconciler.sync({A: entry("10.1.1.3:80")})
        assert maps.frontends[A].offset == 0

    def test_only_the_flags_change(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        reconciler.sync({A: entry(flags=FrontendFlags.DROP)})
        reconciler.sync({A: entry(flags=FrontendFlags.REFUSE)})
        assert maps.frontends[A].flags == FrontendFlags.REFUSE

    def test_a_services_number_is_the_same_for_all_its_frontends_and_after_a_restart(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80"), B: entry("10.1.1.1:80")})
        number = maps.frontends[A].service_id
        assert maps.frontends[B].service_id == number
        Reconciler(maps, clock).sync({A: entry("10.1.1.1:80"), C: entry("10.1.1.1:80")})
        assert maps.frontends[C].service_id == number

    def test_after_a_restart_a_number_that_the_kernel_has_goes_before_the_first_candidate(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        second = list(candidates("default/web:http/TCP"))[1]
        maps.write_backends(0, [backend("10.1.1.1:80")])
        maps.write_frontends({A: FrontendValue(0, 1, second)})
        before = maps.writes
        reconciler.sync({A: entry("10.1.1.1:80")})
        assert maps.writes == before
        assert maps.frontends[A].service_id == second

    def test_a_frontend_that_goes_to_another_service_gets_that_ones_number(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        reconciler.sync({A: entry("10.1.1.1:80")})
        number = maps.frontends[A].service_id
        reconciler.sync({A: entry("10.1.1.1:80", service="default/other:http/TCP")})
        assert maps.frontends[A].service_id != number


class TestFaults:
    @pytest.mark.parametrize("operation", ["write_frontends", "delete_frontends", "write_backends"])
    @pytest.mark.parametrize("after", range(0, 40, 3))
    def test_a_write_that_fails_once_is_made_good_in_the_same_sync(
        self, maps: FakeMaps, reconciler: Reconciler, operation: str, after: int
    ) -> None:
        old, new = many(40), dict(list(many(40, port=9090).items())[20:])
        reconciler.sync(old)
        maps.faults.append(Fault(operation, after=min(after, 18)))
        report = reconciler.sync(new)
        assert not maps.faults, "the fault was not met"
        assert report.in_sync
        assert holds(maps, new)

    def test_one_bad_frontend_does_not_keep_the_others_from_being_served(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        table = many(500)
        bad = list(table)[250]
        maps.faults.append(Fault("write_frontends", times=1000, key=bad))
        report = reconciler.sync(table)
        assert set(report.failed) == {bad}
        assert report.written == 499
        assert maps.calls < 12, "it was searched for, though the kernel's answer tells which one it is"
        assert "injected fault" in report.failed[bad]
        maps.faults.clear()
        clock.advance(report.retry_in_s or 0)
        assert reconciler.sync_changes({}).in_sync
        assert holds(maps, table)

    def test_pauses_between_tries_grow(self, maps: FakeMaps, reconciler: Reconciler, clock: Clock) -> None:
        maps.faults.append(Fault("write_frontends", times=1000, key=A))
        report = reconciler.sync({A: entry("10.1.1.1:80")})
        pauses = []
        for _ in range(12):
            assert report.retry_in_s is not None
            pauses.append(report.retry_in_s)
            calls = maps.calls
            reconciler.sync_changes({})
            assert maps.calls == calls, "it was tried before it was due"
            clock.advance(report.retry_in_s)
            report = reconciler.sync_changes({})
        assert pauses == sorted(pauses)
        assert pauses[0] < 0.2
        assert pauses[-1] == pytest.approx(30.0)

    def test_a_new_wish_for_a_failed_frontend_is_tried_at_once(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        maps.faults.append(Fault("write_frontends", key=A))
        assert not reconciler.sync({A: entry("10.1.1.1:80")}).in_sync
        assert reconciler.sync({A: entry("10.1.1.2:80")}).in_sync

    def test_a_failed_frontend_that_is_no_longer_wanted_is_forgotten(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        maps.faults.append(Fault("write_frontends", times=1000, key=A))
        assert not reconciler.sync({A: entry("10.1.1.1:80")}).in_sync
        assert reconciler.sync_changes({A: None}).in_sync
        assert reconciler.failures == {}

    def test_a_kernel_that_takes_nothing_is_left_in_peace_after_some_tries(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        maps.faults.append(Fault("write_frontends", times=10**6))
        report = reconciler.sync(many(400))
        assert len(report.failed) == 400
        assert maps.calls < 100

    def test_when_the_maps_cannot_even_be_read_back_the_next_sync_starts_from_the_kernel(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        old, new = many(20), many(20, port=9090)
        reconciler.sync(old)
        maps.faults += [Fault("write_frontends", after=7), Fault("read_frontends", times=2)]
        report = reconciler.sync(new)
        assert not report.in_sync
        for k in new:
            assert maps.lookup(k) in (list(old[k].backends), list(new[k].backends))
        clock.advance(5)
        with pytest.raises(OSError, match="injected fault in read_frontends"):
            reconciler.sync_changes({})
        while not report.in_sync or not holds(maps, new):
            clock.advance(5)
            report = reconciler.sync_changes({})

    def test_maps_that_cannot_be_read_at_first_are_an_error_and_read_later(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        maps.faults.append(Fault("read_frontends"))
        with pytest.raises(OSError, match="injected fault"):
            reconciler.sync({A: entry("10.1.1.1:80")})
        assert reconciler.sync({A: entry("10.1.1.1:80")}).in_sync


class TestExhaustion:
    def test_a_full_frontend_map_keeps_what_is_in_force_and_says_so(self, clock: Clock) -> None:
        maps = FakeMaps(frontend_capacity=5, backend_capacity=100)
        reconciler = Reconciler(maps, clock)
        reconciler.sync(many(5))
        report = reconciler.sync(many(8))
        assert len(report.failed) == 3
        assert set(report.failed.values()) == {"map frontends is full: it holds 5 entries, 6 are wanted"}
        assert holds(maps, many(5))

    def test_deletions_make_room_for_additions_in_the_same_sync(self, clock: Clock) -> None:
        maps = FakeMaps(frontend_capacity=5, backend_capacity=100)
        reconciler = Reconciler(maps, clock)
        reconciler.sync(many(5))
        table = dict(list(many(9).items())[4:])
        assert reconciler.sync(table).in_sync
        assert holds(maps, table)

    def test_a_full_backend_array_keeps_the_old_entries_in_force(self, clock: Clock) -> None:
        maps = FakeMaps(backend_capacity=4)
        reconciler = Reconciler(maps, clock, grace_s=2)
        reconciler.sync({A: entry("10.1.1.1:80", "10.1.1.2:80")})
        too_many = entry(*(f"10.1.2.{n}:80" for n in range(5)))
        report = reconciler.sync({A: too_many, B: entry("10.1.1.9:80", service="a/b:p/TCP")})
        assert set(report.failed) == {A}
        assert "map backends is full: it holds 4 entries, 7 are wanted" in report.failed[A]
        assert maps.lookup(A) == [backend("10.1.1.1:80"), backend("10.1.1.2:80")]
        assert maps.lookup(B) == [backend("10.1.1.9:80")]

    def test_room_that_rests_is_waited_for(self, clock: Clock) -> None:
        maps = FakeMaps(backend_capacity=4)
        reconciler = Reconciler(maps, clock, grace_s=2)
        reconciler.sync({A: entry("10.1.1.1:80", "10.1.1.2:80", "10.1.1.3:80")})
        reconciler.sync({A: entry("10.1.1.4:80")})
        report = reconciler.sync({A: entry("10.1.1.5:80", "10.1.1.6:80")})
        assert "grace period" in report.failed[A]
        assert report.retry_in_s == pytest.approx(2.0)
        clock.advance(2.0)
        assert reconciler.sync_changes({}).in_sync
        assert maps.lookup(A) == [backend("10.1.1.5:80"), backend("10.1.1.6:80")]


class TestVerify:
    @pytest.fixture
    def table(self, reconciler: Reconciler) -> Table:
        table = {
            A: entry("10.1.1.1:80", "10.1.1.2:80"),
            B: entry("10.1.1.3:80", service="a/b:p/TCP"),
            C: entry(service="a/c:p/TCP"),
        }
        reconciler.sync(table)
        return table

    def test_nothing_is_said_and_written_when_all_is_well(
        self, maps: FakeMaps, reconciler: Reconciler, table: Table
    ) -> None:
        before = maps.writes
        assert reconciler.verify() == []
        assert maps.writes == before
        assert holds(maps, table)

    def test_a_missing_frontend_is_put_back(
        self, maps: FakeMaps, reconciler: Reconciler, table: Table
    ) -> None:
        maps.delete_frontends([A])
        assert reconciler.verify() == ["TCP/10.96.0.1:80 is missing: default/web:http/TCP"]
        assert holds(maps, table)
        assert reconciler.verify() == []

    def test_a_foreign_frontend_is_removed(
        self, maps: FakeMaps, reconciler: Reconciler, table: Table
    ) -> None:
        maps.write_frontends({key("10.96.0.99"): FrontendValue(0, 1, 5)})
        assert reconciler.verify() == ["TCP/10.96.0.99:80 is not wanted by any Service"]
        assert holds(maps, table)

    def test_a_changed_value_is_repaired(self, maps: FakeMaps, reconciler: Reconciler, table: Table) -> None:
        maps.write_frontends({A: maps.frontends[B]})
        (difference,) = reconciler.verify()
        assert difference.startswith("TCP/10.96.0.1:80 points at a region that is another one's, or none")
        assert holds(maps, table)

    def test_changed_flags_are_repaired(self, maps: FakeMaps, reconciler: Reconciler, table: Table) -> None:
        value = maps.frontends[C]
        maps.write_frontends({C: FrontendValue(0, 0, value.service_id, FrontendFlags.DROP)})
        assert len(reconciler.verify()) == 1
        assert holds(maps, table)

    def test_a_changed_number_of_draining_backends_is_repaired(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        wanted = {A: entry("10.1.1.1:80", draining=["10.1.1.2:80"])}
        reconciler.sync(wanted)
        maps.write_backends(maps.frontends[A].offset + 1, [backend("10.1.1.9:80")])
        (difference,) = reconciler.verify()
        assert difference.endswith(
            "has [10.1.1.9:80 10.1.1.2:80] to keep their flows instead of [10.1.1.1:80 10.1.1.2:80]"
        )
        maps.write_frontends({A: replace(maps.frontends[A], serving=0)})
        (difference,) = reconciler.verify()
        assert "points at a region that is another one's" in difference
        assert maps.lookup(A) == [backend(f"10.1.1.{n}:80") for n in (1, 1, 2)]

    def test_overwritten_backends_are_repaired_in_a_new_region(
        self, maps: FakeMaps, reconciler: Reconciler, table: Table
    ) -> None:
        offset = maps.frontends[A].offset
        maps.write_backends(offset, [Backend(bytes(16), 1)])
        (difference,) = reconciler.verify()
        assert "has backends [" in difference
        assert "instead of [10.1.1.1:80 10.1.1.2:80]" in difference
        assert maps.frontends[A].offset != offset
        assert holds(maps, table)

    def test_emptied_maps_are_filled_again(
        self, maps: FakeMaps, reconciler: Reconciler, table: Table
    ) -> None:
        maps.frontends.clear()
        maps.array.clear()
        assert len(reconciler.verify()) == 3
        assert holds(maps, table)


class TestDamageFoundAtStart:
    @pytest.mark.parametrize(
        "found",
        [
            pytest.param({A: FrontendValue(0, 2, 1), B: FrontendValue(1, 2, 2)}, id="regions overlap"),
            pytest.param({A: FrontendValue(0, 2, 1), B: FrontendValue(0, 1, 2)}, id="one inside another"),
            pytest.param({A: FrontendValue(1999, 2, 1)}, id="beyond the array"),
            pytest.param({A: FrontendValue(5000, 1, 1)}, id="outside the array"),
            pytest.param({A: FrontendValue(0, 0, 1), B: FrontendValue(7, 0, 9)}, id="no backends"),
        ],
    )
    def test_it_is_repaired(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock, found: dict[FrontendKey, FrontendValue]
    ) -> None:
        maps.write_frontends(found)
        table = {A: entry("10.1.1.1:80"), B: entry("10.1.1.2:80", service="a/b:p/TCP")}
        report = reconciler.sync(table)
        clock.advance(2.0)
        assert (report if report.in_sync else reconciler.sync_changes({})).in_sync
        assert holds(maps, table)
        assert reconciler.verify() == []


TEN, NET = Prefix(ip_bytes("10.0.0.0"), 104), Prefix(ip_bytes("192.0.2.0"), 120)
OPEN = entry("10.1.1.1:80", service="a/vip:p/TCP")


def filtered(*prefixes: Prefix, at: str = "10.1.1.1:80", service: str = "a/vip:p/TCP") -> Entry:
    return replace(entry(at, service=service, flags=FrontendFlags.SOURCES), sources=tuple(sorted(prefixes)))


def test_at_any_size_a_frontend_has_all_its_old_or_all_its_new_backends() -> None:
    maps, clock = FakeMaps(), Clock()
    reconciler = Reconciler(maps, clock, grace_s=2.0)
    sizes = (0, 1, 10_000, 3, 10_000, 9_999, 0, 10_000)
    entries = [entry(*(f"10.{size % 7}.{n >> 8}.{n & 255}:80" for n in range(size))) for size in sizes]
    allowed: list[list[Backend] | None] = [None]
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks % 97 == 0 or (A in maps.frontends and maps.frontends[A].count < 100):
            assert maps.lookup(A) in allowed

    maps.on_write = look
    for following in entries:
        allowed = [allowed[-1], list(following.backends)]
        assert reconciler.sync_changes({A: following}).in_sync
        assert maps.lookup(A) == list(following.backends)
        clock.advance(3)
    assert looks > 30_000


class TestSourceRanges:
    @pytest.fixture(autouse=True)
    def nobody_asks_for_ranges_that_are_not_there(self, maps: FakeMaps) -> None:
        """At every single write, whatever a frontend asks for is there to be found."""
        self.must: dict[FrontendKey, set[Prefix]] = {}

        def look() -> None:
            for frontend, value in maps.frontends.items():
                if value.flags & FrontendFlags.SOURCES:
                    found = {row.prefix for row in maps.sources if row.service_id == value.service_id}
                    assert self.must.get(frontend, set()) <= found

        maps.on_write = look

    def rows(self, maps: FakeMaps) -> set[Prefix]:
        return {row.prefix for row in maps.sources}

    def test_they_are_written_before_a_frontend_asks_for_them(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        self.must = {A: {TEN, NET}}
        assert reconciler.sync({A: filtered(TEN, NET), B: entry()}).in_sync
        (number,) = {row.service_id for row in maps.sources}
        assert maps.frontends[A].service_id == number
        assert self.rows(maps) == {TEN, NET}
        assert reconciler.sources == 2

    def test_what_stays_in_a_changed_list_is_there_all_the_time(
        self, maps: FakeMaps, reconciler: Reconciler
    ) -> None:
        other = Prefix(ip_bytes("172.16.0.0"), 108)
        self.must = {A: {TEN}}
        reconciler.sync({A: filtered(TEN, NET)})
        assert reconciler.sync_changes({A: filtered(TEN, other)}).in_sync
        assert self.rows(maps) == {TEN, other}

    @pytest.mark.parametrize(
        "after", [OPEN, None, entry(service="b/vip:p/TCP")], ids=["open", "gone", "another's"]
    )
    def test_they_go_after_the_last_frontend_that_asks(
        self, maps: FakeMaps, reconciler: Reconciler, after: Entry | None
    ) -> None:
        self.must = {A: {TEN}, B: {TEN}}
        reconciler.sync({A: filtered(TEN), B: filtered(TEN)})
        reconciler.sync_changes({A: after})
        assert self.rows(maps) == {TEN}
        reconciler.sync_changes({B: after})
        assert self.rows(maps) == set()

    def test_a_service_port_has_those_of_both_families(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        wide, six = Prefix(ip_bytes("2001:db8::"), 32), key("2001:db8::7")
        self.must = {A: {TEN}, six: {wide}}
        reconciler.sync({A: filtered(TEN), six: filtered(wide, at="fd00::1:80")})
        assert self.rows(maps) == {TEN, wide}
        reconciler.sync_changes({six: None})
        assert self.rows(maps) == {TEN}

    def test_without_them_the_frontend_stays_as_it_was_and_others_do_not_suffer(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        self.must = {A: {TEN}, B: {NET}}
        reconciler.sync({A: OPEN})
        maps.source_capacity = 1
        report = reconciler.sync_changes({A: filtered(TEN), B: filtered(NET, service="a/b:p/TCP")})
        assert report.failed == {
            B: "source ranges could not be written: map sources is full: it holds 1 entries, 2 are wanted"
        }
        assert maps.frontends.keys() == {A}
        maps.source_capacity = 9
        clock.advance(report.retry_in_s or 0)
        assert reconciler.sync_changes({}).in_sync
        assert self.rows(maps) == {TEN, NET}

    def test_ranges_that_could_not_be_removed_are_named_and_tried_again(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        self.must = {A: {TEN}}
        reconciler.sync({A: filtered(TEN, NET)})
        maps.faults.append(Fault("delete_sources"))
        report = reconciler.sync_changes({A: filtered(TEN)})
        assert "source ranges could not be removed" in report.failed[A]
        clock.advance(report.retry_in_s or 0)
        assert reconciler.sync_changes({}).in_sync
        assert self.rows(maps) == {TEN}

    @pytest.mark.parametrize("operation", ["write_frontends", "delete_frontends"])
    def test_they_stay_while_a_frontend_that_asks_for_them_could_not_be_changed(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock, operation: str
    ) -> None:
        self.must = {A: {TEN}}
        reconciler.sync({A: filtered(TEN)})
        maps.faults.append(Fault(operation, times=9))
        report = reconciler.sync_changes({A: OPEN if operation == "write_frontends" else None})
        assert A in report.failed
        assert self.rows(maps) == {TEN}
        maps.faults.clear()
        clock.advance(report.retry_in_s or 0)
        assert reconciler.sync_changes({}).in_sync
        assert self.rows(maps) == set()

    def test_a_restarted_agent_writes_nothing_and_prunes_what_nobody_wants(
        self, maps: FakeMaps, reconciler: Reconciler, clock: Clock
    ) -> None:
        self.must = {A: {TEN}}
        reconciler.sync({A: filtered(TEN), B: filtered(NET, service="a/b:p/TCP")})
        before = maps.writes
        again = Reconciler(maps, clock)
        again.sync({A: filtered(TEN), B: filtered(NET, service="a/b:p/TCP")})
        assert maps.writes == before
        Reconciler(maps, clock).sync({A: filtered(TEN)})
        assert self.rows(maps) == {TEN}

    def test_verify_repairs_them(self, maps: FakeMaps, reconciler: Reconciler) -> None:
        self.must = {A: set()}
        reconciler.sync({A: filtered(TEN)})
        number = maps.frontends[A].service_id
        maps.sources = {Source(number, NET), Source(5, NET)}
        assert reconciler.verify() == [
            "source range 192.0.2.0/24 of number 5 is not wanted",
            "source range 10.0.0.0/8 of a/vip:p/TCP is missing",
            "source range 192.0.2.0/24 of a/vip:p/TCP is not wanted",
        ]
        assert maps.sources == {Source(number, TEN)}
        assert reconciler.verify() == []
