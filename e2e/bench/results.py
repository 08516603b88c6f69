"""What has been measured so far, on disk after every step: a run that was interrupted goes on where it was."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1

# The ways to a server. CONNTRACK is no proxy either, on a node whose kernel tracks connections because some rule asks
# for it: as almost every node does. PACKET is ours too, for a client that our socket path does not see.
NONE, CONNTRACK, IPTABLES, NFTABLES, OURS, PACKET = (
    "none",
    "conntrack",
    "iptables",
    "nftables",
    "ours",
    "packet",
)
UNPROXIED = (NONE, CONNTRACK)
KUBE_PROXIES = (IPTABLES, NFTABLES)


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of one way at one size, in every round; no values, and a note why, where it could not be measured."""

    measure: str
    services: int
    way: str
    values: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What the machine did during a step: the load at its end, and cores that were taken by others than the bench."""

    step: str
    services: int
    seconds: float
    load: float
    others: float


class ResultsError(Exception):
    """What is on disk cannot be gone on with: says why, and what to do."""


@dataclass(slots=True)
class Results:
    """The samples of one run. `about` says of which code, machine and options; a run is of one of them."""

    about: Mapping[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        """The numbers of Services at which something has been measured."""
        return sorted({sample.services for sample in self.samples})

    def done(self, step: str, services: int) -> bool:
        """Whether a step at a size has been finished."""
        return any(state.step == step and state.services == services for state in self.states)

    def add(self, samples: Iterable[Sample], state: State) -> None:
        """A step is finished; what was there of it before is replaced."""
        fresh = list(samples)
        keys = {(sample.measure, sample.services, sample.way) for sample in fresh}
        self.samples = [s for s in self.samples if (s.measure, s.services, s.way) not in keys] + fresh
        same = (state.step, state.services)
        self.states = [s for s in self.states if (s.step, s.services) != same] + [state]

    def find(self, measure: str, services: int, way: str) -> Sample | None:
        """A sample that has values."""
        for sample in self.samples:
            if (sample.measure, sample.services, sample.way) == (measure, services, way) and sample.values:
                return sample
        return None

    def notes(self, measure: str) -> list[str]:
        """Why a measure lacks something."""
        return [
            f"{s.way} at {s.services:,} Services: {s.note}"
            for s in self.samples
            if s.measure == measure and s.note
        ]

    def save(self, file: Path) -> None:
        """Write it all down, at once."""
        document = {
            "format": FORMAT,
            "about": self.about,
            "states": [asdict(state) for state in self.states],
            "samples": [asdict(sample) for sample in self.samples],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(document, indent=1) + "\n")
        fresh.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Results":
        """What was written down. Raises ResultsError, FileNotFoundError."""
        try:
            document = json.loads(file.read_text())
            if document["format"] != FORMAT:
                raise ResultsError(f"{file} has format {document['format']}, not {FORMAT}: use --fresh")
            samples = [Sample(**{**item, "values": tuple(item["values"])}) for item in document["samples"]]
            return cls(document["about"], samples, [State(**item) for item in document["states"]])
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{file} cannot be read ({error!r}): remove it, or use --fresh") from error

    @classmethod
    def resume(cls, file: Path, about: Mapping[str, Any], same: Collection[str]) -> "Results":
        """Go on with what is on disk, or begin. Raises ResultsError when that is about something else."""
        try:
            found = cls.load(file)
        except FileNotFoundError:
            return cls(about)
        differing = [name for name in same if found.about.get(name) != about.get(name)]
        if differing:
            said = "; ".join(f"{n}: {found.about.get(n)!r} then, {about.get(n)!r} now" for n in differing)
            raise ResultsError(f"{file} is of another run ({said}): use --fresh to measure anew")
        return found
