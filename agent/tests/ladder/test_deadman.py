"""When a node may take itself back, and above all when not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from handover_agent.ladder.deadman import Limits, Vitals, must_restore
from handover_api.base import Rung
from handover_api.nodemigration import ProbeResult

pytestmark = pytest.mark.unit


def result(failures: int, attempts: int = 50) -> ProbeResult:
    return ProbeResult(at=datetime(2026, 5, 1, tzinfo=UTC), path="ebpf", attempts=attempts, failures=failures)


DEAD = Vitals(
    rung=Rung.SOLE, unreachable_s=300, baseline=result(0), rounds=tuple([result(50)] * 5), snapshot=True
)


def test_all_probes_failing_without_api_server_for_long_enough_restores() -> None:
    assert must_restore(DEAD, Limits())


@pytest.mark.parametrize(
    "alive",
    [
        replace(DEAD, unreachable_s=60),
        replace(DEAD, unreachable_s=0),
        replace(DEAD, rounds=DEAD.rounds[:4]),
        replace(DEAD, rounds=(*DEAD.rounds[:4], result(0))),
        replace(DEAD, rounds=(*DEAD.rounds[:2], result(10), *DEAD.rounds[3:])),
        replace(DEAD, baseline=result(40)),
        replace(DEAD, rounds=tuple([result(0, 0)] * 5)),
        replace(DEAD, snapshot=False),
        replace(DEAD, rung=Rung.SHADOW),
        replace(DEAD, rung=Rung.STANDBY),
    ],
)
def test_anything_less_leaves_the_node_alone(alive: Vitals) -> None:
    assert not must_restore(alive, Limits())
