"""The backend array's slots: never given to two, and given again only after the grace period."""

import pytest
from handover_agent.regions import Regions, RegionsResting
from handover_agent.table import MapFull
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.clock import Clock

pytestmark = pytest.mark.unit


def test_regions_are_taken_from_the_first_place_that_fits() -> None:
    clock = Clock()
    regions = Regions(10, clock, grace_s=2)
    assert [regions.take(n) for n in (3, 2, 4)] == [0, 3, 5]
    regions.give_back(3)
    clock.advance(2)
    assert regions.take(1) == 3
    assert regions.take(1) == 4
    assert regions.take(1) == 9
    assert regions.used == 10


def test_a_region_is_not_used_again_during_its_grace_period() -> None:
    clock = Clock()
    regions = Regions(4, clock, grace_s=2)
    regions.give_back(regions.take(4))
    clock.advance(1.9)
    with pytest.raises(RegionsResting) as caught:
        regions.take(1)
    assert caught.value.until == pytest.approx(2.0)
    clock.advance(0.1)
    assert regions.take(4) == 0


def test_freed_neighbours_become_one() -> None:
    clock = Clock()
    regions = Regions(6, clock, grace_s=1)
    offsets = [regions.take(2) for _ in range(3)]
    for offset in (offsets[2], offsets[0], offsets[1]):
        regions.give_back(offset)
    clock.advance(1)
    assert regions.take(6) == 0


def test_an_array_without_room_says_so() -> None:
    regions = Regions(4, Clock(), grace_s=1)
    regions.take(3)
    with pytest.raises(MapFull, match="map backends is full: it holds 4 entries, 5 are wanted"):
        regions.take(2)


def test_what_frontends_in_the_kernel_point_at_is_taken_after_a_restart() -> None:
    regions = Regions(10, Clock(), grace_s=1)
    regions.rebuild([(2, 3), (7, 1), (2, 3)], rest=False)
    assert regions.live == {2: 3, 7: 1}
    assert [regions.take(2), regions.take(2), regions.take(2)] == [0, 5, 8]


def test_after_a_restart_the_rest_may_first_have_to_rest() -> None:
    clock = Clock()
    regions = Regions(10, clock, grace_s=1)
    regions.rebuild([(2, 3)], rest=True)
    with pytest.raises(RegionsResting):
        regions.take(1)
    clock.advance(1)
    assert regions.take(2) == 0


@pytest.mark.parametrize("live", [[(0, 3), (2, 2)], [(8, 3)], [(1, 0)]])
def test_regions_that_cannot_be_are_refused(live: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        Regions(10, Clock()).rebuild(live, rest=False)


# Eighths of a second add up exactly: that a slot rests long enough can be asked without a tolerance.
PAUSES = st.integers(0, 24).map(lambda eighths: eighths / 8)


@given(st.lists(st.one_of(st.integers(1, 9), PAUSES, st.just("give")), max_size=60), st.randoms())
@settings(deadline=None)
def test_no_slot_is_ever_given_out_while_it_is_used_or_rests(steps: list[object], random: object) -> None:
    clock, grace = Clock(), 2.0
    regions = Regions(40, clock, grace_s=grace)
    used: dict[int, int] = {}
    freed_at: dict[int, float] = {}
    for step in steps:
        if isinstance(step, float):
            clock.advance(step)
        elif step == "give":
            if used:
                offset = random.choice(sorted(used))  # type: ignore[attr-defined]
                regions.give_back(offset)
                freed_at |= dict.fromkeys(range(offset, offset + used.pop(offset)), clock())
        elif isinstance(step, int):
            try:
                offset = regions.take(step)
            except (MapFull, RegionsResting):
                busy = {slot for start, size in used.items() for slot in range(start, start + size)}
                resting = {slot for slot, at in freed_at.items() if clock() - at < grace}
                free = [slot not in busy | resting for slot in range(40)]
                assert not any(all(free[i : i + step]) for i in range(41 - step)), "there was room"
                continue
            mine = set(range(offset, offset + step))
            assert 0 <= offset <= 40 - step
            for start, size in used.items():
                assert not mine & set(range(start, start + size))
            for slot in mine:
                assert clock() - freed_at.get(slot, float("-inf")) >= grace
            used[offset] = step
    assert regions.live == used
    assert regions.used == sum(used.values())
