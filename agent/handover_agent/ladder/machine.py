"""The ladder: from the rung that was reached to the one that is wanted, one at a time, until cancelled.

It decides nothing but the order. What cannot go on is tried again with growing pauses and reported with a
reason; what has been reached is looked at again and again, because others have hands on this node too.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from handover_api.base import Rung
from handover_api.nodemigration import Fault

from handover_agent.ladder.climb import CLIMB
from handover_agent.ladder.descend import DESCEND, restore
from handover_agent.ladder.journal import Journal, JournalUnreadable, Record
from handover_agent.ladder.ports import Blocked, Ground, Waiting
from handover_agent.ladder.reached import Seen, derive, next_step
from handover_agent.ladder.step import Act, Ascent
from handover_agent.ladder.upkeep import upkeep

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What the operator wants of this node; `rung` None while nobody wants anything."""

    rung: Rung | None = None
    deadline: datetime | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses, in seconds."""

    upkeep_s: float = 10.0
    patience_s: float = 3.0
    """A reason has to stand this long before it is a fault: a list that is one second late is none."""
    grace_s: float = 30.0
    """How long translated sockets get before the programs go."""
    deadline_margin_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the ladder is, for the status."""

    record: Record
    generation: int
    """Of the goal that the record answers to."""
    step: str
    fault: Fault | None


def now_utc() -> datetime:
    """The time, to the microsecond, in UTC."""
    return datetime.now(UTC)


class Ladder:
    """Walks. `run` until cancelled; `want` from the same event loop."""

    def __init__(
        self,
        ground: Ground,
        journal: Journal,
        report: Callable[[Standing], None],
        pace: Pace | None = None,
        now: Callable[[], datetime] = now_utc,
    ) -> None:
        self._ground, self._journal, self._report, self._now = ground, journal, report, now
        self._pace = pace or Pace()
        self._goal = Goal()
        self._changed = asyncio.Event()
        self._generation = 0
        self._doing = ""
        self._trouble: Fault | None = None
        self._keep_again = 0.0
        self.started = asyncio.Event()
        self.arrived = asyncio.Event()
        """Set whenever a rung has been reached; whoever waits for it clears it."""
        self.lock = asyncio.Lock()
        """Held while a step or the upkeep acts; others who touch rules or programs take it too."""

    @property
    def record(self) -> Record:
        return self._journal.record

    def want(self, goal: Goal) -> None:
        """Set out for this rung."""
        if goal != self._goal:
            self._goal = goal
            self._changed.set()

    def remember(self, record: Record) -> None:
        """Note something beside the rung; hold the lock."""
        self._journal.write(record)

    def nudge(self) -> None:
        """Something that a step waits for may have happened."""
        self._changed.set()

    async def start(self) -> None:
        """Find out where this node stands. Raises what the ports raise."""
        try:
            record = self._journal.read()
        except JournalUnreadable as error:
            log.error(
                "the journal is unreadable, the rung is derived from the kernel alone",
                extra={"error": str(error)},
            )
            record = None
        programs = await self._ground.datapath.programs()
        seen = await self._ground.rules.inspect()
        ours = bool(await self._ground.rules.snapshot())
        derived = derive(record, Seen(programs, seen.in_force, ours), self._now())
        self._journal.adopt(derived)
        log.info(
            "starting",
            extra={"rung": derived.rung, "towards": derived.towards, "journal": record is not None},
        )
        self.started.set()
        self._tell("")

    async def run(self) -> None:
        """Go to whatever is wanted, and keep what has been reached."""
        pause = RETRY_FIRST_S
        while True:
            self._changed.clear()
            try:
                async with self.lock:
                    try:
                        moved = await self.advance()
                    except Exception:
                        await self._keep_meanwhile()
                        raise
                    if not moved:
                        await self.keep()
                pause = RETRY_FIRST_S
                if not moved:
                    await self._sleep(self._pace.upkeep_s)
            except Waiting as waiting:
                self._tell(str(waiting))
                await self._sleep(waiting.retry_s)
            except Blocked as blocked:
                self._block(blocked.reason, str(blocked))
                await self._sleep(pause)
                pause = min(pause * 2, RETRY_MOST_S)
            except (
                Exception
            ) as error:  # whatever a tool or the kernel says, the way on is to try again and to report it
                log.exception("a step failed", extra={"doing": self._doing, "rung": self.record.rung})
                self._block("StepFailed", f"{self._doing or 'upkeep'}: {type(error).__name__}: {error}")
                await self._sleep(pause)
                pause = min(pause * 2, RETRY_MOST_S)

    async def advance(self) -> bool:
        """Do one step towards the goal; False when there is none to do. Raises Blocked, Waiting, or what
        ports raise.
        """
        goal, record = self._goal, self.record
        wanted = goal.rung
        if wanted is None:
            return False
        if record.tripped and wanted.height <= Rung.SHADOW.height:
            record = replace(record, tripped=False)
            self._journal.write(record)
        towards = None if record.tripped else next_step(record, wanted)
        if towards is None:
            self._generation = goal.generation
            return False
        up = towards.height > record.lowest.height
        step = (CLIMB if up else DESCEND)[towards]
        if record.towards is not None:
            # Something between two rungs was begun before: whichever rung is reported from now
            # on, it is not the wanted
            # one yet. Said before the goal counts as observed, so that nobody takes an
            # unfinished step for a rung.
            record = record.beginning(towards, self._now())
            self._journal.write(record)
        self._generation = goal.generation
        ascent = self._ascent()
        await self._ground.datapath.settle()
        await self._do(step.checks, ascent)
        self._journal.write(record.beginning(towards, self._now()))
        await self._do(step.acts, ascent)
        done = replace(self.record, flushing=False, keeper_dropped=False)
        self._journal.write(done.at(towards, self._now()))
        log.info("rung reached", extra={"rung": towards})
        self.arrived.set()
        self._clear()
        return True

    async def keep(self) -> None:
        """Keep what has been reached: never the rung that an unfinished step may be leaving. Raises as `advance`."""
        if self.record.tripped:
            if self._goal.rung is not None:
                raise Blocked(
                    "DeadManTripped",
                    "the datapath failed while no API server answered, so this node put kube-proxy's rules back by "
                    "itself; take it down to Shadow or Standby, then try again",
                )
            return
        await upkeep(self._ascent(), self.record.lowest)
        self._clear()

    async def _keep_meanwhile(self) -> None:
        """A step that cannot go on, for hours maybe, is no reason to let go of the rung below it."""
        if self.record.tripped or time.monotonic() < self._keep_again:
            return
        self._keep_again = time.monotonic() + self._pace.upkeep_s
        try:
            await upkeep(self._ascent(), self.record.lowest)
        except Exception as error:  # what the step raises is told; this may be its consequence
            log.warning("the rung is not kept", extra={"rung": self.record.lowest, "error": str(error)})

    async def trip(self) -> None:
        """The dead-man timer has run out: the snapshot goes back, new connections are left to it. Raises what stands in
        the way of that; then the datapath goes on as well as it can.
        """
        async with self.lock:
            log.error(
                "dead man: the datapath fails and no API server answers; kube-proxy's rules are put back"
            )
            seen = await self._ground.rules.inspect()
            if not seen.in_force or self.record.flushing:
                await restore(self._ground.rules, self._journal)
                if not (await self._ground.rules.inspect()).in_force:
                    raise Blocked(
                        "NothingRestored", "the snapshot has no rules of kube-proxy's: nobody would serve"
                    )
            self._journal.write(replace(self.record, tripped=True))
            await self._ground.port.release()
            await self._ground.datapath.set_accepting(False)
            self._journal.write(replace(self.record.at(Rung.SHADOW, self._now()), flushing=False))
            self._tell("")
        self._changed.set()

    def _ascent(self) -> Ascent:
        return Ascent(self._ground, self._journal, self._now, self._grace_until)

    def _grace_until(self) -> datetime:
        """When the sockets of a step that has begun must have ended; within the operator's deadline."""
        until = (self.record.begun or self._now()) + timedelta(seconds=self._pace.grace_s)
        if self._goal.deadline is None:
            return until
        return min(until, self._goal.deadline - timedelta(seconds=self._pace.deadline_margin_s))

    async def _do(self, acts: tuple[Act, ...], ascent: Ascent) -> None:
        for act in acts:
            self._tell(act.doing)
            await act.run(ascent)

    def _tell(self, doing: str) -> None:
        self._doing = doing
        self._report(Standing(self.record, self._generation, doing, self._fault()))

    def _clear(self) -> None:
        if self._trouble is not None:
            log.info("it works again", extra={"reason": self._trouble.reason})
        self._trouble = None
        self._tell("")

    def _block(self, reason: str, message: str) -> None:
        known = self._trouble if self._trouble is not None and self._trouble.reason == reason else None
        if known is None:
            log.warning("cannot go on", extra={"reason": reason, "problem": message, "doing": self._doing})
        since = known.since if known else self._now()
        self._trouble = Fault(reason=reason, message=message[:2048], since=since)
        self._tell(self._doing)

    def _fault(self) -> Fault | None:
        if self._trouble is None:
            return None
        old = self._now() - self._trouble.since >= timedelta(seconds=self._pace.patience_s)
        return self._trouble if old else None

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
