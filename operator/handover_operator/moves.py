"""Who moves now: nodes in flight take their next step, others start while there are slots, and new failures are found.

A node whose gate has just failed takes no step: the failure is written down first (see `failures`), and what
`rollback` says is done by the next plan.
"""

from dataclasses import dataclass, field

from handover_api.base import Rung
from handover_api.proxymigration import NodeFailure

from handover_operator.actions import Action, Event, PrepareDaemonSet
from handover_operator.climb import climb, drain_again, start_gate
from handover_operator.descend import descend, grounded
from handover_operator.failures import judge
from handover_operator.gates import Block, Kind
from handover_operator.orders import Step
from handover_operator.preflight import beginning
from handover_operator.reasons import Reason
from handover_operator.selection import Zones, choose, slots_down, slots_up
from handover_operator.standing import Standing
from handover_operator.survey import Survey, at_top, may_drain


@dataclass(slots=True)
class Moves:
    """What the nodes do in this plan; filled node by node."""

    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    found: list[NodeFailure] = field(default_factory=list)

    def take(self, s: Standing, step: Step) -> None:
        """Add one node's step."""
        self.current.append(s.name)
        if step.block is not None:
            self.blocks.append(step.block)
        for action in step.actions:
            if not isinstance(action, PrepareDaemonSet):
                self.actions.append(action)
                continue
            if action in self.actions:
                return  # one node asks for all of them
            self.actions.append(action)
        self.events += step.events


def moves(survey: Survey) -> Moves:
    """The next step of every node that takes one."""
    result = Moves()
    for s in survey.all:
        if s.in_flight:
            _fly(survey, s, result)
        elif _lost_its_label(survey, s):
            step = drain_again(s)
            result.actions += step.actions
            result.events += step.events
    zones = Zones(survey.all)
    started = _start_down(survey, zones, result)
    _start_up(survey, zones, started, result)
    return result


def _lost_its_label(survey: Survey, s: Standing) -> bool:
    """kube-proxy is about to come back to a node that was handed over, and nobody has asked for that."""
    ctx = survey.ctx
    kept = ctx.daemonset.in_force and ctx.stop is None and s.name in survey.climbers
    return kept and s.migrated and s.fresh and not s.node.drained


def standstill(survey: Survey) -> Moves:
    """Nobody moves: who is in flight, and nothing else."""
    return Moves(current=[s.name for s in survey.all if s.in_flight])


def _fly(survey: Survey, s: Standing, result: Moves) -> None:
    if s.name not in survey.climbers:
        result.take(s, descend(s, survey.ctx))
        return
    step = climb(s, survey.ctx)
    failure = judge(s, step.block, survey.ctx) if step.block is not None else None
    if failure is None:
        result.take(s, step)
        return
    result.current.append(s.name)
    result.found.append(failure)
    result.events.append(Event(Reason(failure.reason), failure.message, s.name, warning=True))


def _start_down(survey: Survey, zones: Zones, result: Moves) -> int:
    waiting = [
        s
        for s in survey.all
        if s.name not in survey.climbers and not s.in_flight and not grounded(s, survey.ctx.now)
    ]
    able = [s for s in waiting if s.fresh and s.wanted is not Rung.STANDBY]
    slots = slots_down(survey.all, survey.limit)
    chosen, _ = choose(able, slots, zones)
    for s in chosen:
        result.take(s, descend(s, survey.ctx))
    lost = [s.name for s in survey.all if s.in_flight and s.lost]
    if able and not slots and lost:
        result.blocks += [_behind_the_lost(s, lost) for s in able]
    for s in waiting:
        if s not in able and (step := descend(s, survey.ctx)).block is not None:
            result.blocks.append(step.block)
    return len(chosen)


def _start_up(survey: Survey, zones: Zones, already: int, result: Moves) -> None:
    ctx = survey.ctx
    candidates: list[Standing] = []
    for s in survey.selected:
        if s.name not in survey.climbers or s.in_flight or at_top(s, ctx):
            continue
        if s.wanted is Rung.STANDBY:
            block = start_gate(s, ctx) if s.known else beginning(s, ctx)
            if block is None:
                candidates.append(s)
            else:
                result.blocks.append(block)
        elif may_drain(survey, s):
            candidates.append(s)
    if survey.line_waits or result.found:
        return
    candidates.sort(key=lambda s: (-s.wanted.height, s.name))
    rollout = ctx.migration.spec.rollout
    slots = max(0, slots_up(survey.all, survey.passed, rollout.canary, survey.limit) - already)
    chosen, held_back = choose(candidates, slots, zones)
    for s in chosen:
        result.take(s, climb(s, ctx))
    if not chosen and not result.current:
        result.blocks += [_zone_block(s) for s in held_back]


def _behind_the_lost(s: Standing, lost: list[str]) -> Block:
    return Block(
        Kind.WAIT,
        Reason.AGENT_LOST,
        s.name,
        "a slot for its way back",
        f"spec.rollout.maxUnavailable is used up by {', '.join(lost)}, which is not heard of",
        "If that machine will not come back, delete its Node.",
    )


def _zone_block(s: Standing) -> Block:
    zone = s.node.zone or "(none)"
    return Block(
        Kind.WAIT,
        Reason.ZONE_LIMIT,
        s.name,
        f"another Ready node in its zone {zone}, or no other zone in flight",
        "neither",
    )
