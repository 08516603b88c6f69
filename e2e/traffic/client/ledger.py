"""What the client saw: every attempt ends in exactly one book, under the phase in which it began.

A loss is never thrown away by a change of phase: an attempt keeps the tally that it was entered in.
"""

import socket
import time
from collections import Counter, deque
from dataclasses import dataclass, field

# Octaves are cut in 16, so that a quantile is never more than 6 % off, whatever its size.
_CUTS = 16
_CUT_BITS = 4
SLOW_S, ANSWER_WITHIN_S = 1.0, 5.0
FIRST_PHASE = "start"


def bucket(microseconds: int) -> int:
    """The number of the bucket that a duration falls in; small durations have a bucket each."""
    if microseconds < _CUTS:
        return max(microseconds, 0)
    shift = microseconds.bit_length() - 1 - _CUT_BITS
    return (shift + 1) * _CUTS + ((microseconds >> shift) - _CUTS)


def bucket_top(number: int) -> int:
    """The longest duration in microseconds that falls in a bucket."""
    if number < _CUTS:
        return number
    shift, cut = divmod(number, _CUTS)
    shift -= 1
    return ((_CUTS + cut + 1) << shift) - 1


def with_port(detail: str, sock: socket.socket) -> str:
    """The detail of a failure with the socket's own port, by which it is found in a node's conntrack and recordings."""
    return f"{detail} from port {sock.getsockname()[1]}".lstrip()


@dataclass(slots=True)
class Tally:
    """The attempts of one stream in one phase. `asked` = answered + lost + what is still under way."""

    opened: int = 0  # connections established, or sockets taken into use
    asked: int = 0  # attempts: a request, or a connection that is to carry one
    answered: int = 0
    slow: int = 0  # answered, but after more than SLOW_S
    waited: int = 0  # failed while a target was known to be changing (see `targets`): not a loss
    lost: Counter[str] = field(default_factory=Counter)  # kind → number
    connect: Counter[int] = field(default_factory=Counter)  # bucket → number
    request: Counter[int] = field(default_factory=Counter)

    def connected(self, seconds: float) -> None:
        """A connection was established after so many seconds."""
        self.opened += 1
        self.connect[bucket(int(seconds * 1e6))] += 1

    def answer(self, seconds: float) -> None:
        """A right answer came after so many seconds."""
        self.answered += 1
        self.request[bucket(int(seconds * 1e6))] += 1
        if seconds > SLOW_S:
            self.slow += 1

    def as_json(self) -> dict[str, object]:
        return {
            "opened": self.opened,
            "asked": self.asked,
            "answered": self.answered,
            "slow": self.slow,
            "waited": self.waited,
            "lost": dict(self.lost),
            "connect": {str(k): v for k, v in self.connect.items()},
            "request": {str(k): v for k, v in self.request.items()},
        }


@dataclass(slots=True)
class Phase:
    """One stretch of time, from the command that began it to the one that ended it."""

    name: str
    began: float  # wall clock, seconds
    ended: float | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)

    def as_json(self, number: int) -> dict[str, object]:
        return {
            "number": number,
            "name": self.name,
            "began": self.began,
            "ended": self.ended,
            "streams": {name: tally.as_json() for name, tally in self.tallies.items()},
        }


class Ledger:
    """All phases so far, and the last failures in detail."""

    def __init__(self, phase: str = FIRST_PHASE) -> None:
        self.phases = [Phase(phase, time.time())]
        self.failures: deque[dict[str, object]] = deque(maxlen=200)
        self.lost = 0

    def enter(self, phase: str) -> None:
        """Begin a phase; a name may come again, and is then another stretch of the same name."""
        now = time.time()
        self.phases[-1].ended = now
        self.phases.append(Phase(phase, now))

    def tally(self, stream: str) -> Tally:
        """Where an attempt that begins now is entered."""
        return self.phases[-1].tallies.setdefault(stream, Tally())

    def loss(self, tally: Tally, stream: str, kind: str, target: str, detail: str = "") -> None:
        """An attempt failed, or a connection ended that should have gone on."""
        tally.lost[kind] += 1
        self.lost += 1
        self.failures.append(
            {"at": time.time(), "stream": stream, "kind": kind, "target": target, "detail": detail}
        )

    def as_json(self, first: int) -> list[dict[str, object]]:
        """The phases from a number on."""
        return [phase.as_json(number) for number, phase in enumerate(self.phases) if number >= first]
