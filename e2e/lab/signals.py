"""Ctrl-C and SIGTERM: the first one unwinds and cleans up, and nothing interrupts the cleaning."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from e2e.lab.errors import Terminated


def unwind_once() -> None:
    """From now on the first SIGINT or SIGTERM raises, and further ones are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _first)


def _first(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Ignore both for a while; programs that are started meanwhile inherit that, so Ctrl-C does not end
    them either.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
