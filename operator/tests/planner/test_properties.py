"""The architecture's invariants, in any order of events; and for each of them a mutation that breaks it."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import handover_operator.bypassed
import handover_operator.climb
import handover_operator.descend
import handover_operator.moves
import handover_operator.plan
import handover_operator.survey
import pytest
from handover_api.base import Rung
from handover_api.proxymigration import Rollback
from handover_operator import gates
from handover_operator.failures import Remembered, judge
from handover_operator.moves import Moves
from handover_operator.orders import move
from handover_operator.preflight import Problem
from handover_operator.selection import Zones
from handover_operator.survey import Survey, survey
from handover_operator.verdict import Verdict, decide
from hypothesis import given
from hypothesis import strategies as st

from . import chaos, rollout
from .chaos import KINDS, LIMITS, SOAKS, Script, play
from .invariants import InvariantError, check_world
from .rollout import replay
from .rollouts import ROLLOUTS
from .sim import above

pytestmark = pytest.mark.unit

MUTANT_SEEDS = range(600)
ENDS = ("migrated", "deleted", "reversed")

scripts = st.builds(
    Script,
    nodes=st.integers(1, 5),
    zones=st.integers(1, 3),
    canary=st.integers(0, 3),
    limit=st.sampled_from(LIMITS),
    soak=st.sampled_from(SOAKS),
    rollback=st.sampled_from(Rollback),
    events=st.lists(st.tuples(st.integers(0, KINDS - 1), st.integers(0, 19)), max_size=60),
    ends=st.sampled_from(ENDS),
)


@given(scripts)
def test_the_invariants_hold_in_any_order_of_events_and_it_ends_when_faults_stop(script: Script) -> None:
    play(script)


def script_of(seed: int) -> Script:
    """A script by chance."""
    r = random.Random(seed)
    return Script(
        nodes=r.randint(1, 5),
        zones=r.randint(1, 3),
        canary=r.randint(0, 3),
        limit=r.choice(LIMITS),
        soak=r.choice(SOAKS),
        rollback=r.choice(list(Rollback)),
        events=[(r.randrange(KINDS), r.randrange(20)) for _ in range(r.randint(0, 80))],
        ends=r.choice(ENDS),
    )


Mutate = Callable[[pytest.MonkeyPatch], None]


def passes(name: str) -> Mutate:
    """A gate that never blocks."""
    return lambda patch: patch.setattr(gates, name, lambda *_: None)


def answers(module: object, name: str, answer: object) -> Mutate:
    """A rule that always says the same."""
    return lambda patch: patch.setattr(module, name, lambda *_, **__: answer)


def unchecked(mutate: Mutate) -> Mutate:
    """A mutation with the checks of the plans switched off, so that only the world's own can notice."""

    def both(patch: pytest.MonkeyPatch) -> None:
        mutate(patch)
        for module in (chaos, rollout):
            patch.setattr(module, "check", lambda world, _: check_world(world))

    return both


def judges_the_stale(patch: pytest.MonkeyPatch) -> None:
    """A deadline passes for an agent that nobody can hear."""
    real = judge
    patch.setattr(
        handover_operator.moves, "judge", lambda s, block, ctx: real(replace(s, fresh=True), block, ctx)
    )


def never_soaked(patch: pytest.MonkeyPatch) -> None:
    """A soak that waits for ever."""
    real = gates.soaked
    patch.setattr(gates, "soaked", lambda s, soak_s, now: real(s, 1e9, now))


def leaves_at_once(patch: pytest.MonkeyPatch) -> None:
    """On the way down nobody looks whether kube-proxy was drained."""
    patch.setattr(
        handover_operator.descend, "_leave_serving", lambda s, ctx: move(s, ctx, Rung.SHADOW, "at once")
    )


def jumps(patch: pytest.MonkeyPatch) -> None:
    """The way up goes from Standby to Serving."""
    patch.setattr(handover_operator.climb, "move", lambda s, ctx, rung, why: move(s, ctx, above(rung), why))


def rushes(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the agent to say that a rung is reached, nor for what is only there once it is."""
    patch.setattr(gates, "settled", lambda _: None)
    patch.setattr(handover_operator.climb, "shadow_gate", lambda *_: None)


def drains_early(patch: pytest.MonkeyPatch) -> None:
    """The label comes as soon as the node is on Serving, whatever the probes say."""
    patch.setattr(handover_operator.climb, "serving_gate", lambda *_: None)


def never_frozen(patch: pytest.MonkeyPatch) -> None:
    """The planner does not see a pause."""
    patch.setattr(handover_operator.plan, "survey", lambda *args: replace(survey(*args), frozen=False))


def always_ready(patch: pytest.MonkeyPatch) -> None:
    """The status promises more than was seen."""
    real = decide

    def promise(seen: Survey, made: Moves, problems: Sequence[Problem], *, finished: bool) -> Verdict:
        return replace(
            real(seen, made, problems, finished=finished), ready=True, reconciling=False, stalled=False
        )

    patch.setattr(handover_operator.plan, "decide", promise)


def remembers_by_itself(patch: pytest.MonkeyPatch) -> None:
    """Failures are kept in the process, where they are lost when it is killed, instead of in the status."""
    patch.setattr(handover_operator.survey, "remembered", lambda *_: Remembered())


MUTATIONS: list[tuple[str, str, Mutate]] = [
    ("1 order", "kube-proxy is not waited for on the way down", passes("kube_proxy_serves")),
    ("1 order", "a drained node lets go", leaves_at_once),
    ("1 served", "a drained node lets go, as its traffic sees it", unchecked(leaves_at_once)),
    ("ladder", "a node jumps over a rung", jumps),
    ("ladder", "the next step does not wait for the last one", rushes),
    ("3 snapshot", "nobody asks for a snapshot", passes("snapshot")),
    ("4 slots", "no limit", answers(handover_operator.moves, "slots_up", 9)),
    ("4 slots", "no limit on the way down", answers(handover_operator.moves, "slots_down", 9)),
    ("4 zones", "zones do not count", answers(Zones, "admits", True)),
    ("4 soak", "the soak is over at once", passes("soaked")),
    ("5 no flush beside kube-proxy", "the pod is not waited for", passes("kube_proxy_gone")),
    ("6 memory", "failures are forgotten", remembers_by_itself),
    ("7 clean", "every node counts as down", answers(handover_operator.plan, "grounded", True)),
    ("8 fresh", "stale facts are as good as fresh ones", passes("fresh")),
    ("8 fresh", "stale facts are judged", judges_the_stale),
    ("8 status", "ready is said too early", always_ready),
    ("gates", "probes do not count", drains_early),
    ("hold", "what is unserved does not hold", answers(handover_operator.survey, "_hold", None)),
    ("ahead", "rules before DNAT do not count", answers(handover_operator.bypassed, "gate", None)),
    ("paused", "a pause stops nobody", never_frozen),
    ("reverted", "a reverted DaemonSet stops nobody", answers(handover_operator.survey, "_line_stop", None)),
    ("liveness", "a soak never passes", never_soaked),
]


@pytest.mark.parametrize(
    ("invariant", "what", "mutate"), MUTATIONS, ids=[f"{i}: {w}" for i, w, _ in MUTATIONS]
)
def test_a_mutation_is_caught(
    invariant: str, what: str, mutate: Mutate, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    for attempt in attempts(invariant):
        try:
            attempt()
        except InvariantError as error:
            if error.invariant == invariant:
                return
        except AssertionError:
            continue  # it does not end as it should: noticed, but not by the invariant
    pytest.fail(f"{what}: nothing noticed, so invariant {invariant!r} is not tested")


def attempts(invariant: str) -> Iterator[Callable[[], object]]:
    """Ways to provoke an invariant, the likeliest first."""
    if invariant != "liveness":  # a rollout that does not end is no InvariantError
        for known in ROLLOUTS:
            yield partial(replay, known)
            yield partial(replay, known, 1)
    for seed in MUTANT_SEEDS:
        yield partial(play, script_of(seed))
