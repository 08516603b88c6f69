"""The names behind the numbers in the kernel's maps, on disk, so that the command line can print them.

The maps know a Service port only by a number; names would cost the datapath memory for nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from handover_agent.durable import write_durably


class NamesFile:
    """Number → "namespace/name:portName/PROTOCOL"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: dict[int, str] | None = None

    def write(self, names: Mapping[int, str]) -> None:
        """Replace the file's content if it differs. Raises OSError."""
        if names != self._written:
            ordered = {str(number): names[number] for number in sorted(names)}
            write_durably(self._path, json.dumps(ordered, indent=0) + "\n")
            self._written = dict(names)

    def read(self) -> dict[int, str]:
        """Empty when there is no file, or none that can be read: names are a convenience."""
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            return {int(number): str(name) for number, name in document.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def remove(self) -> None:
        """Idempotent."""
        self._path.unlink(missing_ok=True)
        self._written = None
