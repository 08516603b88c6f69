"""Lines with the time since the start, so that somebody who waits sees what for."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TextIO


@dataclass(slots=True)
class Progress:
    """Writes `[  12.3s] message` lines to stderr; stdout stays free for output that is read by programs."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    started: float = field(default_factory=time.monotonic)
    _lock: Lock = field(default_factory=Lock)

    def say(self, message: str) -> None:
        """Print one line."""
        if self.quiet:
            return
        with self._lock:
            print(f"[{time.monotonic() - self.started:6.1f}s] {message}", file=self.stream, flush=True)

    @contextmanager
    def step(self, message: str) -> Iterator[None]:
        """Say what starts and, when it took a while, how long it took."""
        self.say(message)
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        if took > 5:
            self.say(f"{message}: done in {took:.0f} s")
