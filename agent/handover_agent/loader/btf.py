"""What the kernel says of its own types (BTF): where a structure's members are.

The table is megabytes long: `Btf` is for the loader's child, which needs several things of it and ends then.
Format: Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_HEADER = struct.Struct(
    "=HBBIIIII"
)  # magic, version, flags, header's length, types at, bytes, strings at, bytes
_TYPE = struct.Struct("=III")  # name, info, size or type
_MEMBER = struct.Struct("=III")  # name, type, offset in bits
_MAGIC = 0xEB9F
_STRUCT, _UNION = 4, 5
# What follows a type's own twelve bytes, by its kind: so many bytes, or so many for each of its elements.
_FOLLOWING = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class BtfError(Exception):
    """The kernel's types are not there, or not as our programs expect them."""


class Btf:
    """The types of a kernel. Raises BtfError."""

    def __init__(self, raw: bytes) -> None:
        self._types, self._strings = _sections(raw)
        self._at: list[int] = [0]  # type's number → where it begins
        self._named: dict[tuple[int, int], int] = {}  # kind and name → its number
        for number, (position, kind, name) in enumerate(_walk(self._types), start=1):
            self._at.append(position)
            if name and kind == _STRUCT:
                self._named[kind, name] = number

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> "Btf":
        """The running kernel's."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BtfError(f"the kernel's type information cannot be read: {error}") from error

    def offset(self, structure: str, member: str) -> int:
        """Where a member is in a structure, in bytes; also one of an unnamed structure or union in it."""
        found = self._member(self._find(_STRUCT, structure), self._string(member))
        if found is None:
            raise BtfError(f"struct {structure} of this kernel has no member {member}")
        return found // 8

    def _find(self, kind: int, name: str) -> int:
        try:
            return self._named[kind, self._string(name)]
        except KeyError:
            raise BtfError(f"this kernel has no {name}") from None

    def _string(self, text: str) -> int:
        return _string(self._strings, text)

    def _member(self, number: int, wanted: int) -> int | None:
        position = self._at[number]
        _, info, _ = _TYPE.unpack_from(self._types, position)
        bitfields = info >> 31
        for i in range(info & 0xFFFF):
            bits: int
            name, inner, bits = _MEMBER.unpack_from(self._types, position + _TYPE.size + i * _MEMBER.size)
            bits = bits & 0xFFFFFF if bitfields else bits
            if name == wanted:
                return bits
            if not name and self._kind(inner) in (_STRUCT, _UNION):
                found = self._member(inner, wanted)
                if found is not None:
                    return bits + found
        return None

    def _kind(self, number: int) -> int:
        return int(_TYPE.unpack_from(self._types, self._at[number])[1]) >> 24 & 0x1F


def _sections(raw: bytes) -> tuple[bytes, bytes]:
    """Types and strings."""
    magic, _, _, length, types, types_bytes, strings, strings_bytes = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise BtfError("the kernel's type information is of another byte order")
    return raw[length + types : length + types + types_bytes], raw[
        length + strings : length + strings + strings_bytes
    ]


def _string(strings: bytes, text: str) -> int:
    """Where a name is among the strings."""
    at = strings.find(b"\0" + text.encode() + b"\0")
    if at < 0:
        raise BtfError(f"this kernel has nothing that is called {text}")
    return at + 1


def _walk(types: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each type begins, its kind, and where its name is."""
    position, end = 0, len(types)
    while position < end:
        name, info, _ = _TYPE.unpack_from(types, position)
        kind = info >> 24 & 0x1F
        yield position, kind, name
        position += _TYPE.size + _FOLLOWING.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
