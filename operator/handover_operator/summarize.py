"""The one place where a plan becomes the ProxyMigration's status.

The three conditions are written together, in the form that kstatus reads: `Reconciling` while it moves, `Stalled` when
a person is needed, `Ready` when the cluster is as wished. A condition that keeps its status keeps its time.
"""

from datetime import datetime

from handover_api.base import Condition, ConditionStatus
from handover_api.proxymigration import ProxyMigrationStatus

from handover_operator.facts import MigrationFacts
from handover_operator.plan import Plan

LISTED_BYTES = 1024


def summarize(plan: Plan, migration: MigrationFacts, now: datetime) -> ProxyMigrationStatus:
    """The status to write for a plan. Equal to the old one, times included, when nothing has changed."""
    verdict = plan.verdict
    flags = {"Ready": verdict.ready, "Reconciling": verdict.reconciling, "Stalled": verdict.stalled}
    old = {condition.type: condition for condition in migration.status.conditions}
    return ProxyMigrationStatus(
        observed_generation=migration.generation,
        phase=verdict.phase,
        migrated=f"{plan.counts.migrated}/{plan.counts.selected}",
        nodes=plan.counts,
        current_nodes=list(plan.current_nodes),
        current_node=_listed(plan.current_nodes),
        message=verdict.message,
        failed_nodes=list(plan.failed_nodes),
        failures=list(plan.failures),
        begun=plan.begun,
        reverted_generation=plan.reverted_generation,
        conditions=[
            _condition(type_, true, old.get(type_), plan, migration.generation, now)
            for type_, true in flags.items()
        ],
    )


def _condition(
    type_: str, true: bool, old: Condition | None, plan: Plan, generation: int, now: datetime
) -> Condition:
    status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
    kept = old is not None and old.status is status
    return Condition(
        type=type_,
        status=status,
        observed_generation=generation,
        last_transition_time=old.last_transition_time
        if old is not None and kept
        else now.replace(microsecond=0),
        reason=plan.verdict.reason,
        message=plan.verdict.message if true or type_ == "Ready" else "",
    )


def _listed(names: tuple[str, ...]) -> str:
    text = ", ".join(names)
    return text if len(text) <= LISTED_BYTES else text[: LISTED_BYTES - 2].rsplit(", ", 1)[0] + " …"
