"""UDP through Services: request and reply from a source port that stays and from a new one each time, by
sockets that are connected and by sockets that are not.

The four differ in who has to remember something. A connected socket is translated once; an unconnected
one with every datagram, and its replies have to come from the address that it sent to, or the application
drops them.
"""

import errno
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .ledger import ANSWER_WITHIN_S, Ledger, Tally, with_port
from .loop import READ, Loop
from .targets import SERVED, Target, kind


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is asked and what counts as the answer; DNS and echo differ in nothing else."""

    name: str  # in the names of streams
    question: Callable[[int], bytes]  # serial number → datagram
    serial: Callable[[bytes], int | None]  # datagram → what it answers; None: unintelligible
    right: Callable[[int, bytes], str]  # serial number and datagram → what is wrong with it, or nothing


@dataclass(slots=True)
class _Pending:
    tally: Tally
    began: float
    strict: bool  # the target had met what is expected of it before


@dataclass(slots=True, eq=False)
class _Socket:
    target: Target
    sock: socket.socket
    connected: bool
    pending: dict[int, _Pending] = field(default_factory=dict)  # by serial number, oldest first


@dataclass(slots=True)
class Datagrams:
    """Asks targets in turn, from one socket that stays (`fixed`) or from a new one each time.

    A target whose answer is still to come is passed over: a server that a busy machine does not let run would drop
    what no longer fits into its socket, and that would look like a loss on the way.
    """

    loop: Loop
    ledger: Ledger
    exchange: Exchange
    targets: Callable[[], list[Target]]
    per_s: float  # in all
    connected: bool
    fixed: bool
    answer_within_s: float = ANSWER_WITHIN_S
    way: str = ""  # where targets are reached, as a part of the stream's name
    _sockets: dict[_Socket, None] = field(default_factory=dict)
    _kept: dict[int, _Socket] = field(default_factory=dict)  # by number of the target
    _serials: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _asking: set[str] = field(default_factory=set)  # targets
    _turn: int = 0

    def __post_init__(self) -> None:
        self.loop.every(1 / self.per_s, self._tick)

    def _stream(self, target: Target) -> str:
        how = f"{'fixed' if self.fixed else 'fresh'} {'connected' if self.connected else 'unconnected'}"
        return f"{self.exchange.name}{target.version} {how}{f' to {self.way}' if self.way else ''}"

    def _tick(self, now: float) -> None:
        self._expire(now)
        targets = self.targets()
        if not targets:
            return
        number = self._turn % len(targets)
        self._turn += 1
        target = targets[number]
        if str(target) in self._asking:
            return
        strict = target.met
        tally = self.ledger.tally(self._stream(target))
        tally.asked += 1
        try:
            place = self._socket(number, target, tally)
        except OSError as error:
            self._lose(tally, target, strict, f"connect-{kind(error.errno or 0)}")
            return
        serial = next(self._serials) & 0xFFFF
        place.pending[serial] = _Pending(tally, time.monotonic(), strict)
        self._asking.add(str(target))
        try:
            if self.connected:
                place.sock.send(self.exchange.question(serial))
            else:
                place.sock.sendto(self.exchange.question(serial), (target.address, target.port))
        except OSError as error:
            self._take(place, serial)
            self._lose(tally, target, strict, f"send-{kind(error.errno or 0)}")
            if not self.fixed:
                self._drop(place)

    def _socket(self, number: int, target: Target, tally: Tally) -> _Socket:
        """The socket to ask from; one that is kept is opened once."""
        if number in self._kept:
            return self._kept[number]
        sock = socket.socket(target.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if self.connected:
            try:
                sock.connect((target.address, target.port))
            except OSError:
                sock.close()
                raise
        tally.opened += 1
        place = _Socket(target, sock, self.connected)
        self.loop.watch(sock, READ, lambda events: self._event(place))
        self._sockets[place] = None
        if self.fixed:
            self._kept[number] = place
        return place

    def _event(self, place: _Socket) -> None:
        try:
            datagram, source = place.sock.recvfrom(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._refused(place, error)
            return
        serial = self.exchange.serial(datagram)
        pending = self._take(place, serial)
        if serial is None or pending is None:
            # Nobody waits for it: too late, and counted as lost when its time was over; or never asked.
            return
        if source[:2] != (place.target.address, place.target.port):
            self._fail(place, pending, "wrong-source", f"{source[0]}:{source[1]}")
        elif wrong := self.exchange.right(serial, datagram):
            self._fail(place, pending, "wrong-answer", wrong)
        else:
            place.target.met = True
            pending.tally.answer(time.monotonic() - pending.began)
        if not self.fixed:
            self._drop(place)

    def _take(self, place: _Socket, serial: int | None) -> _Pending | None:
        """What was asked with that number, if it was; its target may be asked again."""
        pending = place.pending.pop(serial, None) if serial is not None else None
        if pending is not None:
            self._asking.discard(str(place.target))
        return pending

    def _refused(self, place: _Socket, error: OSError) -> None:
        """An ICMP error came back: it belongs to whatever was asked last."""
        what = "refused" if error.errno == errno.ECONNREFUSED else kind(error.errno or 0)
        for serial in list(place.pending):
            if pending := self._take(place, serial):
                self._fail(place, pending, what)
        if not self.fixed:
            self._drop(place)

    def _expire(self, now: float) -> None:
        for place in list(self._sockets):
            while place.pending:
                serial, pending = next(iter(place.pending.items()))
                if now - pending.began <= self.answer_within_s:
                    break
                self._take(place, serial)
                self._fail(place, pending, "timeout")
            if not place.pending and not self.fixed:
                self._drop(place)

    def _fail(self, place: _Socket, pending: _Pending, what: str, detail: str = "") -> None:
        self._lose(pending.tally, place.target, pending.strict, what, with_port(detail, place.sock))

    def _lose(self, tally: Tally, target: Target, strict: bool, what: str, detail: str = "") -> None:
        if not strict or target.expect != SERVED:  # not served yet, or not asked for any more
            tally.waited += 1
            return
        self.ledger.loss(tally, self._stream(target), what, str(target), detail)

    def _drop(self, place: _Socket) -> None:
        self.loop.close(place.sock)
        self._sockets.pop(place, None)


def echo(client: str) -> Exchange:
    """agnhost's `echo`: the text comes back, in lower case."""
    prefix = client.replace("/", "-").lower().encode()

    def question(serial: int) -> bytes:
        return b"echo %b-%d" % (prefix, serial)

    def serial_of(datagram: bytes) -> int | None:
        text = datagram.rpartition(b"-")[2]
        return int(text) if text.isdigit() else None

    def right(serial: int, datagram: bytes) -> str:
        return "" if datagram == question(serial)[5:] else f"asked {serial}, got {datagram[:80]!r}"

    return Exchange("udp", question, serial_of, right)
