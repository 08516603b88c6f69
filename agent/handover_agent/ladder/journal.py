"""What must be remembered over a kill at any instruction: the rung, the step that was begun, and little else.

The record is on disk, synced, before the first act of a step and again after its last. It is not believed by
itself: `reached.derive` compares it with what is really there.
"""

import json
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handover_api.base import Rung

from handover_agent.durable import write_durably

log = logging.getLogger(__name__)

FORMAT = 1


class JournalUnreadable(Exception):
    """The journal on disk cannot be used."""


@dataclass(frozen=True, slots=True)
class Record:
    """Where the node stands, and which step was begun and not finished."""

    rung: Rung = Rung.STANDBY
    since: datetime | None = None
    towards: Rung | None = None
    """The neighbouring rung that a step was begun to; on the way up `rung` is below it, on the way down above
    it.
    """
    begun: datetime | None = None
    """When the step that `towards` names was begun; a restart does not begin it anew."""
    flushing: bool = False
    """The snapshot is complete, and a flush of those very rules was begun: do not take it again from what is
    left.
    """
    keeper_dropped: bool = False
    """The old flows have ended, the keeper was removed on purpose."""
    tripped: bool = False
    """The dead-man timer put the rules back by itself: do not climb until someone asks to go down."""

    @property
    def highest(self) -> Rung:
        """The highest rung of which something may be there."""
        return self.rung if self.towards is None else max(self.rung, self.towards, key=lambda r: r.height)

    @property
    def lowest(self) -> Rung:
        return self.rung if self.towards is None else min(self.rung, self.towards, key=lambda r: r.height)

    def at(self, rung: Rung, now: datetime) -> "Record":
        """The record once a rung has been reached."""
        since = self.since if self.rung is rung and self.since else now
        return replace(self, rung=rung, since=since, towards=None, begun=None)

    def beginning(self, towards: Rung, now: datetime) -> "Record":
        """The record when a step to a neighbour begins: a rung counts as left when the climb back up to it
        begins.
        """
        rung = self.lowest if towards.height > self.lowest.height else self.highest
        since = self.since if self.rung is rung else now
        begun = self.begun if self.rung is rung and self.towards is towards and self.begun else now
        return replace(self, rung=rung, since=since, towards=towards, begun=begun)


class Journal:
    """The record and its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        """As last read or written."""
        return self._record or Record()

    def read(self) -> Record | None:
        """From disk; None when there is none. Raises JournalUnreadable."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalUnreadable(f"{self._path} cannot be read: {error}") from error
        try:
            self._record = _decode(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise JournalUnreadable(f"{self._path} is no journal of ours: {error!r}") from error
        return self._record

    def write(self, record: Record) -> None:
        """To disk, synced. Raises OSError."""
        if record == self._record:
            return
        document = {"format": FORMAT, **asdict(record)}
        write_durably(self._path, json.dumps(document, indent=1, default=datetime.isoformat) + "\n")
        if self._record is None or (record.rung, record.towards) != (self._record.rung, self._record.towards):
            log.debug("journal", extra={"rung": record.rung, "towards": record.towards})
        self._record = record

    def adopt(self, record: Record) -> None:
        """Go on with what was derived; written with the next step."""
        self._record = record


def _decode(document: dict[str, Any]) -> Record:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}, this agent reads {FORMAT}")
    towards = document.get("towards")
    return Record(
        rung=Rung(document["rung"]),
        since=_moment(document.get("since")),
        towards=Rung(towards) if towards else None,
        begun=_moment(document.get("begun")),
        flushing=bool(document.get("flushing")),
        keeper_dropped=bool(document.get("keeper_dropped")),
        tripped=bool(document.get("tripped")),
    )


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
