"""The agent's directory on the node's disk."""

import os
from pathlib import Path

import pytest
from handover_agent.settings import Settings
from handover_agent.state import AnotherAgent, State

pytestmark = pytest.mark.unit


def test_an_agent_finds_what_earlier_ones_have_written(tmp_path: Path) -> None:
    state = Settings(state_dir=tmp_path).state
    files = state.journal, state.snapshot, state.names, state.baseline, state.servers, state.metrics_address
    names = "journal.json", "snapshot", "names.json", "baseline.json", "apiservers.json", "metrics-address"
    assert files == tuple(tmp_path / name for name in names)


def test_only_one_agent_works_on_a_node(tmp_path: Path) -> None:
    state = State(tmp_path / "made when it is needed")
    first = state.lock()
    with pytest.raises(AnotherAgent, match="it has to end first"):
        state.lock()
    os.close(first)
    os.close(state.lock())
