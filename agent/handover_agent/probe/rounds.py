"""Rounds of probes: a baseline through kube-proxy before anything is attached, and many afterwards.

The baseline is kept on disk: after a restart of the agent there is no kube-proxy to take it from any more.
A Service that is broken by itself fails in both, so that comparing the two is what a gate does.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from handover_api.base import ProbeSettings
from handover_api.duration import seconds
from handover_api.nodemigration import ProbeFailure, ProbeResult, Probes
from pydantic import ValidationError

from handover_agent.durable import write_durably
from handover_agent.probe.attempt import Outcome, attempt
from handover_agent.probe.targets import Target

log = logging.getLogger(__name__)

_PARALLEL = 32
_MOST_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How a round is made."""

    count: int
    interval_s: float
    timeout_s: float

    @classmethod
    def of(cls, settings: ProbeSettings) -> "Plan":
        return cls(settings.count, seconds(settings.interval), seconds(settings.timeout))


class Rounds:
    """Probes one round at a time, and remembers the baseline and the latest result."""

    def __init__(
        self,
        targets: Callable[[int], Collection[Target]],
        memory: Path,
        told: Callable[[Probes], None],
        plan: Plan | None = None,
    ) -> None:
        """`targets`: so many that are to be probed next."""
        self._targets, self._memory, self._told = targets, memory, told
        self.plan = plan or Plan.of(ProbeSettings())
        self._lock = asyncio.Lock()
        self._probes = Probes(baseline=self._recall())

    @property
    def probes(self) -> Probes:
        """The baseline and the latest round."""
        return self._probes

    async def baseline(self) -> None:
        """Take the baseline, through kube-proxy."""
        result = await self._round("kube-proxy")
        await asyncio.to_thread(write_durably, self._memory, result.model_dump_json(by_alias=True))
        self._set(Probes(baseline=result, latest=self._probes.latest))

    async def latest(self, path: str) -> None:
        """Take a round through what serves now."""
        result = await self._round(path)
        self._set(Probes(baseline=self._probes.baseline, latest=result))

    async def forget(self) -> None:
        """The way down is finished: the next way up takes a baseline of its own."""
        await asyncio.to_thread(self._memory.unlink, missing_ok=True)
        self._set(Probes())

    def _set(self, probes: Probes) -> None:
        self._probes = probes
        self._told(probes)

    async def _round(self, path: str) -> ProbeResult:
        async with self._lock:
            plan = self.plan
            outcomes = await _probe_all(self._targets(plan.count), plan)
        result = summary(outcomes, path, datetime.now(UTC))
        if result.failures:
            log.warning(
                "probes failed",
                extra={
                    "path": path,
                    "failures": result.failures,
                    "attempts": result.attempts,
                    "service": result.failed[0].service,
                    "address": result.failed[0].address,
                    "error": result.failed[0].error,
                },
            )
        return result

    def _recall(self) -> ProbeResult | None:
        try:
            return ProbeResult.model_validate_json(self._memory.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            log.warning(
                "the remembered baseline is unreadable, gates go without it",
                extra={"file": str(self._memory), "error": str(error)},
            )
            return None


async def _probe_all(chosen: Collection[Target], plan: Plan) -> list[Outcome]:
    """Begin one every interval, with a bound on how many are under way."""
    free = asyncio.Semaphore(_PARALLEL)

    async def one(target: Target) -> Outcome:
        try:
            return await attempt(target, plan.timeout_s)
        finally:
            free.release()

    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Outcome]] = []
        for index, target in enumerate(chosen):
            if index:
                await asyncio.sleep(plan.interval_s)
            await free.acquire()
            tasks.append(group.create_task(one(target), name=f"probe {target}"))
    return [task.result() for task in tasks]


def summary(outcomes: Collection[Outcome], path: str, at: datetime) -> ProbeResult:
    """The result of a round; each failing address is named once."""
    failed = [outcome for outcome in outcomes if outcome.error]
    times = sorted(outcome.microseconds for outcome in outcomes if not outcome.error)
    named = {(outcome.target, outcome.error): outcome for outcome in failed}
    return ProbeResult(
        at=at,
        path=path,
        attempts=len(outcomes),
        failures=len(failed),
        p50_microseconds=quantile(times, 0.5),
        p99_microseconds=quantile(times, 0.99),
        failed=[
            ProbeFailure(service=o.target.service[:512], address=str(o.target)[:128], error=o.error[:512])
            for o in list(named.values())[:_MOST_FAILURES]
        ],
    )


def quantile(ordered: list[int], share: float) -> int:
    """The value below which this share of sorted values lies; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0
