"""Who may write where in the backend array.

A program that read a frontend's value a moment ago may still follow its offset. So a region is never changed:
a new one is taken, the frontend is flipped to it, and the old one is used again only after a grace period
that is far longer than any program runs. First fit, neighbours coalesce.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

from handover_agent.table import MapFull

GRACE_S = 2.0


class RegionsResting(Exception):
    """There would be room, but it is in its grace period until `until` (on the allocator's clock)."""

    def __init__(self, wanted: int, until: float) -> None:
        super().__init__(f"no free region of {wanted} backends before the grace period of freed ones is over")
        self.wanted, self.until = wanted, until


class Regions:
    """Allocator of the backend array's slots."""

    def __init__(self, capacity: int, clock: Callable[[], float], grace_s: float = GRACE_S) -> None:
        self._capacity, self._clock, self._grace_s = capacity, clock, grace_s
        self._live: dict[int, int] = {}  # offset → size
        self._used = 0
        self._starts: list[int] = []  # of free blocks, sorted
        self._sizes: dict[int, int] = {}  # free block's offset → size
        self._resting: deque[tuple[float, int, int]] = deque()  # due, offset, size
        self._resting_slots = 0
        if capacity:
            self._release(0, capacity)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def used(self) -> int:
        """Slots in regions that are in use."""
        return self._used

    @property
    def live(self) -> dict[int, int]:
        """Offset and size of each region in use."""
        return dict(self._live)

    def rebuild(self, live: Iterable[tuple[int, int]], *, rest: bool) -> None:
        """Start anew from the regions that frontends in the kernel point at; they must not overlap.

        `rest`: whoever freed the others did it at an unknown time, so they begin a grace period now.
        """
        self._live, self._starts, self._sizes = {}, [], {}
        self._used = 0
        self._resting.clear()
        self._resting_slots = 0
        end = 0
        gaps: list[tuple[int, int]] = []
        for offset, size in sorted(set(live)):
            if offset < end or offset + size > self._capacity or size < 1:
                raise ValueError(f"region {offset}+{size} overlaps another one or the end of the array")
            if offset > end:
                gaps.append((end, offset - end))
            self._live[offset] = size
            self._used += size
            end = offset + size
        if end < self._capacity:
            gaps.append((end, self._capacity - end))
        for offset, size in gaps:
            if rest:
                self._rest(offset, size)
            else:
                self._release(offset, size)

    def take(self, size: int) -> int:
        """The offset of a new region. Raises RegionsResting when waiting helps, MapFull when it does not."""
        if size < 1:
            raise ValueError(f"a region has at least one slot, not {size}")
        self._wake()
        for start in self._starts:
            if self._sizes[start] >= size:
                self._cut(start, size)
                self._live[start] = size
                self._used += size
                return start
        if self._resting and sum(self._sizes.values()) + self._resting_slots >= size:
            raise RegionsResting(size, until=self._resting[-1][0])
        raise MapFull("backends", self._capacity, self.used + size)

    def give_back(self, offset: int) -> None:
        """A region that no frontend points at any more: it rests, then it is free."""
        size = self._live.pop(offset)
        self._used -= size
        self._rest(offset, size)

    def _rest(self, offset: int, size: int) -> None:
        self._resting.append((self._clock() + self._grace_s, offset, size))
        self._resting_slots += size

    def _wake(self) -> None:
        now = self._clock()
        while self._resting and self._resting[0][0] <= now:
            _, offset, size = self._resting.popleft()
            self._resting_slots -= size
            self._release(offset, size)

    def _cut(self, start: int, size: int) -> None:
        have = self._sizes.pop(start)
        index = bisect_left(self._starts, start)
        if have == size:
            del self._starts[index]
        else:
            self._starts[index] = start + size
            self._sizes[start + size] = have - size

    def _release(self, offset: int, size: int) -> None:
        index = bisect_left(self._starts, offset)
        if index < len(self._starts) and self._starts[index] == offset + size:
            size += self._sizes.pop(self._starts.pop(index))
        if index and self._starts[index - 1] + self._sizes[self._starts[index - 1]] == offset:
            self._sizes[self._starts[index - 1]] += size
            return
        self._starts.insert(index, offset)
        self._sizes[offset] = size
