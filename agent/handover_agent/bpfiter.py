"""What sockets carry in BPF storage: the map for it, and reading it from the kernel with an iterator.

An iterator is a program that the kernel calls once for each socket with storage in a map, of whatever network
namespace, and that writes what the reader gets to see.
"""

import ctypes
import os
import struct

from handover_agent.bpfmap import MapType
from handover_agent.bpfsys import Command, Descriptor, address, attributes, bpf, buffer

TRACE_ITER = 28  # enum bpf_attach_type
_NO_PREALLOC = 1
_READ_BYTES = 1 << 16
_STRINGS = b"\0int\0byte\0"
_INT, _BYTE, _ARRAY = 1, 2, 3


def storage_create(value_bytes: int, name: str) -> Descriptor:
    """A map whose values sockets carry. Raises BpfError.

    The kernel asks for the types of key and value, so that it could print them: a number, and bytes.
    """
    with _types(value_bytes) as types:
        attr = attributes(
            *("IIIIIII16sIIII", MapType.SK_STORAGE, 4, value_bytes, 0, _NO_PREALLOC, 0, 0),
            *(name.encode()[:15], 0, types.fd, _INT, _ARRAY),
        )
        return Descriptor(bpf(Command.MAP_CREATE, attr, f"map {name}"))


def iterate(program_fd: int, map_fd: int, tried: str) -> bytes:
    """All that the iterator writes of a map. Raises BpfError, OSError."""
    about = buffer(struct.pack("=I12x", map_fd))
    attr = attributes("IIIIQI", program_fd, 0, TRACE_ITER, 0, address(about), len(about))
    with (
        Descriptor(bpf(Command.LINK_CREATE, attr, tried)) as link,
        Descriptor(bpf(Command.ITER_CREATE, attributes("II", link.fd, 0), tried)) as reading,
    ):
        parts = []
        while part := os.read(reading.fd, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)


def _types(value_bytes: int) -> Descriptor:
    number = struct.pack("=IIII", _STRINGS.index(b"int"), 1 << 24, 4, 1 << 24 | 32)  # signed, 32 bits
    byte = struct.pack("=IIII", _STRINGS.index(b"byte"), 1 << 24, 1, 8)
    array = struct.pack("=IIIIII", 0, 3 << 24, 0, _BYTE, _INT, value_bytes)
    types = number + byte + array
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(_STRINGS))
    raw = buffer(head + types + _STRINGS)
    attr = attributes("QQIII", ctypes.addressof(raw), 0, len(raw), 0, 0)
    return Descriptor(bpf(Command.BTF_LOAD, attr, "types of a map"))
