"""What the kernel's maps hold, as far as we know: frontends, their regions and who shares them.

Frontends with the same backends (a Service's ClusterIP, its NodePort on five addresses, its load balancer)
share one region, counted by its users. After a restart all of this is read back from the kernel, which is the
only truth; where what is found cannot be right (regions that overlap or reach beyond the array), the
frontends concerned are held without trusted backends, so that the next sync gives them a region of their own.
"""

from collections.abc import Callable, Iterable
from itertools import groupby

from handover_agent.diff import Held, Region
from handover_agent.regions import GRACE_S, Regions
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Maps

_CHUNK = 16384
_SOURCES = int(FrontendFlags.SOURCES)


class Holdings:
    """The mirror of the kernel's frontends, and the allocator that goes with it."""

    def __init__(self, maps: Maps, clock: Callable[[], float], grace_s: float = GRACE_S) -> None:
        self._maps = maps
        self.regions = Regions(maps.backend_capacity, clock, grace_s)
        self.frontends: dict[FrontendKey, Held] = {}
        self.asking: dict[int, set[FrontendKey]] = {}
        """Which frontends ask who may connect, by the number that they ask for."""
        self._shared: dict[tuple[Backend, ...], Region] = {}
        self._met = False

    def read(self) -> None:
        """Take over what the kernel holds, forgetting what we thought. Raises OSError."""
        found = self._maps.read_frontends()
        self._maps.keep_addresses(found)
        spans, unsound = _sound(
            {(v.offset, v.slots) for v in found.values() if v.slots}, self.regions.capacity
        )
        content = self._contents(spans)
        # An empty table that this process meets first has no reader worth protecting: what read a frontend
        # before it was deleted ended before this process began. Else somebody may just have flipped one.
        self.regions.rebuild(spans, rest=bool(found) or self._met)
        self._met = True
        merged = set(unsound.values())
        self._shared = {}
        by_span: dict[tuple[int, int], Region] = {}
        for offset, size in spans:
            region = Region(offset, size, None if (offset, size) in merged else content[offset])
            by_span[offset, size] = region
            if region.slots is not None:
                self._shared.setdefault(region.slots, region)
        nowhere = _nowhere()
        self.frontends, self.asking = {}, {}
        for key, value in found.items():
            span = (value.offset, value.slots)
            at = None if not value.slots else by_span.get(unsound.get(span, span), nowhere)
            if at is not None:
                at.users += 1
            self.frontends[key] = Held(value, at)
            self._asks(key, value)

    def region(self, slots: tuple[Backend, ...]) -> tuple[Region | None, bool]:
        """A region with these backends and one more user, and whether it must still be written.

        Raises MapFull or RegionsResting.
        """
        if not slots:
            return None, False
        known = self._shared.get(slots)
        if known is not None:
            known.users += 1
            return known, False
        fresh = Region(self.regions.take(len(slots)), len(slots), slots, users=1)
        self._shared[slots] = fresh
        return fresh, True

    def leave(self, region: Region | None) -> None:
        """One user less; the last one out has the region rest."""
        if region is None:
            return
        region.users -= 1
        if region.users == 0:
            self.regions.give_back(region.offset)
            if region.slots is not None and self._shared.get(region.slots) is region:
                del self._shared[region.slots]

    def put(self, key: FrontendKey, held: Held | None) -> None:
        """The kernel now has this (whose region has been counted already); the old region is left."""
        old = self.frontends.pop(key, None)
        if old is not None and _filters(old.value):
            self.asking[old.value.service_id].discard(key)
        if held is not None:
            self.frontends[key] = held
            self._asks(key, held.value)
        if old is not None:
            self.leave(old.region)

    def _asks(self, key: FrontendKey, value: FrontendValue) -> None:
        if _filters(value):
            self.asking.setdefault(value.service_id, set()).add(key)

    def surprise(self, key: FrontendKey, value: FrontendValue | None) -> None:
        """The kernel has something here that is neither old nor new: take it as it is, trusting nothing of
        it.
        """
        self.put(key, None if value is None else Held(value, _nowhere()))

    def recheck(self) -> None:
        """Read the kernel again, and take over where it differs from what we think. Raises OSError.

        What we know of free regions stays known: unlike after `read`, nothing has to rest because of it.
        """
        actual = self._maps.read_frontends()
        self._maps.keep_addresses(actual)
        for key, value in actual.items():
            held = self.frontends.get(key)
            if held is None or held.value != value:
                self.surprise(key, value)
        for key in [key for key in self.frontends if key not in actual]:
            self.surprise(key, None)
        regions = {h.region.offset: h.region for h in self.frontends.values() if h.region and h.region.size}
        content = self._contents([(region.offset, region.size) for region in regions.values()])
        for offset, region in regions.items():
            if region.slots is None or region.slots == content[offset]:
                continue
            if self._shared.get(region.slots) is region:
                del self._shared[region.slots]
            region.slots = content[offset]
            self._shared.setdefault(content[offset], region)

    def _contents(self, spans: Iterable[tuple[int, int]]) -> dict[int, tuple[Backend, ...]]:
        """The backends of each region, read in large pieces."""
        content: dict[int, tuple[Backend, ...]] = {}
        start, end, members = 0, 0, list[tuple[int, int]]()

        def read() -> None:
            array = self._maps.read_backends(start, end - start)
            for offset, size in members:
                content[offset] = tuple(array[offset - start : offset - start + size])

        for offset, size in sorted(spans):
            if members and offset + size - start > _CHUNK:
                read()
                members = []
            if not members:
                start = offset
            members.append((offset, size))
            end = offset + size
        if members:
            read()
        return content


def _filters(value: FrontendValue) -> bool:
    return bool(int(value.flags) & _SOURCES)


def _nowhere() -> Region:
    """Where a frontend points that must not be followed; its one user too many keeps it from being given
    back.
    """
    return Region(-1, 0, None, users=1 << 30)


def _sound(
    spans: set[tuple[int, int]], capacity: int
) -> tuple[list[tuple[int, int]], dict[tuple[int, int], tuple[int, int]]]:
    """Regions that do not overlap, and which of the given ones had to be merged into which (out of range:
    into none).
    """
    inside = sorted(span for span in spans if span[0] >= 0 and span[0] + span[1] <= capacity)
    cluster, reach = 0, -1

    def clustered(span: tuple[int, int]) -> int:
        nonlocal cluster, reach
        if span[0] >= reach:
            cluster += 1
        reach = max(reach, span[0] + span[1])
        return cluster

    merged: list[tuple[int, int]] = []
    unsound: dict[tuple[int, int], tuple[int, int]] = {}
    for _, group in groupby(inside, clustered):
        members = list(group)
        start = members[0][0]
        whole = (start, max(offset + size for offset, size in members) - start)
        merged.append(whole)
        if len(members) > 1:
            unsound |= dict.fromkeys(members, whole)
    return merged, unsound
