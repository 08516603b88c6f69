"""Each file of ../scenarios tells a story; the commands must answer what is written beneath them."""

import os
from pathlib import Path

import pytest
from tests.table.scenario import replay

pytestmark = pytest.mark.unit

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_written(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    happened = replay(told)
    if os.environ.get("HANDOVER_UPDATE_SCENARIOS"):
        path.write_text(happened, encoding="utf-8")
    assert happened == told


def test_there_are_scenarios() -> None:
    assert SCENARIOS
