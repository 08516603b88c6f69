"""Which nodes may start: numbers, per cent, canaries and zones."""

import pytest
from handover_api.base import Rung
from handover_operator.selection import (
    InvalidSpecError,
    Zones,
    choose,
    matches,
    max_unavailable,
    slots_down,
    slots_up,
)
from handover_operator.standing import Standing, stand

from .healthy import NOW, node

pytestmark = pytest.mark.unit


def at(
    name: str, zone: str = "z1", rung: Rung = Rung.STANDBY, *, ready: bool = True, soaked: bool = False
) -> Standing:
    """A node somewhere."""
    return stand(node(name, rung, soaked=soaked, zone=zone, ready=ready), NOW)


@pytest.mark.parametrize(
    ("value", "nodes", "limit"),
    [
        (1, 10, 1),
        (7, 3, 7),
        ("2", 10, 2),
        ("10%", 10, 1),
        ("25%", 10, 2),  # rounded down
        ("1%", 10, 1),  # never none
        ("100%", 10, 10),
        ("50%", 0, 1),
    ],
)
def test_max_unavailable_is_a_number_or_per_cent_rounded_down(
    value: int | str, nodes: int, limit: int
) -> None:
    assert max_unavailable(value, nodes) == limit


@pytest.mark.parametrize("value", [0, -1, "0%", "101%", "-5%", "", "%", "ten", "1.5", "٣"])
def test_a_senseless_max_unavailable_is_refused_with_what_would_be_right(value: int | str) -> None:
    with pytest.raises(InvalidSpecError, match="write a number of at least 1, or 1% to 100%"):
        max_unavailable(value, 10)


def test_a_selector_wants_all_of_its_labels() -> None:
    assert matches({"a": "1", "b": "2"}, {"a": "1"})
    assert matches({}, {})
    assert not matches({"a": "1"}, {"a": "1", "b": "2"})


def test_canaries_go_one_at_a_time_and_then_batches() -> None:
    nodes = [at("n1"), at("n2"), at("n3", rung=Rung.SHADOW)]
    assert slots_up(nodes, passed=0, canary=1, limit=3) == 0
    assert slots_up(nodes, passed=1, canary=1, limit=3) == 2
    assert slots_up(nodes[:2], passed=1, canary=2, limit=3) == 1
    assert slots_down(nodes, limit=3) == 2


def test_a_node_on_sole_takes_a_slot_until_its_soak_has_passed() -> None:
    assert slots_up([at("n1", rung=Rung.SOLE)], passed=0, canary=0, limit=1) == 0
    assert slots_up([at("n1", rung=Rung.SOLE, soaked=True)], passed=1, canary=0, limit=1) == 1


@pytest.mark.parametrize(
    ("what", "nodes", "chosen"),
    [
        ("one zone keeps one node", [at("a1"), at("a2"), at("a3")], ["a1", "a2"]),
        ("a zone's only node may go", [at("a1")], ["a1"]),
        ("two zones' only nodes may not go together", [at("a1", "a"), at("b1", "b")], ["a1"]),
        (
            "each zone of two gives one",
            [at("a1", "a"), at("a2", "a"), at("b1", "b"), at("b2", "b")],
            ["a1", "b1"],
        ),
        (
            "a node that is not Ready does not count as staying",
            [at("a1", "a"), at("a2", "a"), at("a3", "a", ready=False)],
            ["a1"],
        ),
        (
            "a zone with a node in flight and one on the ground waits",
            [at("a0", "a", Rung.SHADOW), at("a1", "a"), at("b1", "b"), at("b2", "b")],
            ["b1"],
        ),
        (
            "a zone's only node waits while another zone is wholly in flight",
            [at("a0", "a", Rung.SERVING), at("b1", "b")],
            [],
        ),
    ],
)
def test_a_zone_is_never_wholly_in_flight_unless_it_has_one_node(
    what: str, nodes: list[Standing], chosen: list[str]
) -> None:
    candidates = [s for s in nodes if not s.in_flight and s.node.ready]
    started, _ = choose(candidates, 99, Zones(nodes))
    assert [s.name for s in started] == chosen, what
