"""How far the maps are: what the status, the metrics and the health port say of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from handover_agent.reconcile import SyncReport


@dataclass(frozen=True, slots=True)
class Sync:
    """As of the last write."""

    open: bool = False
    in_sync: bool = False
    frontends: int = 0
    backends: int = 0
    last_synced: datetime | None = None
    waiting_since: datetime | None = None
    syncs: int = 0
    problem: str = ""
    failed: int = 0  # frontends that are not as wanted
    full: Mapping[str, int] = field(default_factory=dict)
    """Maps without room, and how many frontends are not as wanted because of each."""

    def written(self, report: SyncReport, frontends: int, backends: int, now: datetime) -> Self:
        """After a write, with so many frontends and slots of backends in the maps."""
        problem = ""
        if report.failed:
            key, reason = next(iter(report.failed.items()))
            problem = f"{len(report.failed)} frontends could not be written, first {key}: {reason}"
        return replace(
            self,
            open=True,
            in_sync=report.in_sync,
            frontends=frontends,
            backends=backends,
            last_synced=now if report.in_sync else self.last_synced,
            waiting_since=None if report.in_sync else (self.waiting_since or now),
            syncs=self.syncs + 1,
            problem=problem,
            failed=len(report.failed),
            full=report.full,
        )

    def not_written(self, problem: str, now: datetime) -> Self:
        """After a write that came to nothing."""
        return replace(self, in_sync=False, waiting_since=self.waiting_since or now, problem=problem)

    def waiting(self, now: datetime) -> Self:
        """Something has changed, and is about to be written."""
        return self if self.waiting_since is not None else replace(self, waiting_since=now)

    def closed(self, problem: str) -> Self:
        """Nobody knows which maps are in use."""
        return replace(self, open=False, in_sync=False, problem=problem)
