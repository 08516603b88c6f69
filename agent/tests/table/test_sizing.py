"""Maps are as large as the cluster and the kernel's connections ask for, and grow in time."""

from pathlib import Path

import pytest
from handover_agent.layout import Sizes
from handover_agent.sizing import Need, connections, grown, sizes
from handover_agent.table import FrontendFlags, Prefix, ip_bytes
from msgspec.structs import replace
from tests.table.wanting import entry, key

pytestmark = pytest.mark.unit

LEAST = Sizes(frontends=1024, backends=4096, sockets=1024, affinity=1024, flows=2048, sources=64)


def test_a_table_needs_its_frontends_and_shared_backends_once() -> None:
    shared = entry("10.1.1.1:80", "10.1.1.2:80")
    ranges = (Prefix(ip_bytes("10.0.0.0"), 104), Prefix(ip_bytes("192.0.2.0"), 120))
    filtered = replace(shared, flags=FrontendFlags.SOURCES, sources=ranges)
    table = {key("10.96.0.1"): shared, key("10.96.0.2"): filtered, key("10.96.0.3"): filtered}
    assert Need.of(table) == Need(frontends=3, backends=2, sources=2)


def test_backends_that_only_keep_their_flows_take_room_too() -> None:
    ending = entry("10.1.1.1:80", draining=["10.1.1.2:80", "10.1.1.3:80"])
    assert Need.of({key("10.96.0.1"): ending, key("10.96.0.2"): ending}) == Need(frontends=2, backends=4)


def test_a_small_cluster_gets_the_least() -> None:
    assert sizes(Need(3, 2), 0, LEAST) == LEAST


def test_a_large_cluster_gets_room_for_twice_as_much() -> None:
    made = sizes(Need(60_000, 120_000, 100), 0, LEAST)
    assert (made.frontends, made.backends, made.sources) == (131_072, 524_288, 256)


@pytest.mark.parametrize(
    ("tracked", "flows", "sockets"),
    [(0, 2048, 1024), (262_144, 524_288, 65_536), (1 << 30, 1 << 20, 1 << 18)],
)
def test_connections_are_sized_by_what_the_kernel_tracks_within_bounds(
    tracked: int, flows: int, sockets: int
) -> None:
    made = sizes(Need(), tracked, LEAST)
    assert (made.flows, made.sockets, made.affinity) == (flows, sockets, sockets)


def test_nothing_grows_as_long_as_there_is_room() -> None:
    assert grown(Need(768, 3000), LEAST, {}) == LEAST


def test_what_is_three_quarters_full_grows_and_the_rest_stays() -> None:
    made = grown(Need(769, 3000), LEAST, {})
    assert (made.frontends, made.backends, made.flows) == (2048, 4096, 2048)


def test_a_jump_is_made_at_once() -> None:
    assert grown(Need(100_000, 9), LEAST, {}).frontends == 262_144


def test_what_is_full_of_small_pieces_is_doubled() -> None:
    assert grown(Need(5, 2000), LEAST, {"backends": 3}).backends == 8192


def test_beyond_all_bounds_it_stays_as_it_is() -> None:
    huge = Sizes(frontends=1 << 20, backends=1 << 22, sources=1 << 20)
    assert grown(Need(1 << 30, 1 << 30, 1 << 30), huge, {"frontends": 1}) == huge


def test_how_many_connections_the_kernel_tracks_is_read(tmp_path: Path) -> None:
    (tmp_path / "max").write_text("262144\n")
    assert connections(tmp_path / "max") == 262_144
    assert connections(tmp_path / "none") == 0
