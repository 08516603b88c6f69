"""Ctrl-C and SIGTERM: the first one unwinds and cleans up, and nothing interrupts the cleaning."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from e2e.lab.errors import Terminated

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM raises, and further ones are ignored while that unwinds."""
    with _handled_by(_first):
        yield


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Ignore both for a while; programs that are started meanwhile inherit that: Ctrl-C spares them too."""
    with _handled_by(signal.SIG_IGN):
        yield


def _first(number: int, frame: FrameType | None) -> None:
    for ignore in NUMBERS:
        signal.signal(ignore, signal.SIG_IGN)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others can neither set nor get signals
        yield
        return
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
