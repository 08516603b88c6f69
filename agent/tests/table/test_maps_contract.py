"""What every implementation of `table.Maps` must do: the fake of the unit tests, and the kernel's maps.

The reconciler's tests are worth only as much as the fake is like the kernel, so both pass the same tests.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent.bpffs import Pins
from handover_agent.layout import Sizes, map_specs
from handover_agent.maps import PinnedMaps
from handover_agent.reconcile import Reconciler
from handover_agent.table import (
    MOST_SERVING,
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    MapFull,
    Maps,
    Prefix,
    Protocol,
    Scope,
    Source,
    ip_bytes,
)
from tests.fakes.clock import Clock
from tests.fakes.maps import FakeMaps
from tests.table.wanting import backend, entry, key

FRONTENDS, BACKENDS, SOURCES = 64, 256, 32
A, B, C = key("10.96.0.1"), key("10.96.0.2"), key("10.96.0.3")


@pytest.fixture(scope="module")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpffs of the tests' own."""
    if os.geteuid() != 0:
        pytest.fail("the kernel's maps need root; run `make datapath` as root")
    mount = tmp_path_factory.mktemp("bpffs")
    subprocess.run(["mount", "-t", "bpf", "handover-test", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.fixture(
    params=[pytest.param("fake", marks=pytest.mark.unit), pytest.param("kernel", marks=pytest.mark.datapath)]
)
def maps(request: pytest.FixtureRequest) -> Iterator[Maps]:
    """Empty maps of FRONTENDS and BACKENDS entries."""
    if request.param == "fake":
        yield FakeMaps(frontend_capacity=FRONTENDS, backend_capacity=BACKENDS, source_capacity=SOURCES)
        return
    pins = Pins(request.getfixturevalue("bpffs") / "handover")
    with pins.locked():
        pins.ensure_maps(map_specs(Sizes(FRONTENDS, BACKENDS, sources=SOURCES)))
    try:
        with PinnedMaps(pins.maps) as pinned:
            yield pinned
    finally:
        with pins.locked():
            pins.remove(pins.root)


def values(count: int) -> dict[FrontendKey, FrontendValue]:
    return {key(f"10.96.1.{n}"): FrontendValue(n, 1, n + 1) for n in range(count)}


def test_addresses_may_be_kept_for_some_frontends_whatever_was_written(maps: Maps) -> None:
    maps.write_frontends(values(3))
    maps.keep_addresses([A, B])
    maps.write_frontends({C: FrontendValue(1, 1, 1)})
    assert set(maps.read_frontends()) == {*values(3), C}


def test_new_maps_are_empty_and_tell_their_size(maps: Maps) -> None:
    assert (maps.frontend_capacity, maps.backend_capacity) == (FRONTENDS, BACKENDS)
    assert maps.read_frontends() == {}


@pytest.mark.parametrize(
    "frontend",
    [
        A,
        key("fd00:10:96::10"),
        key("10.96.0.1", 65535, Protocol.UDP),
        key("10.96.0.1", 1, Protocol.SCTP),
        FrontendKey(A.address, 80, Protocol.TCP, Scope.EXTERNAL),
        FrontendKey(A.address, 0, Protocol.ANY),
    ],
    ids=str,
)
def test_a_frontend_is_read_back_as_written(maps: Maps, frontend: FrontendKey) -> None:
    flags = FrontendFlags.AFFINITY | FrontendFlags.REFUSE | FrontendFlags.MASQUERADE | FrontendFlags.SOURCES
    value = FrontendValue(7, 3, 0xFFFFFFFE, flags, 86400, MOST_SERVING)
    maps.write_frontends({frontend: value})
    assert maps.read_frontends() == {frontend: value}


def test_keys_differ_by_port_protocol_and_scope(maps: Maps) -> None:
    written = {
        frontend: FrontendValue(n, 1, n + 1)
        for n, frontend in enumerate(
            [
                A,
                key("10.96.0.1", 81),
                key("10.96.0.1", 80, Protocol.UDP),
                FrontendKey(A.address, 80, Protocol.TCP, Scope.EXTERNAL),
            ]
        )
    }
    maps.write_frontends(written)
    assert maps.read_frontends() == written


def test_writing_again_replaces(maps: Maps) -> None:
    maps.write_frontends({A: FrontendValue(0, 1, 1), B: FrontendValue(1, 1, 2)})
    maps.write_frontends({A: FrontendValue(5, 2, 9)})
    assert maps.read_frontends() == {A: FrontendValue(5, 2, 9), B: FrontendValue(1, 1, 2)}


def test_deleting_takes_away_what_is_there_and_passes_over_what_is_not(maps: Maps) -> None:
    maps.write_frontends({A: FrontendValue(0, 1, 1), B: FrontendValue(1, 1, 2)})
    maps.delete_frontends([C, A, A])
    assert maps.read_frontends() == {B: FrontendValue(1, 1, 2)}


def test_empty_batches_are_no_error(maps: Maps) -> None:
    maps.write_frontends({})
    maps.delete_frontends([])
    maps.write_backends(0, [])
    assert maps.read_backends(0, 0) == []


def test_backends_are_read_back_where_they_were_written(maps: Maps) -> None:
    written = [
        backend("10.1.1.1:80"),
        Backend(ip_bytes("fd00::1"), 65535),
        backend("10.1.1.3:1"),
    ]
    maps.write_backends(BACKENDS - 3, written)
    assert maps.read_backends(BACKENDS - 3, 3) == written
    assert maps.read_backends(BACKENDS - 4, 2) == [Backend(bytes(16), 0), written[0]]


@pytest.mark.parametrize("offset", [BACKENDS - 1, BACKENDS, -1])
def test_backends_outside_the_array_are_refused_and_nothing_is_written(maps: Maps, offset: int) -> None:
    with pytest.raises(MapFull, match="backends"):
        maps.write_backends(offset, [backend("10.1.1.1:80"), backend("10.1.1.2:80")])
    with pytest.raises(MapFull, match="backends"):
        maps.read_backends(offset, 2)
    assert maps.read_backends(BACKENDS - 1, 1) == [Backend(bytes(16), 0)]


def test_a_full_map_takes_what_fits_and_says_how_much_was_wanted(maps: Maps) -> None:
    wanted = values(FRONTENDS + 10)
    with pytest.raises(MapFull, match=f"frontends is full: it holds {FRONTENDS} entries"):
        maps.write_frontends(wanted)
    found = maps.read_frontends()
    assert len(found) == FRONTENDS
    assert found.items() <= wanted.items()


def test_a_full_map_still_lets_frontends_change_and_go(maps: Maps) -> None:
    maps.write_frontends(values(FRONTENDS))
    first, second = list(values(2))
    maps.write_frontends({first: FrontendValue(9, 9, 9)})
    assert maps.read_frontends()[first] == FrontendValue(9, 9, 9)
    maps.delete_frontends([second])
    maps.write_frontends({A: FrontendValue(0, 0, 1)})
    assert A in maps.read_frontends()


def source(number: int, address: str, bits: int) -> Source:
    return Source(number, Prefix(ip_bytes(address), bits))


ROWS = {
    source(1, "10.0.0.0", 104),
    source(1, "10.0.0.0", 112),
    source(1, "10.1.2.3", 128),
    source(0xFFFFFFFF, "10.0.0.0", 104),
    source(7, "2001:db8::", 32),
    source(7, "::", 1),
}


def test_source_ranges_are_read_back_as_written_each_once(maps: Maps) -> None:
    assert maps.read_sources() == set()
    maps.write_sources(ROWS)
    maps.write_sources(sorted(ROWS))
    assert maps.read_sources() == ROWS


def test_one_source_range_goes_and_a_wider_and_a_narrower_one_stay(maps: Maps) -> None:
    maps.write_sources(ROWS)
    gone = [source(1, "10.0.0.0", 112), source(2, "10.0.0.0", 112)]
    maps.delete_sources(gone)
    assert maps.read_sources() == ROWS - set(gone)


def test_a_full_map_of_source_ranges_says_so(maps: Maps) -> None:
    with pytest.raises(
        MapFull, match=f"sources is full: it holds {SOURCES} entries, {SOURCES + 8} are wanted"
    ):
        maps.write_sources([source(n + 1, "10.0.0.0", 104) for n in range(SOURCES + 8)])
    assert len(maps.read_sources()) == SOURCES
    maps.delete_sources(maps.read_sources())
    maps.write_sources(ROWS)


def test_the_reconciler_works_with_them(maps: Maps) -> None:
    table = {
        key(f"10.96.1.{n}"): entry(f"10.1.1.{n}:80", f"10.1.2.{n}:80", service=f"a/s{n}:p/TCP")
        for n in range(60)
    }
    assert Reconciler(maps).sync(table).in_sync
    assert Reconciler(maps).sync(table).written == 0
    clock = Clock()
    reconciler = Reconciler(maps, clock)
    reconciler.sync(table)
    clock.advance(2)
    gone, changed = list(table)[:2]
    assert reconciler.sync_changes({gone: None, changed: entry("10.1.9.9:80")}).in_sync
    maps.delete_frontends([list(table)[5]])
    maps.write_frontends({A: FrontendValue(200, 3, 4)})
    assert len(reconciler.verify()) == 2
    assert reconciler.verify() == []
    found = maps.read_frontends()
    assert found.keys() == table.keys() - {gone}
    assert maps.read_backends(found[changed].offset, 1) == [backend("10.1.9.9:80")]
