"""One epoll loop with periodic calls; answers that have arrived are always read before anything is called
late.

That order matters for what the client claims: when the machine does not let it run for a while, an answer
that lies in the socket's buffer must not be counted as lost.
"""

import heapq
import select
import socket
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_FALLEN_BEHIND_S = 1.0


class Loop:
    """Calls handlers when their socket is ready, and periodic calls when they are due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._calls: list[tuple[float, int, float, Callable[[float], None]]] = []
        self._serial = 0
        self._stopped = False

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Call the handler with epoll's event bits whenever the socket is ready."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), events)

    def change(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def close(self, sock: socket.socket) -> None:
        """Stop watching a socket and close it; harmless when it is closed already."""
        if sock.fileno() < 0:
            return
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
        sock.close()

    def every(self, period_s: float, call: Callable[[float], None], after_s: float = 0.0) -> None:
        """Call again and again with the monotonic time; what was missed by little is made up for."""
        self._serial += 1
        heapq.heappush(self._calls, (time.monotonic() + after_s, self._serial, period_s, call))

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Run until stopped."""
        while not self._stopped:
            self.step(1.0)

    def step(self, longest_s: float) -> None:
        """Wait for something to happen, at most so long, and handle all that has."""
        now = time.monotonic()
        if self._calls:
            longest_s = min(longest_s, max(0.0, self._calls[0][0] - now))
        for fd, events in self._epoll.poll(longest_s, max(len(self._handlers), 1)):
            handler = self._handlers.get(fd)
            if handler is not None:  # closed by a handler that ran before it in this round
                handler(events)
        now = time.monotonic()
        while self._calls and self._calls[0][0] <= now:
            due, serial, period_s, call = heapq.heappop(self._calls)
            call(now)
            following = due + period_s if now - due < _FALLEN_BEHIND_S else now + period_s
            heapq.heappush(self._calls, (following, serial, period_s, call))
