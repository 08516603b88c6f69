"""What a command shows, as a value: rows that are a line of a table for people and a document for programs.

Both come from one row, so that a script never has to cut columns out of a table, and the table never has to
name what only a script wants. Notes say what is not known; people find them on stderr, programs beside the
items.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a cell for each column of the table, and all of it as JSON has it."""

    cells: tuple[str, ...]
    document: Mapping[str, object]
    below: str = ""
    """What would make the table too wide: a line of its own below the row."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A command's answer that is a table (see `command.Answer`)."""

    header: tuple[str, ...]
    rows: Sequence[Row]
    empty: str
    """What to say instead of a table without rows: why there are none."""
    notes: Sequence[str] = ()
    well: bool = True

    def json(self) -> str:
        """`{"items": [...], "notes": [...]}`."""
        document = {"items": [dict(row.document) for row in self.rows], "notes": list(self.notes)}
        return json.dumps(document, indent=2)

    def text(self) -> str:
        """Columns, left-aligned, as kubectl prints them; without rows, the reason."""
        if not self.rows:
            return self.empty
        header, *lines = table_text(self.header, [row.cells for row in self.rows]).splitlines()
        told = zip(lines, self.rows, strict=True)
        return "\n".join([header, *(f"{line}\n  → {row.below}" if row.below else line for line, row in told)])


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, left-aligned, three blanks between them."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def ago(seconds: float) -> str:
    """A duration in the two largest units that say enough: 4s, 12m, 3h5m, 2d4h."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m{left}s" if left and minutes < 10 else f"{minutes}m"
    return f"{left}s"


def bytes_text(count: int) -> str:
    """12345678 → 11.8 MiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def number(count: int, noun: str, plural: str = "") -> str:
    """1 backend, 2 backends."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
