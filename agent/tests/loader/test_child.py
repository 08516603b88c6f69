"""How long the loader's child is waited for: as long as it gets on."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from handover_agent import loader
from handover_agent.loader import LoadFailed
from handover_agent.loader.child import GivenUp, Progress, processor_time, run

pytestmark = pytest.mark.unit

OFTEN_S = 0.01


def test_a_slow_one_is_waited_for_while_it_gets_on() -> None:
    progress = Progress(now=0, stuck_s=120, longest_s=1800)
    for minute in range(1, 29):
        assert progress.problem(used_s=minute * 0.01, now=minute * 60.0) is None


def test_one_that_does_nothing_is_given_up() -> None:
    progress = Progress(now=0, stuck_s=120, longest_s=1800)
    assert progress.problem(used_s=5.0, now=10.0) is None
    assert progress.problem(used_s=5.0, now=129.0) is None
    assert progress.problem(used_s=5.0, now=130.0) == "did nothing for 120 s, after 5.0 s of processor time"


def test_one_that_never_used_the_processor_is_given_up_too() -> None:
    progress = Progress(now=0, stuck_s=120)
    assert progress.problem(used_s=0.0, now=1.0) is None
    assert progress.problem(used_s=0.0, now=121.0) is not None


def test_there_is_an_end_to_patience() -> None:
    progress = Progress(now=0, stuck_s=120, longest_s=1800)
    for second in range(1800):
        assert progress.problem(used_s=float(second), now=float(second)) is None
    problem = progress.problem(used_s=1800.0, now=1800.0)
    assert problem == "was not done within 1800 s, after 1800.0 s of processor time"


def test_it_is_asked_for_its_status_and_for_all_that_it_said() -> None:
    script = "import sys; print('to stdout' * 20_000, flush=True); print('to stderr', file=sys.stderr); sys.exit(3)"
    status, said = run([sys.executable, "-c", script], look_every_s=OFTEN_S)
    assert status == 3
    assert said.endswith("to stdout\nto stderr\n")


def test_one_that_waits_for_ever_is_ended() -> None:
    clock = count(step=100.0)
    with pytest.raises(GivenUp, match="did nothing for 120 s"):
        run(["sleep", "infinity"], look_every_s=OFTEN_S, clock=lambda: float(next(clock)))
    # `run` waits for what it has ended, so that it is gone now


def test_processor_time_is_read_of_a_process_that_works() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as working:
        try:
            seen = {processor_time(working.pid)}
            while len(seen) < 3:  # it grows; else this never ends
                seen.add(processor_time(working.pid))
        finally:
            working.kill()
    assert max(seen) < 600, "seconds, not clock ticks"


def test_whoever_loads_is_told_what_the_child_did_not_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stuck(_: object) -> tuple[int, str]:
        raise GivenUp("did nothing for 120 s")

    monkeypatch.setattr("handover_agent.loader.child.run", stuck)
    with pytest.raises(LoadFailed, match="compiling and loading the programs did nothing for 120 s"):
        loader.load_programs(tmp_path, tmp_path, set_retval=False)
