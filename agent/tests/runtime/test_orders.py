"""An order for another machine of the same name is not followed, and that is said."""

from datetime import UTC, datetime, timedelta

import pytest
from handover_agent import facts as facts_module
from handover_agent.facts import Facts
from handover_agent.health.proxy import ProxyHealth, ProxyPort
from handover_agent.ladder.journal import Record
from handover_agent.ladder.machine import Standing
from handover_agent.node import decode_node
from handover_agent.report import Report
from handover_agent.wish import not_ours
from handover_api.base import Rung
from handover_api.nodemigration import Fault, NodeMigrationSpec, NodeMigrationStatus

pytestmark = pytest.mark.unit

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock(datetime):
    """`datetime` whose now is the test's."""

    at = NOW

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.at


@pytest.fixture
def report() -> Report:
    return Report(NodeMigrationStatus())


@pytest.fixture
def facts(report: Report, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setattr(facts_module, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", NOW)
    return Facts(report, ProxyPort(1, lambda: ProxyHealth(NOW, None, node_eligible=True)))


@pytest.mark.parametrize(
    ("ordered", "uid", "refused"),
    [("a", "a", False), ("a", "b", True), ("", "b", False), ("a", "", False)],
)
def test_an_order_is_for_the_node_of_its_uid(ordered: str, uid: str, refused: bool) -> None:
    message = not_ours(NodeMigrationSpec(node_name="n1", node_uid=ordered), uid)
    assert bool(message) is refused
    assert not refused or ("UID a" in message and "UID b" in message)


def test_the_own_node_is_read_with_its_uid() -> None:
    assert decode_node(b'{"metadata":{"name":"n1","uid":"u-1"}}').uid == "u-1"


def test_a_refusal_is_a_fault_once_both_watches_had_time_to_agree(facts: Facts, report: Report) -> None:
    facts.refuse("another machine")
    assert report.status.fault is None
    Clock.at = NOW + timedelta(seconds=2)
    facts.refuse("another machine")
    facts.look_at_refusal()
    assert report.status.fault is None
    Clock.at = NOW + timedelta(seconds=4)
    facts.look_at_refusal()
    fault = report.status.fault
    assert fault is not None
    assert (fault.reason, fault.message, fault.since) == ("NodeReplaced", "another machine", NOW)
    facts.refuse("")
    assert report.status.fault is None


def test_what_the_ladder_says_neither_hides_a_refusal_nor_is_lost_behind_it(
    facts: Facts, report: Report
) -> None:
    facts.refuse("another machine")
    Clock.at = NOW + timedelta(seconds=4)
    own = Fault(reason="Leftovers", message="some", since=NOW)
    facts.standing(Standing(Record(Rung.SOLE, NOW), 1, "", own))
    assert report.status.fault is not None
    assert report.status.fault.reason == "NodeReplaced"
    facts.refuse("")
    assert report.status.fault == own
