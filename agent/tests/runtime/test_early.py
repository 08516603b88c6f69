"""A new agent fills what the one before has left, before it loads programs of its own."""

import logging

import pytest
from handover_agent import early
from handover_agent.bpfsys import DatapathError
from handover_agent.ladder.journal import Record
from handover_agent.ladder.ports import Waiting
from handover_api.base import Rung

pytestmark = pytest.mark.unit


class Pinned:
    def __init__(self, *, unsettled: bool) -> None:
        self.unsettled = unsettled


class Table:
    def __init__(self, error: Exception | None = None) -> None:
        self.fills, self.error = 0, error

    async def fill(self) -> None:
        self.fills += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("record", "unsettled", "fills"),
    [
        (Record(Rung.STANDBY), False, 0),
        (Record(Rung.STANDBY, towards=Rung.SHADOW), False, 0),
        (Record(Rung.SHADOW, towards=Rung.STANDBY), False, 0),
        (Record(Rung.SHADOW), False, 1),
        (Record(Rung.SERVING, towards=Rung.SHADOW), False, 1),
        (Record(Rung.SERVING), False, 1),
        (Record(Rung.SOLE), False, 1),
        (Record(Rung.SOLE), True, 0),
    ],
)
async def test_only_what_is_to_be_there_and_of_this_layout_is_filled(
    record: Record, unsettled: bool, fills: int
) -> None:
    table = Table()
    await early.fill(record, Pinned(unsettled=unsettled), table)
    assert table.fills == fills


@pytest.mark.parametrize(
    "error",
    [
        Waiting("Services have not been listed yet"),
        OSError(22, "Invalid argument"),
        DatapathError("not loaded"),
    ],
)
async def test_what_fails_is_left_to_the_upkeep(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    table = Table(error)
    with caplog.at_level(logging.INFO):
        await early.fill(Record(Rung.SOLE), Pinned(unsettled=False), table)
    assert table.fills == 1
    assert getattr(caplog.records[-1], "error", "") == str(error)
