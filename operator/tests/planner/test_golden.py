"""Rollouts from beginning to end, as files in `golden/`. Rewrite them with REWRITE_GOLDEN=1, and read the diff."""

import difflib
import os
from pathlib import Path

import pytest

from .rollout import Rollout, replay
from .rollouts import ROLLOUTS

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden"
SEEDS = range(6)


@pytest.mark.parametrize("rollout", ROLLOUTS, ids=lambda rollout: rollout.title)
def test_a_rollout_goes_as_its_golden_file_says(rollout: Rollout) -> None:
    text = replay(rollout)
    file = GOLDEN / rollout.file
    if os.environ.get("REWRITE_GOLDEN"):
        file.write_text(text)
    expected = file.read_text() if file.exists() else ""
    diff = "\n".join(
        difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
    )
    assert not diff, f"{rollout.file} (REWRITE_GOLDEN=1, then read the diff):\n{diff}"


@pytest.mark.parametrize("rollout", ROLLOUTS, ids=lambda rollout: rollout.title)
def test_a_rollout_ends_the_same_in_any_order(rollout: Rollout) -> None:
    for seed in SEEDS:
        replay(rollout, seed)


def test_every_golden_file_has_its_rollout() -> None:
    assert {file.name for file in GOLDEN.glob("*.golden")} == {rollout.file for rollout in ROLLOUTS}
