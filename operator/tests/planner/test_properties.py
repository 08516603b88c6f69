"""The architecture's invariants, in any order of events; and for each of them a mutation that breaks it."""

import random
from collections.abc import Callable

import handover_operator.climb
import handover_operator.descend
import handover_operator.failures
import handover_operator.moves
import handover_operator.plan
import handover_operator.survey
import pytest
from handover_api.proxymigration import Rollback
from handover_operator import gates
from handover_operator.failures import Remembered
from handover_operator.orders import Step
from handover_operator.verdict import Verdict
from hypothesis import given
from hypothesis import strategies as st
from planner.chaos import KINDS, LIMITS, SOAKS, Script, play
from planner.invariants import InvariantError

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


def no_zones(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("handover_operator.selection.Zones.admits", lambda *_: True)


def leaves_at_once(patch: pytest.MonkeyPatch) -> None:
    """On the way down, Serving is left without looking whether kube-proxy was drained."""
    move = handover_operator.descend.move
    patch.setattr(
        handover_operator.descend, "_leave_serving", lambda s, ctx: move(s, ctx, handover_operator.descend.below(s.wanted), "")
    )


def forgets_the_label(patch: pytest.MonkeyPatch) -> None:
    """A drained node goes straight on to Sole, without waiting for the pod to leave."""
    patch.setattr(gates, "kube_proxy_gone", lambda _: None)


def never_frozen(patch: pytest.MonkeyPatch) -> None:
    real = handover_operator.plan.survey
    from dataclasses import replace

    patch.setattr(handover_operator.plan, "survey", lambda *a: replace(real(*a), frozen=False))


def always_ready(patch: pytest.MonkeyPatch) -> None:
    """The status promises more than was seen."""
    real = handover_operator.plan.decide

    def decide(*args: object, **kwargs: object) -> Verdict:
        verdict = real(*args, **kwargs)  # type: ignore[arg-type]
        return Verdict(verdict.phase, verdict.reason, verdict.message, ready=True, reconciling=verdict.reconciling)

    patch.setattr(handover_operator.plan, "decide", decide)


MUTATIONS: list[tuple[str, str, Mutate]] = [
    ("1 order", "kube-proxy is not waited for on the way down", passes("kube_proxy_serves")),
]


@pytest.mark.parametrize(("invariant", "what", "mutate"), MUTATIONS, ids=[f"{i}: {w}" for i, w, _ in MUTATIONS])
def test_a_mutation_is_caught(
    invariant: str, what: str, mutate: Mutate, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    for seed in MUTANT_SEEDS:
        try:
            play(script_of(seed))
        except InvariantError as error:
            if error.invariant == invariant:
                return
    pytest.fail(f"{what}: nothing noticed, so invariant {invariant!r} is not tested")
