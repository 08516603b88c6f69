"""When a gate has failed for good, and what is remembered of it.

A failure is written into the ProxyMigration's status before anything is done about it: a plan acts only on failures
that it finds there, so that an operator that dies in between knows what its predecessor knew. A new generation of
the spec forgets them, which is how a person says: try again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from handover_api.base import Rung
from handover_api.proxymigration import NodeFailure

from handover_operator.facts import MigrationFacts
from handover_operator.gates import Block, Kind, stamp
from handover_operator.orders import Context
from handover_operator.reasons import Reason
from handover_operator.standing import Standing, soak_ends

KEPT = 50  # failures told with their message; the names of all are kept


@dataclass(frozen=True, slots=True)
class Remembered:
    """Failed nodes, by name, and the first failures in full."""

    nodes: tuple[str, ...] = ()
    failures: tuple[NodeFailure, ...] = ()

    def plus(self, found: Iterable[NodeFailure]) -> "Remembered":
        """With these as well."""
        new = [failure for failure in found if failure.node not in self.nodes]
        return Remembered((*self.nodes, *(failure.node for failure in new)), (*self.failures, *new)[:KEPT])


def remembered(migration: MigrationFacts, present: frozenset[str]) -> Remembered:
    """What failed at this generation of the spec, on nodes that are still there."""
    status = migration.status
    if status.observed_generation != migration.generation:
        return Remembered()
    return Remembered(
        tuple(name for name in status.failed_nodes if name in present),
        tuple(failure for failure in status.failures if failure.node in present),
    )


def judge(s: Standing, block: Block, ctx: Context) -> NodeFailure | None:
    """The failure that a block on the way up amounts to, if it does. Stale facts are never judged."""
    if not s.fresh or s.fell or block.reason is Reason.SOAKING:
        return None
    if block.kind is Kind.FAIL:
        return _failure(s, block.reason, block.message, ctx.now)
    due = _due(s, ctx)
    if block.kind is Kind.WAIT and due is not None and ctx.now > due:
        reason = Reason.DEADLINE_EXCEEDED
        return _failure(s, reason, f"{block.message} (waited until {stamp(due)}; {block.reason})", ctx.now)
    return None


def _due(s: Standing, ctx: Context) -> datetime | None:
    if s.spec.migration_generation != ctx.migration.generation:
        return None  # it is about to be renewed
    if s.settled and s.wanted in (ctx.top, Rung.SOLE):
        return soak_ends(s, ctx.soak_s + ctx.deadline_s[s.wanted], ctx.now)
    return s.spec.deadline


def _failure(s: Standing, reason: Reason, message: str, now: datetime) -> NodeFailure:
    return NodeFailure(node=s.name, rung=s.wanted, reason=reason, message=message[:1024], at=now)
