"""The answer of `trace`: the way in steps that a person reads, and the same as a document."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_INDENT = 14


class Outcome(StrEnum):
    """What becomes of a new connection."""

    SERVED = "served"
    """It goes to one of the backends."""
    DIRECT = "direct"
    """It goes where it is addressed: that is no Service's address."""
    REFUSED = "refused"
    DROPPED = "dropped"
    UNSERVED = "unserved"
    """It is a Service's address, and nobody translates it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on the way: what it is called, and a line for each thing to say."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """See `command.Answer`."""

    title: str
    steps: Sequence[Step]
    outcome: Outcome
    verdict: str
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def well(self) -> bool:
        return self.outcome in (Outcome.SERVED, Outcome.DIRECT)

    def text(self) -> str:
        """The title, the steps with their names on the left, and the verdict."""
        lines = [self.title, ""]
        for step in (*self.steps, Step("verdict", (f"{self.outcome.upper()}: {self.verdict}",))):
            for index, line in enumerate(step.lines):
                lines.append(f"{step.name if not index else '':<{_INDENT}}{line}".rstrip())
        return "\n".join(lines)

    def json(self) -> str:
        """The facts, and each step's lines as the text has them."""
        document = {
            **self.facts,
            "outcome": self.outcome,
            "verdict": self.verdict,
            "steps": [{"step": step.name, "lines": list(step.lines)} for step in self.steps],
            "notes": list(self.notes),
        }
        return json.dumps(document, indent=2)
