"""The one loop: observe → plan → act → summarize, woken by any change, at most once a second.

Level-triggered and without a memory: a pass needs nothing of the pass before it, so that a killed operator's
successor goes on where it stopped. A pass that fails is logged, counted and made again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from handover_api.base import Rung

from handover_operator.act import ActionFailedError, Actor, node_of
from handover_operator.actions import Event, RemoveFinalizer
from handover_operator.api import ApiError, ForbiddenError
from handover_operator.cluster import Cluster
from handover_operator.events import Reporter
from handover_operator.facts import DaemonSetFacts, MigrationFacts
from handover_operator.metrics import Metrics
from handover_operator.observe import UnreadableError
from handover_operator.plan import Plan, plan
from handover_operator.status import StatusWriter, blind, refused
from handover_operator.summarize import summarize

log = logging.getLogger(__name__)

_LEAST_S = 1.0
_RESYNC_S = 30.0
_LASTING_S = 10.0
_STUCK_S = 150.0  # longer than a pass of timeouts takes; then the process is better started anew


def now_utc() -> datetime:
    """The time, which nothing but the loop asks for."""
    return datetime.now(UTC)


class Trouble:
    """Tells trouble that stays from trouble that passes: an API server that starts refuses a lot at first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._text = ""
        self._since = clock()

    def lasts(self, text: str) -> bool:
        """Whether this trouble (none: the empty text) has been the same long enough to tell a person."""
        if text != self._text:
            self._text, self._since = text, self._clock()
        return bool(text) and self._clock() - self._since >= _LASTING_S


class Loop:
    """Passes over the cluster until it is cancelled."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        actor: Actor,
        status: StatusWriter,
        reporter: Reporter,
        metrics: Metrics,
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self._cluster = cluster
        self._actor = actor
        self._status = status
        self._reporter = reporter
        self._metrics = metrics
        self._clock = clock
        self._dirty = asyncio.Event()
        self._said = ""
        self._refusal = Trouble()
        self._blindness = Trouble()
        self._requeue_at: datetime | None = None
        self._last_pass = time.monotonic()
        self.passes = 0

    def wake(self) -> None:
        """Something has changed: pass again soon."""
        self._dirty.set()

    @property
    def stuck(self) -> bool:
        """No pass has ended for so long that something must be wrong with this process."""
        return time.monotonic() - self._last_pass > _STUCK_S

    async def run(self) -> None:
        """Pass for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s()):
                    await self._dirty.wait()
            self._dirty.clear()
            with self._metrics.passes.time():
                await self._guarded()
            self._last_pass = time.monotonic()
            self.passes += 1
            await asyncio.sleep(_LEAST_S)

    async def _guarded(self) -> None:
        """A pass whose errors are told: once while they stay the same, and the loop goes on."""
        try:
            trouble = await self.once()
        except (ApiError, UnreadableError) as error:
            trouble = str(error)
            self._metrics.failed_passes.inc()
            self._requeue_at = self._clock()
        except Exception:
            # A mistake of ours in one pass must not end the passes: the next facts may be other ones.
            log.exception("a pass failed")
            self._metrics.failed_passes.inc()
            return
        if trouble and trouble != self._said:
            log.warning("%s", trouble)
        self._said = trouble

    def _patience_s(self) -> float:
        if self._requeue_at is None:
            return _RESYNC_S
        return min(max((self._requeue_at - self._clock()).total_seconds(), 0.0), _RESYNC_S)

    async def once(self) -> str:
        """One pass. Returns what stands in the way of one, in words; empty when it was complete."""
        self._requeue_at = None
        cluster = self._cluster
        if cluster.migrations.live and (acting := cluster.acting()):
            await cluster.follow(acting[0].spec.kube_proxy)
        else:
            acting = []
        troubles = cluster.troubles()
        self._metrics.in_sight.set(not troubles)
        if troubles:
            await self._say_forbidden(acting)
            if not cluster.errors():
                return ""  # a list is being answered; its answer wakes us
            return "not everything is in sight, nothing is planned: " + "; ".join(troubles)
        self._blindness.lasts("")
        if not acting:
            self._metrics.show(None)
            return ""
        trouble = await self._serve(acting[0])
        for waiting in acting[1:]:
            await self._turn_away(waiting)
        return trouble

    async def _serve(self, migration: MigrationFacts) -> str:
        now = self._clock()
        made = plan(migration, self._cluster.nodes(), self._cluster.daemon_set_facts(), now)
        self._requeue_at = made.requeue_at
        done, failure = await self._act(made, migration)
        for event in made.events:
            if done == len(made.actions) or _unaffected(event, made, done):
                uid = self._cluster.node_uid(event.node) if event.node else None
                await self._reporter.tell(event, migration, uid, now)
        if self._refusal.lasts(str(failure) if failure is not None and failure.refused else ""):
            made = refused(made, str(failure))
        for failed in made.failures:
            if failed.node not in migration.status.failed_nodes:
                self._metrics.gate_failures.labels(failed.reason).inc()
        self._metrics.show(made)
        if not any(isinstance(action, RemoveFinalizer) for action in made.actions[:done]):
            await self._status.write(migration, summarize(made, migration, now))
        if failure is None:
            return ""
        self._requeue_at = now
        return "" if failure.outdated else str(failure)

    async def _act(self, made: Plan, migration: MigrationFacts) -> tuple[int, ActionFailedError | None]:
        """Carry out actions up to the first that fails; how many were done."""
        for done, action in enumerate(made.actions):
            name = type(action).__name__
            try:
                await self._actor.carry_out(action, migration)
            except ActionFailedError as error:
                self._metrics.actions.labels(name, "outdated" if error.outdated else "failed").inc()
                log.info("not done: %s", error, extra={"node": node_of(action)})
                return done, error
            self._metrics.actions.labels(name, "done").inc()
            log.info("%s", _told(action), extra={"node": node_of(action)})
        return len(made.actions), None

    async def _turn_away(self, migration: MigrationFacts) -> None:
        """Another one acts: say so, and let go of it when it is being deleted."""
        now = self._clock()
        made = plan(migration, (), DaemonSetFacts(), now)
        done, failure = await self._act(made, migration)
        if failure is None and done == 0:
            await self._status.write(migration, summarize(made, migration, now))

    async def _say_forbidden(self, acting: list[MigrationFacts]) -> None:
        """A missing right is for a person to grant, so it stands where people look."""
        missing = next((e for e in self._cluster.errors() if isinstance(e, ForbiddenError)), None)
        if not self._blindness.lasts(str(missing or "")) or missing is None or not acting:
            return
        migration = acting[0]
        message = (
            f"The operator may not {missing.tried}: {missing.message}. Grant it with a Role and its binding"
        )
        status = summarize(blind(migration, message), migration, self._clock())
        # What was not planned on is not observed: a new generation's failures are not the old one's.
        seen = migration.status.observed_generation
        await self._status.write(migration, status.model_copy(update={"observed_generation": seen}))


def _unaffected(event: Event, made: Plan, done: int) -> bool:
    """Whether everything that an event tells of has been done, although the plan was not done to its end."""
    return event.node is not None and event.node not in {node_of(action) for action in made.actions[done:]}


def _told(action: object) -> str:
    """An action in a log line: what it is, and to which rung."""
    rung: Rung | None = getattr(action, "rung", None)
    return f"{type(action).__name__}{f' {rung}' if rung else ''}"
