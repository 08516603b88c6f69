"""Waits for the loader's child: not for a time, but for as long as it gets on.

How long compiling takes is the machine's affair: seconds on most, minutes where a processor is emulated, or where a
container may use a tenth of one. What must not be waited for is a child that has come to a stop, and such a one does
not use the processor: nothing that the loader does waits for anybody else.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_STUCK_S = 120.0
_LONGEST_S = 1800.0
_LOOK_EVERY_S = 1.0


class GivenUp(Exception):
    """The child was ended; says why."""


class Progress:
    """Tells whether a process gets on, by the processor time that it has used."""

    def __init__(self, now: float, stuck_s: float = _STUCK_S, longest_s: float = _LONGEST_S) -> None:
        self._stuck_s, self._longest_s = stuck_s, longest_s
        self._began = self._moved = now
        self._used = -1.0

    def problem(self, used_s: float, now: float) -> str | None:
        """Why not to wait any longer, or None. `used_s`: processor time so far, `now`: of any clock."""
        if used_s > self._used:
            self._used, self._moved = used_s, now
        if now - self._moved >= self._stuck_s:
            return f"did nothing for {self._stuck_s:.0f} s, after {self._used:.1f} s of processor time"
        if now - self._began >= self._longest_s:
            return f"was not done within {self._longest_s:.0f} s, after {self._used:.1f} s of processor time"
        return None


def run(
    command: Sequence[str],
    progress: Progress | None = None,
    look_every_s: float = _LOOK_EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, str]:
    """Status and output of a command that ends by itself. Raises GivenUp when it gets nowhere."""
    progress = progress or Progress(clock())
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        try:
            while True:
                try:
                    said, _ = child.communicate(timeout=look_every_s)
                    return child.returncode, said
                except subprocess.TimeoutExpired:
                    problem = progress.problem(processor_time(child.pid), clock())
                    if problem:
                        raise GivenUp(problem) from None
        finally:
            child.kill()  # does nothing to one that has ended


def processor_time(pid: int) -> float:
    """What a process that was not waited for has used, in seconds (proc(5), `utime` and `stime`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
