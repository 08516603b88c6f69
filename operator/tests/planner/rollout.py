"""Whole rollouts as text that a person can read: what the operator did, and where every node stood after it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handover_api.proxymigration import Phase, ProxyMigrationSpec
from handover_operator.actions import Action
from handover_operator.reasons import Reason

from .invariants import check, check_clean, check_world
from .sim import EPOCH, Machine, Trace, World

MOST_ROUNDS = 600
IDLE_S = 10.0


@dataclass(frozen=True)
class Happening:
    """Something from outside, once a condition has come true."""

    what: str
    when: Callable[[World, Phase], bool]
    then: Callable[[World], object]


@dataclass(frozen=True)
class Rollout:
    """A cluster, a wish, what happens meanwhile, and how it ends."""

    title: str
    nodes: int
    spec: dict[str, object]
    happenings: Sequence[Happening] = ()
    zones: int = 1
    ends: tuple[Phase, Reason] | None = None  # None: the object is gone and the cluster clean
    prepare: Callable[[World], object] | None = None
    begins: str = field(default="")  # the preparation in words

    @property
    def file(self) -> str:
        """The name of its golden file."""
        return (
            "".join(c if c.isalnum() else "-" for c in self.title.lower()).strip("-").replace("--", "-")
            + ".golden"
        )


def replay(rollout: Rollout, seed: int | None = None) -> str:
    """Walk a rollout, the nodes in their order or, with a seed, in any; check the invariants at each step."""
    chance = random.Random(seed) if seed is not None else None
    world = World(
        rollout.nodes, ProxyMigrationSpec.model_validate(rollout.spec), zones=rollout.zones, watch=check
    )
    if rollout.prepare is not None:
        rollout.prepare(world)
    told = _Telling(rollout, world)
    waiting = list(rollout.happenings)
    for _ in range(MOST_ROUNDS):
        trace = world.operate()
        told.operator(trace)
        if not world.exists:
            break
        happened = bool(waiting) and waiting[0].when(world, trace.plan.phase)
        if happened:
            happening = waiting.pop(0)
            told.line(f"-- {happening.what}")
            happening.then(world)
        moved = _react(world, chance)
        check_world(world)
        told.nodes()
        idle = not (moved or happened or trace.plan.actions)
        if idle and not waiting and _ended(rollout, trace):
            break
        world.pass_time(_idle_s(world, trace) if idle else 1.0)
    else:
        raise AssertionError(f"{rollout.title}: no end after {MOST_ROUNDS} rounds\n{told.text}")
    assert not waiting, f"{rollout.title}: never came true: {waiting[0].what}\n{told.text}"
    if rollout.ends is None:
        assert not world.exists, told.text
        for _ in range(4):
            world.react()
        check_clean(world)
    return told.text


def _ended(rollout: Rollout, trace: Trace) -> bool:
    verdict = trace.plan.verdict
    return rollout.ends == (verdict.phase, verdict.reason) and not verdict.reconciling


def _react(world: World, chance: random.Random | None) -> bool:
    if chance is None:
        return world.react()
    machines = [m for m in world.machines if chance.random() < 0.7]
    chance.shuffle(machines)
    moved = world.react(machines)
    return moved or len(machines) < len(world.machines)


def _idle_s(world: World, trace: Trace) -> float:
    requeue = trace.plan.requeue_at
    return min(IDLE_S, max(1.0, (requeue - world.now).total_seconds())) if requeue else IDLE_S


class _Telling:
    """The text of a rollout, as it grows. What does not change is not repeated."""

    def __init__(self, rollout: Rollout, world: World) -> None:
        self._world = world
        self._lines = [f"## {rollout.title}", ""]
        self._lines += [f"{key}: {_value(value)}" for key, value in rollout.spec.items()]
        self._lines.append(f"nodes: {', '.join(f'{m.name} in {m.zone}' for m in world.machines)}")
        if rollout.begins:
            self._lines.append(f"begins: {rollout.begins}")
        self._lines.append("")
        self._verdict: tuple[object, ...] = ()
        self._stood = ""
        self.nodes()

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"

    def line(self, text: str) -> None:
        """One line, with the time."""
        seconds = int((self._world.now - EPOCH).total_seconds())
        self._lines.append(f"{seconds:5}s  {text}")

    def operator(self, trace: Trace) -> None:
        """What the operator did and said."""
        verdict = trace.plan.verdict
        flags = [name for name in ("ready", "reconciling", "stalled") if getattr(verdict, name)]
        said = (verdict.phase, verdict.reason, verdict.message, *flags)
        if said != self._verdict:
            self._verdict = said
            migrated = f"{trace.plan.counts.migrated}/{trace.plan.counts.selected}"
            self.line(f"{verdict.phase} {migrated} {verdict.reason} ({', '.join(flags) or 'at rest'})")
            self._lines += [f"        | {line}" for line in verdict.message.splitlines()]
        for action in trace.plan.actions:
            self.line(f"  {_action(trace, action)}")
        for event in trace.plan.events:
            kind = "Warning" if event.warning else "Normal"
            first = event.message.splitlines()[0]
            self.line(f"  event {kind} {event.reason} {f'{event.node}: ' if event.node else ''}{first}")

    def nodes(self) -> None:
        """Where the nodes really stand."""
        stood = "  ".join(_machine(m) for m in self._world.machines)
        if stood != self._stood:
            self._stood = stood
            self.line(f"= {stood}")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    return str(value)


def _machine(m: Machine) -> str:
    marks = [
        f"kube-proxy {m.pod}" if m.pod != "running" else "",
        "drained" if m.drained else "",
        "agent gone" if not m.agent else "",
        "not Ready" if not m.ready else "",
        "gone" if not m.exists else "",
    ]
    notes = ", ".join(mark for mark in marks if mark)
    return f"{m.name}:{m.rung}" + (f"({notes})" if notes else "")


def _action(trace: Trace, action: Action) -> str:
    name = type(action).__name__
    node = getattr(action, "node", "")
    rung = getattr(action, "rung", None)
    if rung is None:
        return f"{name} {node}".rstrip()
    before = next(n.migration.spec for n in trace.nodes if n.name == node and n.migration)
    soak = ", soak passed" if action.spec.soak_passed and not before.soak_passed else ""  # type: ignore[union-attr]
    way = f"{before.rung} → {rung}" if before.rung is not rung else f"{rung} again{soak}"
    return f"{name} {node} {way}"
