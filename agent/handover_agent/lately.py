"""What frontends were a moment ago: kube-proxy hears of changes when we do and writes its rules later, so on a node where
something changes all the time its rules are what the table was, and never what it is.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

from handover_agent.table import Entry, FrontendKey

_MOST = 50_000
_LONGEST_S = 60.0

Before = Mapping[FrontendKey, list[Entry | None]]
"""Frontend → everything that it was, None meaning that there was none."""


class Lately:
    """Remembers for a minute what was replaced; of very many changes, the last ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replaced: deque[tuple[float, FrontendKey, Entry | None]] = deque(maxlen=_MOST)

    def note(self, before: Mapping[FrontendKey, Entry | None]) -> None:
        """These have just been replaced."""
        now = self._clock()
        self._replaced.extend((now, key, entry) for key, entry in before.items())
        while self._replaced and self._replaced[0][0] < now - _LONGEST_S:
            self._replaced.popleft()

    def within(self, seconds: float) -> Before:
        """What frontends have been in the last seconds, besides what they are."""
        since, found = self._clock() - seconds, dict[FrontendKey, list[Entry | None]]()
        for at, key, entry in reversed(self._replaced):
            if at < since:
                break
            found.setdefault(key, []).append(entry)
        return found
