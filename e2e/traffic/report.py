"""What all clients saw, as one: a pure merge of their reports, by phase.

Stretches of the same name are one phase here, in the order in which the names came first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from e2e.traffic.client.ledger import FIRST_PHASE, bucket_top


@dataclass(slots=True)
class Stream:
    """One kind of traffic in one phase, of one client or of several."""

    opened: int = 0
    asked: int = 0
    answered: int = 0
    slow: int = 0
    waited: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    connect: Counter[int] = field(default_factory=Counter)  # bucket → number
    request: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Stream":
        """A stream as a client reports it."""
        return cls(
            data["opened"],
            data["asked"],
            data["answered"],
            data["slow"],
            data["waited"],
            Counter(data["lost"]),
            Counter({int(number): count for number, count in data["connect"].items()}),
            Counter({int(number): count for number, count in data["request"].items()}),
        )

    def add(self, other: "Stream") -> None:
        """Take in what another one saw."""
        self.opened += other.opened
        self.asked += other.asked
        self.answered += other.answered
        self.slow += other.slow
        self.waited += other.waited
        self.lost += other.lost
        self.connect += other.connect
        self.request += other.request

    @property
    def losses(self) -> int:
        """Attempts that failed, of every kind."""
        return self.lost.total()

    @property
    def under_way(self) -> int:
        """Attempts that have not ended yet."""
        return self.asked - self.answered - self.waited - self.losses


@dataclass(slots=True)
class Phase:
    """A phase as all clients saw it."""

    name: str
    seconds: float = 0.0
    streams: dict[str, Stream] = field(default_factory=dict)

    @property
    def total(self) -> Stream:
        """All streams together."""
        total = Stream()
        for stream in self.streams.values():
            total.add(stream)
        return total

    def lost(self) -> dict[str, dict[str, int]]:
        """stream → kind → number, of those that lost anything."""
        return {name: dict(stream.lost) for name, stream in sorted(self.streams.items()) if stream.losses}


@dataclass(frozen=True, slots=True)
class Failure:
    """One loss in detail."""

    at: float  # wall clock, seconds
    client: str
    stream: str
    kind: str
    target: str
    detail: str = ""

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.at, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
        return f"{at} {self.client}: {self.stream} to {self.target}: {self.kind} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Client:
    """Where one client stands now."""

    name: str
    held: int
    held_wanted: int
    lost: int
    cpu_s: float
    targets: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was seen so far."""

    phases: tuple[Phase, ...]
    clients: tuple[Client, ...]
    failures: tuple[Failure, ...]  # the last ones, oldest first

    def phase(self, name: str) -> Phase:
        """A phase by name. Raises KeyError that says which there are."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise KeyError(f"no phase {name!r}; there are {', '.join(p.name for p in self.phases)}")

    @property
    def lost(self) -> int:
        """Losses of all phases but the start, when servers and clients come up in any order."""
        return sum(phase.total.losses for phase in self.phases if phase.name != FIRST_PHASE)


def quantile_us(histogram: Mapping[int, int], share: float) -> int | None:
    """The duration in microseconds that a share of all stayed within; None of nothing."""
    total = sum(histogram.values())
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= share * total:
            return bucket_top(number)
    return None


def merge(reports: Iterable[Mapping[str, Any]], gone: Iterable[tuple[str, Failure]] = ()) -> Report:
    """One report of all clients'; `gone`: in which phase which client was lost, which is a loss."""
    phases: dict[str, Phase] = {}
    clients: list[Client] = []
    failures: list[Failure] = []
    for data in reports:
        name = data["client"]
        clients.append(
            Client(
                name,
                data["held"],
                data["held_wanted"],
                data["lost"],
                data["cpu_s"],
                tuple(data["targets"]),
            )
        )
        failures += [Failure(client=name, **failure) for failure in data["failures"]]
        seconds: Counter[str] = Counter()
        for stretch in data["phases"]:
            merged = phases.setdefault(stretch["name"], Phase(stretch["name"]))
            seconds[merged.name] += (stretch["ended"] or data["at"]) - stretch["began"]
            merged.seconds = max(merged.seconds, seconds[merged.name])
            for stream, seen in stretch["streams"].items():
                merged.streams.setdefault(stream, Stream()).add(Stream.of(seen))
    for phase, failure in gone:
        lost = phases.setdefault(phase, Phase(phase)).streams.setdefault(failure.stream, Stream())
        lost.asked += 1
        lost.lost[failure.kind] += 1
        failures.append(failure)
    return Report(
        tuple(phases.values()), tuple(clients), tuple(sorted(failures, key=lambda failure: failure.at))
    )
