"""TCP through Services: connections that are held and asked again and again, and new ones for each
request.

Requests are HTTP/1.1 with a number that is used once, and the answer has to bring it back: an answer
meant for somebody else, or from somebody else, is a wrong answer.
"""

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .ledger import ANSWER_WITHIN_S, Ledger, Tally, with_port
from .loop import READ, WRITE, Loop
from .targets import GONE, REFUSED, SERVED, Target, kind

REOPEN_AFTER_S = 0.5


class WrongAnswerError(Exception):
    """The bytes that came are no answer to what was asked."""


def request(host: bytes, nonce: bytes) -> bytes:
    """A request that asks for the nonce back."""
    return b"GET /echo?msg=%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (nonce, host)


def check_answer(received: bytes, nonce: bytes) -> bool:
    """Whether the answer is complete. Raises WrongAnswerError when it is not the one to this nonce."""
    if not received.startswith(b"HTTP/1.1 200 OK\r\n"[: len(received)]):
        raise WrongAnswerError(repr(received[:80]))
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator or len(body) < len(nonce):
        return False
    if body != nonce or b"\r\nContent-Length: %d\r\n" % len(nonce) not in head + b"\r\n":
        raise WrongAnswerError(f"asked for {nonce!r}, got {body[:80]!r}")
    return True


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection: first connecting, then at rest or with one request under way."""

    target: Target
    sock: socket.socket
    tally: Tally  # where the attempt under way is entered
    since: float  # when the step under way (to connect, to ask) began
    began: float  # when it was opened
    established: bool = False
    asking: bool = False
    nonce: bytes = b""
    received: bytes = b""
    expected: str = SERVED
    strict: bool = True  # somebody had met the expectation before this one began


class Streams:
    """What held and new connections have in common: opening, asking, reading, and naming what went wrong."""

    def __init__(
        self, loop: Loop, ledger: Ledger, client: str, answer_within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self.loop, self.ledger, self.answer_within_s = loop, ledger, answer_within_s
        self._prefix = client.replace("/", "-").encode()
        self._serial = 0

    def open(
        self, target: Target, stream: str, on_event: Callable[[_Connection, int], None]
    ) -> _Connection | None:
        """Begin to connect. None when that failed at once, which has then been entered."""
        tally = self.ledger.tally(stream)
        tally.asked += 1
        sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        now = time.monotonic()
        connection = _Connection(target, sock, tally, now, now, expected=target.expect, strict=target.met)
        code = sock.connect_ex((target.address, target.port))
        if code not in (0, errno.EINPROGRESS):
            self.fail(connection, stream, f"connect-{kind(code)}")
            return None
        self.loop.watch(sock, WRITE, lambda events: on_event(connection, events))
        return connection

    def connected(self, connection: _Connection, stream: str) -> bool:
        """Finish to connect; False when it failed, which has then been entered."""
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(connection, stream, f"connect-{kind(code)}")
            return False
        now = time.monotonic()
        connection.tally.connected(now - connection.since)
        connection.established, connection.since = True, now
        self.loop.change(connection.sock, READ)
        return True

    def ask(self, connection: _Connection, stream: str, now: float) -> bool:
        """Send a request; False when that failed, which has then been entered."""
        self._serial += 1
        connection.nonce = b"%b-%d" % (self._prefix, self._serial)
        connection.received, connection.since, connection.asking = b"", now, True
        try:
            connection.sock.send(request(b"web", connection.nonce))
        except OSError as error:
            self.fail(connection, stream, f"send-{kind(error.errno or 0)}")
            return False
        return True

    def read(self, connection: _Connection, stream: str) -> bool | None:
        """True for a complete right answer, False for not yet, None for a failure (entered)."""
        try:
            data = connection.sock.recv(4096)
            if not data:
                self.fail(connection, stream, "closed")
                return None
            connection.received += data
            if not connection.asking or not check_answer(connection.received, connection.nonce):
                return False
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail(connection, stream, kind(error.errno or 0))
            return None
        except WrongAnswerError as error:
            self.fail(connection, stream, "wrong-answer", str(error))
            return None
        connection.asking = False
        return True

    def fail(self, connection: _Connection, stream: str, what: str, detail: str = "") -> None:
        """Enter a failed attempt, as a loss or as what was expected, and close the connection."""
        detail = with_port(detail, connection.sock)
        self.loop.close(connection.sock)
        target, tally = connection.target, connection.tally
        if connection.established and not connection.asking:  # at rest: nothing was under way
            tally = self.ledger.tally(stream)
            tally.asked += 1
        current = connection.expected == target.expect
        meets = {SERVED: False, REFUSED: what == "connect-refused", GONE: what.startswith("connect-")}
        if current and meets[target.expect]:
            target.met = True
            tally.answer(time.monotonic() - connection.since)
        elif not current or not connection.strict:
            tally.waited += 1
        else:
            self.ledger.loss(tally, stream, what, str(target), detail)

    def succeed(self, connection: _Connection, stream: str) -> None:
        """Enter a right answer, which is a failure where a refusal was expected."""
        target, tally = connection.target, connection.tally
        current = connection.expected == target.expect
        if current and target.expect == SERVED:
            target.met = True
            tally.answer(time.monotonic() - connection.since)
        elif not current or not connection.strict:
            tally.waited += 1
        else:
            self.ledger.loss(tally, stream, f"served-but-should-be-{target.expect}", str(target))


@dataclass(slots=True)
class HeldConnections:
    """Long-lived connections, each asked every so often; a broken one is entered and opened anew."""

    streams: Streams
    targets: list[Target]  # the connection with number i goes to target i modulo their number
    count: int
    period_s: float = 0.1
    slices: int = 10
    label: str = "held"
    _held: list[_Connection | None] = field(init=False)
    _reopen_at: list[float] = field(init=False)
    _turn: int = 0

    def __post_init__(self) -> None:
        self._held = [None] * self.count
        self._reopen_at = [0.0] * self.count
        self.streams.loop.every(self.period_s / self.slices, self._tick)

    @property
    def established(self) -> int:
        """How many are open now."""
        return sum(1 for c in self._held if c is not None and c.established)

    def _tick(self, now: float) -> None:
        """Give the next slice of the connections their turn, so that requests are spread over the period."""
        for number in range(self._turn, self.count, self.slices):
            self._turn_of(number, now)
        self._turn = (self._turn + 1) % self.slices

    def _turn_of(self, number: int, now: float) -> None:
        connection = self._held[number]
        target = self.targets[number % len(self.targets)]
        stream = f"tcp{target.version} {self.label}"
        if connection is None:
            if now >= self._reopen_at[number]:
                self._reopen_at[number] = now + REOPEN_AFTER_S
                self._held[number] = self.streams.open(target, stream, lambda c, e: self._event(number, c, e))
        elif not connection.established or connection.asking:
            if now - connection.since > self.streams.answer_within_s:
                what = "request-timeout" if connection.established else "connect-timeout"
                self.streams.fail(connection, stream, what)
                self._held[number] = None
        else:
            connection.tally = self.streams.ledger.tally(stream)
            connection.tally.asked += 1
            if not self.streams.ask(connection, stream, now):
                self._held[number] = None

    def _event(self, number: int, connection: _Connection, events: int) -> None:
        stream = f"tcp{connection.target.version} {self.label}"
        if not connection.established:
            if self.streams.connected(connection, stream):
                connection.tally.answered += 1  # the attempt was to connect
            else:
                self._held[number] = None
            return
        answered = self.streams.read(connection, stream)
        if answered is None:
            self._held[number] = None
        elif answered:
            self.streams.succeed(connection, stream)


@dataclass(slots=True)
class NewConnections:
    """A new connection for every request, so many a second in all, to the targets in turn."""

    streams: Streams
    targets: Callable[[], list[Target]]
    per_s: float
    label: str = "new"
    _open: dict[_Connection, None] = field(default_factory=dict)  # oldest first
    _turn: int = 0

    def __post_init__(self) -> None:
        self.streams.loop.every(1 / self.per_s, self._tick)

    def _tick(self, now: float) -> None:
        self._expire(now)
        targets = self.targets()
        if not targets:
            return
        target = targets[self._turn % len(targets)]
        self._turn += 1
        connection = self.streams.open(target, self._stream(target), self._event)
        if connection is not None:
            self._open[connection] = None

    def _stream(self, target: Target) -> str:
        return f"tcp{target.version} {self.label}"

    def _expire(self, now: float) -> None:
        while self._open:
            connection = next(iter(self._open))
            if now - connection.began <= self.streams.answer_within_s:
                return
            what = "request-timeout" if connection.established else "connect-timeout"
            self.streams.fail(connection, self._stream(connection.target), what)
            del self._open[connection]

    def _event(self, connection: _Connection, events: int) -> None:
        stream = self._stream(connection.target)
        if not connection.established:
            if not self.streams.connected(connection, stream) or not self.streams.ask(
                connection, stream, time.monotonic()
            ):
                del self._open[connection]
            return
        answered = self.streams.read(connection, stream)
        if answered:
            self.streams.succeed(connection, stream)
            self.streams.loop.close(connection.sock)
        if answered is not False:
            self._open.pop(connection, None)
