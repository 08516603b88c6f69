"""From one layout of the maps to another: which ways there are, and what they make of an entry."""

from dataclasses import replace

import pytest
from handover_agent import layouts
from handover_agent.bpfmap import MapType
from handover_agent.entries import Direction
from handover_agent.layout import LAYOUT, Sizes, map_specs, pack_key, place_as_backend, place_of
from handover_agent.layouts import SOCKETS, STEPS, Derived, NoWay, Shape, Step, way
from handover_agent.table import FrontendKey, Protocol, ip_bytes

pytestmark = pytest.mark.unit

SHAPES = {name: Shape(MapType.LRU_HASH, 32, 24) for name in ("flows", "affinity", *SOCKETS)}


def appending(text: bytes) -> layouts.Converter:
    return lambda key, value: (key + text, value + text)


CHAIN = (
    Step(1, 2, SHAPES, {"flows": appending(b"2"), "affinity": None}),
    Step(2, 4, SHAPES, {"flows": appending(b"4"), "affinity": appending(b"4"), "work": None}),
    Step(4, 5, SHAPES, {"reverse": appending(b"5")}),
)


def test_steps_are_chained() -> None:
    found = way("1", "4", CHAIN)
    assert (found.older, found.newer, found.shapes) == (1, 4, SHAPES)
    assert found.convert("flows", b"k", b"v") == (b"k24", b"v24")
    assert found.changed.keys() == {"flows", "affinity", "work"}


def test_a_map_that_began_empty_once_is_empty_at_the_end() -> None:
    assert way("1", "4", CHAIN).changed["affinity"] is None
    assert way("2", "4", CHAIN).convert("affinity", b"k", b"v") == (b"k4", b"v4")


def test_what_a_socket_has_changes_hands_together() -> None:
    found = way("4", "5", CHAIN)
    assert found.changed.keys() == set(SOCKETS)
    assert found.convert("reverse", b"k", b"v") == (b"k5", b"v5")
    assert found.convert("forward", b"k", b"v") == (b"k", b"v")


def test_what_follows_from_a_map_follows_from_its_older_entries() -> None:
    last = {"places": Derived("flows", lambda key, value: [(len(key), len(value), 1)])}
    found = way("1", "5", (*CHAIN[:2], replace(CHAIN[2], derived=last)))
    assert list(found.derived["places"].marks(b"k", b"v")) == [(3, 3, 1)]
    first = way("1", "5", (replace(CHAIN[0], derived=last), *CHAIN[1:]))
    assert list(first.derived["places"].marks(b"k", b"v")) == [(2, 2, 1)]


@pytest.mark.parametrize(
    ("older", "newer"), [("0", "4"), ("4", "1"), ("6", "5"), ("2", "3"), ("2", "2"), ("x", "2")]
)
def test_there_is_no_way_back_nor_from_what_is_not_known(older: str, newer: str) -> None:
    with pytest.raises(NoWay, match=f"layout {older}"):
        way(older, newer, CHAIN)


def test_steps_that_lead_in_a_circle_lead_nowhere() -> None:
    with pytest.raises(NoWay):
        way("1", "9", (Step(1, 2, SHAPES, {}), Step(2, 1, SHAPES, {})))


def test_every_step_leads_to_this_layout_and_fits_the_next() -> None:
    ours = {spec.name: Shape(spec.type, spec.key_bytes, spec.value_bytes) for spec in map_specs(Sizes())}
    for step in STEPS:
        found = way(str(step.older), str(LAYOUT))
        following = next((other.shapes for other in STEPS if other.older == step.newer), ours)
        for name, shape in step.shapes.items():
            assert name in found.changed or ours.get(name, shape) == shape
            assert name in step.changed or following.get(name, shape) == shape
        assert step.changed.get("settings", ()) is not None


def test_from_layout_2_on_addresses_have_places_as_the_programs_compute_them() -> None:
    found = way("2", str(LAYOUT)).derived
    client, frontend, backend = (ip_bytes(text) for text in ("10.244.1.2", "10.96.0.1", "fd00:244:2::2"))
    group, byte, bit = place_of(frontend)
    key = pack_key(FrontendKey(frontend, 80, Protocol.TCP))
    assert list(found["addresses"].marks(key, bytes(20))) == [(group, byte, 1 << bit)]
    both = {(*place_of(frontend)[:2], 1), (*place_as_backend(backend)[:2], 1)}
    ports = bytes(4)
    there = client + frontend + ports + bytes((Protocol.TCP, Direction.FORWARD, 0, 0)), backend + bytes(32)
    back = backend + client + ports + bytes((Protocol.TCP, Direction.BACKWARD, 0, 0)), frontend + bytes(32)
    assert set(found["flow_addresses"].marks(*there)) == set(found["flow_addresses"].marks(*back)) == both
