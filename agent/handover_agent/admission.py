"""The rows of the map `sources`: who may connect to the frontends that do not let everybody in.

Rows belong to a Service port, whose frontends share them, by its number. They are written before a frontend asks for
them and removed when none does any more, so that nobody who may connect is ever kept out by an update. While both the
old and the new ranges are there, both are let in.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from handover_agent.table import Entry, FrontendFlags, FrontendKey, MapFull, Maps, Prefix, Source

_SOURCES = int(FrontendFlags.SOURCES)  # asked for each frontend, for which IntFlag's own operators are slow


def is_filtered(entry: Entry) -> bool:
    """Whether a frontend asks who may connect."""
    return bool(int(entry.flags) & _SOURCES)


class Admission:
    """What the kernel has, what is wanted, and the way from one to the other. `number` numbers Service ports."""

    def __init__(self, maps: Maps, number: Callable[[str], int]) -> None:
        self._maps, self._number = maps, number
        self._held: dict[int, set[Prefix]] = {}
        self._want: dict[int, dict[FrontendKey, tuple[Prefix, ...]]] = {}
        self._unsure = False  # a write failed, and what it had written could not be read

    @property
    def rows(self) -> int:
        """Rows in the kernel."""
        return sum(map(len, self._held.values()))

    def read(self) -> None:
        """Take over what the kernel has. Raises OSError."""
        held: dict[int, set[Prefix]] = {}
        for row in self._maps.read_sources():
            held.setdefault(row.service_id, set()).add(row.prefix)
        self._held, self._unsure = held, False

    def expect(self, table: Mapping[FrontendKey, Entry]) -> None:
        """The whole table that is wanted."""
        self._want = {}
        for key, entry in table.items():
            if is_filtered(entry):
                self._want.setdefault(self._number(entry.service), {})[key] = entry.sources

    def change(self, key: FrontendKey, before: Entry | None, entry: Entry | None) -> None:
        """A frontend is wanted otherwise than before."""
        if before is not None and is_filtered(before):
            number = self._number(before.service)
            keys = self._want.get(number, {})
            keys.pop(key, None)
            if not keys:
                self._want.pop(number, None)
        if entry is not None and is_filtered(entry):
            self._want.setdefault(self._number(entry.service), {})[key] = entry.sources

    def admit(self, entries: Mapping[FrontendKey, Entry]) -> dict[FrontendKey, OSError | MapFull]:
        """Write what these frontends need and the kernel lacks; returns those for which it failed, with the error.

        What is in the way of one Service port does not keep others from theirs.
        """
        if self._unsure and entries:
            self._read_back()
        missing: dict[int, list[Source]] = {}
        for entry in entries.values():
            number = self._number(entry.service)
            if number not in missing:
                lacking = self._wanted(number) - self._held.get(number, set())
                missing[number] = [Source(number, prefix) for prefix in sorted(lacking)]
        everything = [row for rows in missing.values() for row in rows]
        if not everything or self._write(everything) is None:
            return {}
        failed = {
            number: reason for number, rows in missing.items() if rows and (reason := self._write(rows))
        }
        return {
            key: failed[number]
            for key, entry in entries.items()
            if (number := self._number(entry.service)) in failed
        }

    def dismiss(
        self, numbers: Iterable[int], asking: Mapping[int, Collection[FrontendKey]]
    ) -> dict[FrontendKey, str]:
        """Remove what is not wanted any more of these numbers, but for those that frontends in the kernel are `asking`
        for though they should not. Returns the frontends that let too many in because that failed.
        """
        failed: dict[FrontendKey, str] = {}
        if self._unsure:
            self._read_back()
        for number in numbers:
            surplus, wanting = (
                self._held.get(number, set()) - self._wanted(number),
                self._want.get(number, {}),
            )
            if not surplus or any(key not in wanting for key in asking.get(number, ())):
                continue
            reason = self._remove(number, surplus)
            if reason:
                failed |= dict.fromkeys(wanting, reason)
        return failed

    def strangers(self) -> set[int]:
        """Numbers that the kernel has rows of, and that no Service port wants any for."""
        return self._held.keys() - self._want.keys()

    def differences(self, names: Mapping[int, str]) -> list[str]:
        """How the kernel, as last read, is unlike what is wanted. `names` are the numbers' Service ports."""
        found: list[str] = []
        for number in sorted(self._held.keys() | self._want.keys()):
            held, wanted = self._held.get(number, set()), self._wanted(number)
            name = names.get(number, f"number {number}")
            found += [f"source range {prefix} of {name} is missing" for prefix in sorted(wanted - held)]
            found += [f"source range {prefix} of {name} is not wanted" for prefix in sorted(held - wanted)]
        return found

    def _wanted(self, number: int) -> set[Prefix]:
        return {prefix for prefixes in self._want.get(number, {}).values() for prefix in prefixes}

    def _write(self, rows: Collection[Source]) -> OSError | MapFull | None:
        try:
            self._maps.write_sources(rows)
        except (OSError, MapFull) as error:
            self._read_back()
            return error
        for row in rows:
            self._held.setdefault(row.service_id, set()).add(row.prefix)
        return None

    def _remove(self, number: int, prefixes: set[Prefix]) -> str:
        try:
            self._maps.delete_sources([Source(number, prefix) for prefix in sorted(prefixes)])
        except OSError as error:
            self._read_back()
            return f"source ranges could not be removed: {error}"
        self._held[number] -= prefixes
        if not self._held[number]:
            del self._held[number]
        return ""

    def _read_back(self) -> None:
        """A batch may have been written in part: find out how much of it."""
        try:
            self.read()
        except OSError:
            self._unsure = True
