"""The status: three conditions that agree, times that stay while nothing changes, messages that fit."""

from datetime import timedelta

import pytest
from handover_api.base import ConditionStatus, Rung
from handover_api.proxymigration import Phase, ProxyMigrationStatus
from handover_operator.facts import DaemonSetFacts
from handover_operator.plan import plan
from handover_operator.summarize import summarize

from .healthy import NOW, migration, node

pytestmark = pytest.mark.unit

PREPARED = DaemonSetFacts(prepared=True, in_force=True)
MIGRATED = [node(f"n{i}", Rung.SOLE, soaked=True) for i in range(3)]


def flags(status: ProxyMigrationStatus) -> dict[str, str]:
    """The conditions in short."""
    return {condition.type: str(condition.status) for condition in status.conditions}


def test_a_migrated_cluster_is_ready_and_nothing_else() -> None:
    facts = migration()
    status = summarize(plan(facts, MIGRATED, PREPARED, NOW), facts, NOW)
    assert flags(status) == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    assert (status.phase, status.migrated, status.current_node) == (Phase.MIGRATED, "3/3", "")


def test_a_status_is_written_the_same_while_nothing_changes() -> None:
    facts = migration()
    first = summarize(plan(facts, MIGRATED, PREPARED, NOW), facts, NOW)
    later = NOW + timedelta(seconds=9)
    again = migration(known=first)
    assert summarize(plan(again, MIGRATED, PREPARED, later), again, later) == first


def test_a_condition_that_turns_gets_a_new_time_and_the_others_keep_theirs() -> None:
    facts = migration()
    first = summarize(plan(facts, MIGRATED, PREPARED, NOW), facts, NOW)
    later = NOW + timedelta(seconds=9)
    paused = migration(known=first, generation=2, paused=True)
    status = summarize(plan(paused, MIGRATED, PREPARED, later), paused, later)
    times = {condition.type: condition.last_transition_time for condition in status.conditions}
    assert times == {"Ready": later, "Reconciling": NOW, "Stalled": NOW}
    assert {condition.observed_generation for condition in status.conditions} == {2}
    ready = next(condition for condition in status.conditions if condition.type == "Ready")
    assert ready.status is ConditionStatus.FALSE
    assert "spec.paused" in ready.message


def test_many_nodes_fit_into_message_and_column() -> None:
    nodes = [node(f"worker-{i:04}.example.internal", Rung.SHADOW) for i in range(3000)]
    nodes = [n for n in nodes if n.migration]
    facts = migration(rollout={"maxUnavailable": "100%", "canary": 0})
    status = summarize(plan(facts, nodes, PREPARED, NOW), facts, NOW)
    assert len(status.message) <= 4096
    assert len(status.current_node) <= 1024
    assert len(status.current_nodes) == 3000
    ProxyMigrationStatus.model_validate(status.model_dump())
