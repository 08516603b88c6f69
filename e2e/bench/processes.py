"""A program on a node that is measured itself: what it takes of the machine, and how it is held still."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.lab import Node
from e2e.trial import until

_TICKS = os.sysconf("SC_CLK_TCK")
_KB = 1024
_TRANSACTION_S = 900.0


class Running:
    """A program started on a node, by us; it ends with us."""

    def __init__(self, node: Node, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.started = time.monotonic()
        self.log = log
        with log.open("wb") as out:
            self._outer = node.popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **env}
            )
        self._pid = 0

    @property
    def pid(self) -> int:
        """The program itself: what entered the node stays outside as its parent. Raises TrialError."""
        if not self._pid:
            self._pid = until(f"the program of {self.log.name} runs", self._inner, 10, self.said)
        return self._pid

    @property
    def alive(self) -> bool:
        return self._outer.poll() is None

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def cpu_s(self) -> float:
        """Seconds of processor time so far, with those of children that have ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / _TICKS

    def resident_bytes(self) -> int:
        """Memory that it has in use; a BPF map's is the kernel's, and is not in it."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * _KB
        return 0

    def pause(self) -> None:
        """Hold it still, so that it takes nothing from who is measured."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it and what it started at once, and return when all have ended; what they wrote into the kernel stays.
        Nothing happens when it has ended. Raises TrialError.
        """
        started = descendants(self._outer.pid)
        with contextlib.suppress(ProcessLookupError):
            self._outer.kill()
        self._outer.wait()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A large transaction of kube-proxy's is not interrupted, and takes a core until it is done.
        gone = f"what was started with {self.log.name} has ended"
        until(gone, lambda: not any(map(runs, started)), _TRANSACTION_S)

    def calm(self, share: float = 0.05, within_s: float = 120) -> bool:
        """Wait until it takes less than this share of a core for two seconds; False when it does not within the time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            before, began = self.cpu_s(), time.monotonic()
            time.sleep(2)
            if self.cpu_s() - before < share * (time.monotonic() - began):
                return True
        return False

    def _inner(self) -> int | None:
        with contextlib.suppress(OSError):
            for child in children(self._outer.pid):
                if Path(f"/proc/{child}/comm").read_text().strip() != "setpriv":
                    return child
        return None


def children(pid: int) -> list[int]:
    """Whom a process has started, in any of its threads, that still runs."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # gone while we looked
            found += map(int, thread.read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """And whom they have."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended; one whose parent has not asked yet has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
