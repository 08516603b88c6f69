"""`check`: the findings of `checkup`, for people and for programs."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

from handover_agent.checkup import Finding, check
from handover_agent.settings import Settings
from handover_agent.showing.command import Command


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer of `check`."""

    findings: Sequence[Finding]
    notes: Sequence[str] = ()

    @property
    def well(self) -> bool:
        return all(finding.ok for finding in self.findings)

    def text(self) -> str:
        """A line for each thing that was looked at."""
        return "\n".join(f"{'ok ' if f.ok else 'BAD'}  {f.what}: {f.found}" for f in self.findings)

    def json(self) -> str:
        """The same, with the verdict on all of it."""
        items = [{"ok": f.ok, "what": f.what, "found": f.found} for f in self.findings]
        return json.dumps({"ok": self.well, "items": items, "notes": list(self.notes)}, indent=2)


def _show(_: argparse.Namespace, settings: Settings) -> Checked:
    return Checked(check(settings))


CHECK = Command(
    "check",
    "tell whether this node is as it should be; exit status 1 if not",
    "Looks at the rung, the agent, the datapath, kube-proxy's rules, the keeper, the snapshot and the health "
    "port, and says of each whether it is as it should be on this rung. What starts with BAD says what was "
    "found; the exit status is 1 then.",
    _show,
)
