"""Waiting for a condition, never for a time: every wait has a deadline and says what it waited for."""

import time
from collections.abc import Callable

from e2e.lab.errors import LabError


def until(
    condition: Callable[[], object],
    *,
    what: str,
    timeout_s: float,
    every_s: float = 0.1,
    details: Callable[[], str] | None = None,
) -> None:
    """Return once `condition` is true; after `timeout_s` raise a LabError that names `what` and adds
    `details`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(
                f"gave up after {timeout_s:.0f} s waiting until {what}", details() if details else ""
            )
        time.sleep(every_s)
