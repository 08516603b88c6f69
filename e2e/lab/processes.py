"""Long-lived processes of a lab: started detached, remembered by pid and start time, stopped only when it
is still the same one.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.lab.wait import until


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone (or a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that outlives the command that started it. A pid alone could be somebody else's by now."""

    pid: int
    ticks: int

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return start_ticks(self.pid) == self.ticks

    def stop(self, *, timeout_s: float = 10, force: bool = False) -> None:
        """End it, by SIGKILL when SIGTERM does not do within the time."""
        self._send(signal.SIGKILL if force else signal.SIGTERM)
        try:
            until(
                lambda: not self.alive,
                what=f"process {self.pid} has ended",
                timeout_s=timeout_s,
                every_s=0.02,
            )
        finally:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def save(self, file: Path) -> None:
        """Remember it for later commands."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, file: Path) -> "Daemon | None":
        """The process that was remembered, if any."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Daemon:
    """Start a process in a session of its own, its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=env
        )
    ticks = start_ticks(child.pid)
    return Daemon(child.pid, -1 if ticks is None else ticks)
