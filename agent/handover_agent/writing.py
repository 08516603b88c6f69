"""Batches of writes to the maps of which some may fail in the middle.

A batch is written whole when all is well. When it fails, the kernel is read back to learn what of it
happened; the first frontend that is not there is the likely culprit and is tried alone, and if that guess was
wrong, halves are tried. So one bad frontend costs a few calls, not the others' service.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from handover_agent.diff import Held, Region
from handover_agent.held import Holdings
from handover_agent.table import FrontendKey, MapFull, Maps

_RUN = 4096  # backends in one write
_PATIENCE = 24  # failed writes, after which the rest waits for another sync


class Batch:
    """The writes of one sync. What was written is taken over into the holdings, the rest is in `failed`."""

    def __init__(self, maps: Maps, held: Holdings) -> None:
        self._maps, self._held = maps, held
        self._failures = 0
        self.failed: dict[FrontendKey, str] = {}
        self.full: dict[FrontendKey, str] = {}
        """Of those, the ones that found no room, and in which map."""
        self.blind = False
        """A write failed and the kernel could not be read: nobody knows what it holds, the holdings are void.
        """

    def write_regions(self, fresh: Sequence[Region]) -> list[tuple[Region, str]]:
        """Fill regions that nobody points at yet; returns those that could not be, with the reason."""
        bad: list[tuple[Region, str]] = []
        for run in _runs(fresh):
            try:
                self._write_run(run)
            except (OSError, MapFull) as error:
                if len(run) == 1:
                    bad.append((run[0], str(error)))
                    continue
                bad += [(region, reason) for region in run if (reason := self._write_alone(region))]
        return bad

    def put(self, entries: Mapping[FrontendKey, Held]) -> int:
        """Insert or flip frontends whose regions are written; returns how many."""

        def write(keys: Sequence[FrontendKey]) -> None:
            self._maps.write_frontends({key: entries[key].value for key in keys})

        done, not_done = self._attempt(list(entries), write, dict(entries))
        for key in not_done:
            self._held.leave(entries[key].region)
        return done

    def delete(self, keys: Sequence[FrontendKey]) -> int:
        """Remove frontends; returns how many."""
        return self._attempt(list(keys), self._maps.delete_frontends, {})[0]

    def _attempt(
        self,
        keys: list[FrontendKey],
        write: Callable[[Sequence[FrontendKey]], None],
        target: Mapping[FrontendKey, Held],
    ) -> tuple[int, list[FrontendKey]]:
        """Write these; a key that is not in `target` is to be absent. Returns how many are done, and which
        are not.
        """
        done, not_done = 0, list[FrontendKey]()
        in_order = True
        stack = [keys] if keys else []
        while stack:
            part = stack.pop()
            if self.blind or self._failures >= _PATIENCE:
                self._give_up(part, "put off: too many writes failed before it", not_done)
                continue
            try:
                write(part)
            except (OSError, MapFull) as error:
                self._failures += 1
                left = self._read_back(part, target, error, not_done)
                done += len(part) - len(left)
                if isinstance(error, MapFull):
                    self.full |= dict.fromkeys(left, error.name)
                if len(part) == 1 or isinstance(error, MapFull):
                    self._give_up(left, str(error), not_done)
                elif in_order and len(left) < len(part) and len(left) > 1:
                    stack += [left[1:], left[:1]]
                elif left:
                    middle = (len(left) + 1) // 2
                    stack += [half for half in (left[middle:], left[:middle]) if half]
                continue
            for key in part:
                self._held.put(key, target.get(key))
            done += len(part)
            in_order = in_order and len(part) > 1
        return done, not_done

    def _read_back(
        self,
        part: list[FrontendKey],
        target: Mapping[FrontendKey, Held],
        cause: Exception,
        not_done: list[FrontendKey],
    ) -> list[FrontendKey]:
        """After a failed write: take over what happened, return what did not."""
        try:
            actual = self._maps.read_frontends()
        except OSError as error:
            self.blind = True
            self._give_up(part, f"{cause}; and the map could not be read: {error}", not_done)
            return []
        left = []
        for key in part:
            value, want, have = actual.get(key), target.get(key), self._held.frontends.get(key)
            if value == (want.value if want else None):
                self._held.put(key, want)
                continue
            left.append(key)
            if value != (have.value if have else None):
                self._held.surprise(key, value)
        return left

    def _give_up(self, keys: Iterable[FrontendKey], reason: str, not_done: list[FrontendKey]) -> None:
        for key in keys:
            self.failed[key] = reason
            not_done.append(key)

    def _write_alone(self, region: Region) -> str:
        """The reason why it failed, or nothing."""
        try:
            self._write_run([region])
        except (OSError, MapFull) as error:
            return str(error)
        return ""

    def _write_run(self, run: Sequence[Region]) -> None:
        self._maps.write_backends(run[0].offset, [b for region in run for b in region.slots or ()])


def _runs(regions: Sequence[Region]) -> list[list[Region]]:
    """Neighbours together, so that a first sync takes few calls."""
    runs: list[list[Region]] = []
    length = 0
    for region in sorted(regions, key=lambda r: r.offset):
        last = runs[-1][-1] if runs else None
        if last is not None and last.offset + last.size == region.offset and length + region.size <= _RUN:
            runs[-1].append(region)
            length += region.size
        else:
            runs.append([region])
            length = region.size
    return runs
