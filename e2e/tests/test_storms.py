"""What can be known of storms without a cluster."""

import random
from collections.abc import Callable
from itertools import islice
from typing import Any, cast

import pytest

from e2e.storms import Storm, StormError, raging
from e2e.storms.flapper import changes
from e2e.storms.flapping import slice_of
from e2e.storms.storm import PATIENCE_S
from e2e.traffic.client.ledger import ANSWER_WITHIN_S
from e2e.trial import Trial

pytestmark = pytest.mark.unit

ADDRESSES = ("10.244.1.2", "10.244.2.2", "10.244.3.2")


class Heard:
    """In the place of a trial: remembers what the clients were told."""

    def __init__(self) -> None:
        self.traffic = self
        self.told: list[object] = []

    def targets(self, targets: object) -> None:
        self.told.append(targets)

    def patience(self, seconds: float) -> None:
        self.told.append(seconds)

    def met(self) -> bool:
        return True


class Breeze(Storm):
    """Does what it is told to, once more and once more."""

    def __init__(self, trial: Trial, do: Callable[[], None] = lambda: None) -> None:
        super().__init__(trial)
        self.do, self.ended = do, 0

    def begin(self) -> list[dict[str, Any]]:
        return [{"name": "breeze"}]

    def blow(self) -> None:
        self.do()
        self.ending.wait(0.01)

    def end(self) -> None:
        self.ended += 1


def trial() -> Trial:
    return cast("Trial", Heard())


def test_a_storm_goes_on_until_the_end_and_then_puts_everything_back() -> None:
    heard = trial()
    breeze = Breeze(heard)
    with raging(heard, [breeze]):
        while breeze.blown < 3:
            assert not breeze.ended
    assert breeze.ended == 1
    assert cast("Heard", heard).told == [PATIENCE_S, [{"name": "breeze"}], [], ANSWER_WITHIN_S]


def test_a_storm_that_cannot_go_on_is_an_error_at_the_end_and_everything_is_put_back() -> None:
    heard = trial()
    failed = Breeze(heard, lambda: 1 / 0)  # type: ignore[arg-type]
    other = Breeze(heard)
    with pytest.raises(StormError, match=r"Breeze.*ZeroDivisionError"), raging(heard, [failed, other]):
        while other.blown < 3:
            pass
    assert (failed.ended, other.ended) == (1, 1)


def test_what_goes_wrong_meanwhile_ends_the_storms() -> None:
    heard = trial()
    breeze = Breeze(heard)
    with pytest.raises(KeyError), raging(heard, [breeze]):
        raise KeyError
    assert breeze.ending.is_set()
    assert breeze.ended == 1


def test_endpoints_flap_but_one_is_always_ready() -> None:
    endpoints = [{"addresses": [a], "nodeName": "n1", "conditions": {"ready": True}} for a in ADDRESSES]
    slices = [
        slice_of({"addressType": family, "endpoints": endpoints, "metadata": {"name": f"web-{family}"}})
        for family in ("IPv4", "IPv6")
    ]
    seen = list(islice(changes(slices, random.Random(1)), 400))
    assert {name for name, _ in seen} == {"flapping-ipv4", "flapping-ipv6"}
    for _, found in seen:
        assert any(endpoint["conditions"]["ready"] for endpoint in found)
        addresses = [endpoint["addresses"][0] for endpoint in found]
        assert len(set(addresses)) == len(addresses)
    assert {len(found) for _, found in seen} == {1, 2, 3}
    assert any(endpoint["conditions"].get("terminating") for _, found in seen for endpoint in found)
