"""What happened is told once, where people look for it, and never stops anything."""

from typing import cast

import pytest
from handover_operator.actions import Event
from handover_operator.api import Api, ForbiddenError
from handover_operator.events import Reporter
from handover_operator.reasons import Reason

from e2e.fakeapi import FakeApi

from .conftest import NOW
from .test_act import FACTS

pytestmark = pytest.mark.unit

STEP = Event(Reason.STEP, "Standby → Shadow", "n1")


def told(api: FakeApi) -> list[tuple[str, str, int]]:
    return sorted(
        (item["involvedObject"]["kind"], item["message"], item["count"]) for item in api.objects.values()
    )


async def test_a_node_is_told_about_on_the_migration_and_on_the_node() -> None:
    api = FakeApi()
    await Reporter(cast(Api, api)).tell(STEP, FACTS, "node-n1", NOW)
    assert told(api) == [("Node", "Standby → Shadow", 1), ("ProxyMigration", "n1: Standby → Shadow", 1)]
    for item in api.objects.values():
        assert item["metadata"]["namespace"] == "default"
        assert item["type"] == "Normal"


async def test_an_echo_is_not_told_and_a_repetition_is_counted() -> None:
    api, moment = FakeApi(), 0.0
    reporter = Reporter(cast(Api, api), lambda: moment)
    await reporter.tell(STEP, FACTS, None, NOW)
    moment = 2.0
    await reporter.tell(STEP, FACTS, None, NOW)
    assert told(api) == [("ProxyMigration", "n1: Standby → Shadow", 1)]
    moment = 60.0
    await reporter.tell(STEP, FACTS, None, NOW)
    assert told(api) == [("ProxyMigration", "n1: Standby → Shadow", 2)]


async def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    api = FakeApi()
    await Reporter(cast(Api, api)).tell(Event(Reason.STEP, "x" * 5000, warning=True), FACTS, None, NOW)
    (item,) = api.objects.values()
    assert len(item["message"]) <= 1024
    assert item["type"] == "Warning"


async def test_an_event_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.refuse("create", ForbiddenError("create a Event", 403, "Forbidden", "no"))
    await Reporter(cast(Api, api)).tell(STEP, FACTS, None, NOW)
    assert "could not be written" in caplog.text
