"""Which frontends old flows may go to: those of now, and those of Services that were deleted while connections to them
live on.
"""

from collections.abc import Collection, Iterable

from handover_agent.table import FrontendKey

_MOST_GONE = 50_000


class EverServed:
    """The frontends that there have been. Of very many that are gone, those that went last: where Services come and go all
    day, most of the others' connections have ended.
    """

    def __init__(self, most_gone: int = _MOST_GONE) -> None:
        self._most_gone = most_gone
        self._last: frozenset[FrontendKey] = frozenset()
        self._gone: dict[FrontendKey, None] = {}  # in the order in which they went

    def update(self, now: Iterable[FrontendKey]) -> Collection[FrontendKey]:
        """These are there now; returns them and those that were."""
        fresh = frozenset(now)
        for key in fresh & self._gone.keys():
            del self._gone[key]
        self._gone.update(dict.fromkeys(self._last - fresh))
        for key in list(self._gone)[: max(0, len(self._gone) - self._most_gone)]:
            del self._gone[key]
        self._last = fresh
        return fresh | self._gone.keys()

    def clear(self) -> None:
        """Nothing that was counts any more."""
        self._last = frozenset()
        self._gone.clear()
