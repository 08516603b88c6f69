"""On which rung is this node? Derived from what is there; the journal may lower the answer, never raise it.

Pure functions. After a kill the journal may be one act behind the kernel; after a reboot it is far ahead of
it (pins and rules live in memory); a lost disk leaves no journal at all. In each case the answer is a rung
that certainly holds and, when something above it may have been touched, the unfinished step to there:
whichever way the node is then asked to go, that step is done again or undone first.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from handover_api.base import Rung

from handover_agent.ladder.journal import Record
from handover_agent.ladder.ports import Programs

LADDER = tuple(Rung)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is really there when the agent starts."""

    programs: Programs
    rules_in_force: bool
    anything_of_ours: bool
    """A snapshot or a keeper is there."""


def above(rung: Rung) -> Rung:
    """The next rung up. Raises IndexError at the top."""
    return LADDER[rung.height + 1]


def below(rung: Rung) -> Rung:
    """The next rung down. Raises ValueError at the bottom."""
    if rung is Rung.STANDBY:
        raise ValueError("there is no rung below Standby")
    return LADDER[rung.height - 1]


def derive(record: Record | None, seen: Seen, now: datetime) -> Record:
    """The record to go on with."""
    if record is None:
        return _without_journal(seen, now)
    most = _ceiling(seen)
    if most.height < record.lowest.height:
        # The kernel has lost what the journal remembers. Something of the next rung may be left (a
        # snapshot, a keeper).
        return replace(record, rung=most, since=now, towards=above(most), keeper_dropped=False)
    if seen.programs.serving and record.highest.height < Rung.SERVING.height:
        return replace(record, rung=Rung.SHADOW, since=record.since or now, towards=Rung.SERVING)
    return record if record.since else replace(record, since=now)


def next_step(record: Record, wanted: Rung) -> Rung | None:
    """The neighbouring rung to go to now, up or down; None when the wanted rung is reached.

    An unfinished step is finished (done again) when it leads the wanted way, and undone when it does not.
    """
    low, high = record.lowest, record.highest
    if wanted.height >= high.height:
        if low is not high:
            return high
        return above(high) if wanted.height > high.height else None
    return low if low is not high else below(high)


def _ceiling(seen: Seen) -> Rung:
    if not seen.programs.loaded:
        return Rung.STANDBY
    if not seen.programs.serving:
        return Rung.SHADOW
    return Rung.SOLE


def _without_journal(seen: Seen, now: datetime) -> Record:
    if not seen.programs.loaded:
        return Record(Rung.STANDBY, now, Rung.SHADOW if seen.anything_of_ours else None)
    if not seen.programs.serving:
        return Record(Rung.STANDBY, now, Rung.SHADOW)
    if seen.rules_in_force:
        return Record(Rung.SHADOW, now, Rung.SERVING)
    # Nobody else serves here: whether it was us who removed the rules is settled by going to Sole, or back.
    return Record(Rung.SERVING, now, Rung.SOLE)
