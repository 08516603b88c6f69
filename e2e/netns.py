"""Threads that live in another network namespace, because the root namespace has no way to a lab.

Entering a namespace changes one thread, not the process; a socket belongs to the namespace that its
thread was in when it was made. So whatever talks to a lab is called through an `Inside`.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def enter(netns: str) -> None:
    """Move the calling thread, for good, into a namespace of `ip netns`. Raises OSError that names it."""
    descriptor = os.open(Path("/run/netns") / netns, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}", netns)
    finally:
        os.close(descriptor)


class Inside:
    """Calls functions in threads of a network namespace."""

    def __init__(self, netns: str, threads: int = 8) -> None:
        self.netns = netns
        self._pool = ThreadPoolExecutor(threads, f"in {netns}", initializer=enter, initargs=(netns,))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call in the namespace, and return what it returns or raise what it raises."""
        return self._pool.submit(function, *args, **kwargs).result()

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin to call in the namespace."""
        return self._pool.submit(function, *args, **kwargs)

    def close(self) -> None:
        """Begin nothing more; wait for what was begun."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Inside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
