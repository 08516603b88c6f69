"""The addresses of frontends, as the packet path knows them before it looks anything up (bpf/known.h).

Several addresses may share a place, so a place is never taken back for one of them: `be` writes all anew.
"""

from collections.abc import Iterable
from pathlib import Path

from handover_agent import bpfbatch
from handover_agent.bpfsys import obj_get
from handover_agent.layout import KNOWN_GROUP_BYTES, KNOWN_GROUPS, pack_index, place_of


def groups(addresses: Iterable[bytes]) -> dict[int, bytearray]:
    """Group → its bytes, of those that are not empty. Pure."""
    found: dict[int, bytearray] = {}
    for address in set(addresses):
        group, byte, bit = place_of(address)
        found.setdefault(group, bytearray(KNOWN_GROUP_BYTES))[byte] |= 1 << bit
    return found


class KnownAddresses:
    """The pinned map; written by one process at a time. Raises BpfError."""

    def __init__(self, path: Path) -> None:
        self._map = obj_get(path)
        self._there: list[bytes] = []
        """What the map holds, once it has been read."""

    def close(self) -> None:
        """Close the descriptor."""
        self._map.close()

    def add(self, addresses: Iterable[bytes]) -> None:
        """Let these be known from now on, besides those that are."""
        there = self._read()
        self._write(
            {
                group: bytes(a | b for a, b in zip(there[group], more, strict=True))
                for group, more in groups(addresses).items()
            }
        )

    def be(self, addresses: Iterable[bytes]) -> None:
        """Let these be known and no others, whoever wrote there meanwhile."""
        self._there = []
        self._read()
        wanted = groups(addresses)
        empty = bytes(KNOWN_GROUP_BYTES)
        self._write({group: bytes(wanted.get(group, empty)) for group in range(KNOWN_GROUPS)})

    def _read(self) -> list[bytes]:
        if not self._there:
            self._there = bpfbatch.read_array(self._map.fd, 0, KNOWN_GROUPS, KNOWN_GROUP_BYTES)
        return self._there

    def _write(self, wanted: dict[int, bytes]) -> None:
        changed = {group: content for group, content in wanted.items() if content != self._there[group]}
        bpfbatch.write(self._map.fd, [(pack_index(group), content) for group, content in changed.items()])
        for group, content in changed.items():
            self._there[group] = content
