"""The planner: from what is true in the cluster to what to do next. No I/O, no clock, no chance, no memory.

`plan` is called again and again with fresh facts and decides as if for the first time; what it has to remember stands
in the specs of the NodeMigrations and in the status of the ProxyMigration. The order of its thoughts:

1. Is it this migration's turn, and is there anything to decide at all?
2. Which way: up, down because asked to, or down because a gate failed and `rollback` says so (`survey`)?
3. Before anything has moved: preflight. Nothing on any node changes until it passes.
4. Nodes in flight take their next step, others start while there are slots (`moves`). New failures are only written
   down; the next plan acts on them.
5. When every node is down: the DaemonSet is restored, and on deletion the NodeMigrations and the finalizer go.

Paused, nothing moves: no order, no label. Only a label that leaves a node without any proxy is taken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from handover_api.base import Rung
from handover_api.proxymigration import NodeCounts, NodeFailure, Phase

from handover_operator.actions import (
    Action,
    AddFinalizer,
    DeleteNodeMigration,
    Event,
    PrepareDaemonSet,
    RemoveFinalizer,
    RestoreDaemonSet,
    UndrainKubeProxy,
)
from handover_operator.descend import grounded
from handover_operator.facts import DaemonSetFacts, MigrationFacts, NodeFacts
from handover_operator.gates import Block, Kind
from handover_operator.moves import Moves, moves, standstill
from handover_operator.orders import context, create, refresh
from handover_operator.preflight import Problem, beginning, cluster_problems, node_problems
from handover_operator.reasons import Reason
from handover_operator.standing import STALE_AFTER_S, Standing, replaced, soak_ends
from handover_operator.survey import Survey, counts, survey
from handover_operator.verdict import Verdict, decide


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and what to tell about it."""

    verdict: Verdict
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    counts: NodeCounts = field(default_factory=NodeCounts)
    current_nodes: tuple[str, ...] = ()
    failed_nodes: tuple[str, ...] = ()
    failures: tuple[NodeFailure, ...] = ()
    reverted_generation: int = 0
    begun: bool = False
    requeue_at: datetime | None = None  # when time alone may change the plan; None: only when facts change

    @property
    def phase(self) -> Phase:
        """Where the whole migration stands."""
        return self.verdict.phase


def plan(
    migration: MigrationFacts, nodes: Sequence[NodeFacts], daemonset: DaemonSetFacts, now: datetime
) -> Plan:
    """What to do next for a migration. Pure: equal facts and an equal time give an equal plan."""
    if migration.older is not None:
        return _not_its_turn(migration)
    if migration.deleting and not migration.finalizer:
        return Plan(Verdict(Phase.REVERSED, Reason.DELETING, "Nothing of Handover's is left in the cluster."))
    try:
        seen = survey(context(migration, daemonset, now), nodes)
    except ValueError as error:
        message = f"{error}. Nothing moves until the spec is corrected."
        return Plan(Verdict(Phase.STALLED, Reason.INVALID_SPEC, message, stalled=True))
    return _plan(seen)


def _not_its_turn(migration: MigrationFacts) -> Plan:
    actions: tuple[Action, ...] = (RemoveFinalizer(),) if migration.deleting and migration.finalizer else ()
    message = (
        f"The older ProxyMigration {migration.older} acts on this cluster, and there can be one at a time."
        f" Delete this one; or delete {migration.older} and wait until its way back is done."
    )
    return Plan(Verdict(Phase.STALLED, Reason.ANOTHER_MIGRATION, message, stalled=True), actions)


def _plan(seen: Survey) -> Plan:
    migration = seen.ctx.migration
    if not migration.deleting and not migration.finalizer:
        # Before there is anything to clean up, so that no deletion can overtake the cleaning.
        verdict = Verdict(Phase.PENDING, Reason.PREFLIGHT, "The migration has been seen.", reconciling=True)
        return Plan(
            verdict,
            (AddFinalizer(),),
            counts=counts(seen),
            failed_nodes=seen.known.nodes,  # a `replace` takes the finalizer away in the middle of everything
            failures=seen.known.failures,
            reverted_generation=seen.reverted_generation,
            begun=seen.traces,
            requeue_at=seen.ctx.now,
        )
    actions, events = _forget(seen)
    actions += _undrain_for_safety(seen)
    problems: list[Problem] = []
    if seen.up and not seen.begun:
        problems = cluster_problems(seen.ctx, seen.selected)
        if not problems:
            actions += _know_all(seen)
            problems = node_problems(seen.ctx, seen.selected)
    else:
        actions += _know_all(seen)
    if problems or seen.frozen:
        made = standstill(seen)
    else:
        if seen.prepare_again:
            actions.append(PrepareDaemonSet())
            text = "the spec has changed, so what somebody else took off kube-proxy's DaemonSet is applied once more"
            events.append(Event(Reason.DAEMON_SET_PREPARED, text))
        made = moves(seen)
    if not seen.up:
        made.blocks += [_no_report(seen, s) for s in seen.all if _unheard(seen, s)]
    actions += made.actions
    events += made.events
    finishing = [] if seen.frozen or problems else _finish(seen)
    actions += finishing
    if any(isinstance(action, RestoreDaemonSet) for action in finishing):
        events.append(
            Event(Reason.DAEMON_SET_RESTORED, "every node is back, kube-proxy's DaemonSet is as it was")
        )
    known = seen.known.plus(made.found)
    if seen.reverted_generation and not migration.status.reverted_generation and seen.ctx.stop is not None:
        events.append(Event(seen.ctx.stop.reason, seen.ctx.stop.message, warning=True))
    finished = _all_down(seen) and not finishing
    return Plan(
        decide(seen, made, problems, finished=finished),
        tuple(actions),
        tuple(events),
        counts(seen).model_copy(update={"failed": len(known.nodes)}),
        tuple(dict.fromkeys(made.current)),
        known.nodes,
        known.failures,
        seen.reverted_generation,
        bool(made.current) or (seen.traces and (seen.up or not finished)),
        _requeue_at(seen, made),
    )


def _forget(seen: Survey) -> tuple[list[Action], list[Event]]:
    """NodeMigrations of nodes that are gone, that were replaced under their old name, or that were deselected."""
    actions: list[Action] = []
    events: list[Event] = []
    for node in (*seen.gone, *(s.node for s in seen.all if replaced(s.node))):
        if node.migration is not None and not node.migration.deleting:
            actions.append(DeleteNodeMigration(node.name, node.migration.uid))
            what = "replaced by a new one of this name" if node.exists else "gone from the cluster"
            events.append(Event(Reason.NODE_FORGOTTEN, f"the node was {what}", node.name))
    if seen.up and not seen.frozen:
        for s in seen.all:
            if (
                s.known
                and s.name not in seen.selected_names
                and s.node.migration
                and grounded(s, seen.ctx.now)
            ):
                actions.append(DeleteNodeMigration(s.name, s.node.migration.uid))
    return actions, events


def _undrain_for_safety(seen: Survey) -> list[Action]:
    """A drained node that is ordered below Serving would have nobody. The one thing that even a pause allows."""
    return [
        UndrainKubeProxy(s.name)
        for s in seen.all
        if s.known and s.node.drained and s.wanted.height < Rung.SERVING.height
    ]


def _know_all(seen: Survey) -> list[Action]:
    """Every node that matters has a NodeMigration, with the present settings."""
    actions: list[Action] = []
    for s in seen.all:
        rung = _unknown(seen, s)
        if rung is not None:
            actions.append(create(s.node, seen.ctx, rung))
        elif s.known and not seen.frozen and (changed := refresh(s, seen.ctx)) is not None:
            actions.append(changed)
    return actions


def _unknown(seen: Survey, s: Standing) -> Rung | None:
    """The rung on which a missing NodeMigration is created. Somebody may have deleted it, the agent being anywhere."""
    if s.node.drained and s.node.migration is None:
        return Rung.SERVING  # where nobody is taken from the node, wherever its agent stands
    return Rung.STANDBY if _unheard(seen, s) and s.node.kube_proxy_serves else None


def _unheard(seen: Survey, s: Standing) -> bool:
    """There is no NodeMigration where one should be: on the way down, wherever an agent could still hold something."""
    if s.node.migration is not None:
        return False
    if seen.up:
        return s.name in seen.selected_names
    return seen.traces and seen.ctx.daemonset.exists and s.node.agent is not None and s.node.agent.serves


def _no_report(seen: Survey, s: Standing) -> Block:
    return beginning(s, seen.ctx) or Block(
        Kind.WAIT, Reason.AGENT_NOT_READY, s.name, "a report of its agent", "none"
    )


def _all_down(seen: Survey) -> bool:
    return not seen.climbers and all(grounded(s, seen.ctx.now) and not _unheard(seen, s) for s in seen.all)


def _finish(seen: Survey) -> list[Action]:
    """What is left to do once every node is down."""
    if not _all_down(seen):
        return []
    if seen.ctx.daemonset.prepared or seen.ctx.daemonset.unrecorded:
        return [RestoreDaemonSet()]
    if not seen.ctx.migration.deleting:
        return []
    # In one plan: if it is cut short, the rest is made anew, found to be down, and deleted again.
    migrations = [s.node.migration for s in seen.all if s.known]
    deletions: list[Action] = [
        DeleteNodeMigration(m.spec.node_name, m.uid) for m in migrations if m is not None
    ]
    return [*deletions, RemoveFinalizer()]


def _requeue_at(seen: Survey, made: Moves) -> datetime | None:
    """The next moment at which time alone changes something."""
    ctx = seen.ctx
    if made.found:
        return ctx.now
    moments = [moment for s in seen.selected if not s.resting for moment in _moments(seen, s)]
    return min((moment for moment in moments if moment > ctx.now), default=None)


def _moments(seen: Survey, s: Standing) -> list[datetime]:
    moments = [s.spec.deadline] if s.spec.deadline else []
    if s.status.heartbeat is not None:
        moments.append(s.status.heartbeat + timedelta(seconds=STALE_AFTER_S))
    if s.wanted in (Rung.SERVING, Rung.SOLE) and s.settled:
        moments.append(soak_ends(s, seen.ctx.soak_s, seen.ctx.now))
    return moments
