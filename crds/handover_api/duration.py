"""Durations as Kubernetes writes them: `30s`, `1m30s`, `500ms`."""

import re
from typing import Annotated

from pydantic import Field

PATTERN = r"^([0-9]+(ms|s|m|h))+$"
_PART = re.compile(r"([0-9]+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, Field(pattern=PATTERN, max_length=16)]


def seconds(duration: str) -> float:
    """How many seconds a duration such as `1m30s` lasts. Raises ValueError when it is not one."""
    if not re.match(PATTERN, duration):
        raise ValueError(f"{duration!r} is no duration: write it as 30s, 1m30s or 500ms")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))
