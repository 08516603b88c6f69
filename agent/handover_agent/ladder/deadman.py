"""When may a node put kube-proxy's rules back all by itself? A pure decision, and a conservative one.

Somebody has to decide when nobody can be asked: the datapath is this node's only proxy, it does not work, and
the API server, through which the operator would take the node back, is out of reach (maybe because of the
very same fault). Restoring the snapshot is then the best guess. It is not made lightly: a snapshot is as old
as the flush, and probes also fail when the network does.
"""

from dataclasses import dataclass

from handover_api.base import Rung
from handover_api.nodemigration import ProbeResult


@dataclass(frozen=True, slots=True)
class Limits:
    """What must come together."""

    unreachable_s: float = 120.0
    rounds: int = 5
    """So many rounds of probes in a row must have failed, all of them while the API server was out of reach.
    """
    failed_ratio: float = 0.5
    """The share of failed probes, above the baseline's, that makes a round a failed one."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the decision is made from."""

    rung: Rung
    unreachable_s: float
    """How long no API server has answered; 0 while one does."""
    baseline: ProbeResult | None
    rounds: tuple[ProbeResult, ...]
    """The latest rounds, oldest first, all taken while the API server was out of reach."""
    snapshot: bool
    """Whether there are rules to put back."""


def failed_round(result: ProbeResult, baseline: ProbeResult | None, ratio: float) -> bool:
    """Whether so many more probes failed than before the datapath served."""
    if not result.attempts:
        return False
    before = baseline.failures / baseline.attempts if baseline and baseline.attempts else 0.0
    return result.failures / result.attempts - before > ratio


def must_restore(vitals: Vitals, limits: Limits) -> bool:
    """Whether to put the snapshot back now and leave new connections to it."""
    if vitals.rung.height < Rung.SERVING.height or not vitals.snapshot:
        return False
    if vitals.unreachable_s < limits.unreachable_s or len(vitals.rounds) < limits.rounds:
        return False
    latest = vitals.rounds[-limits.rounds :]
    return all(failed_round(result, vitals.baseline, limits.failed_ratio) for result in latest)
