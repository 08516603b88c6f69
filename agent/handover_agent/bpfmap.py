"""BPF maps by bpf(2): made, looked at, and read and written key by key (`bpfbatch` does many at once)."""

import contextlib
import ctypes
import errno
import resource
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from handover_agent.bpfsys import (
    BpfError,
    Command,
    Descriptor,
    address,
    attributes,
    bpf,
    buffer,
    call,
    object_info,
)

_NOEXIST = 1  # BPF_NOEXIST
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: the kernel's own ENOTSUPP


class MapType(IntEnum):
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says about a map."""

    type: int
    key_bytes: int
    value_bytes: int
    max_entries: int


def map_create(
    kind: MapType, key_bytes: int, value_bytes: int, max_entries: int, name: str, *, flags: int = 0
) -> Descriptor:
    """A new map. `name` (15 characters at most) is what bpftool shows."""
    attr = attributes(
        "IIIIIII16s", kind, key_bytes, value_bytes, max_entries, flags, 0, 0, name.encode()[:15]
    )
    try:
        return Descriptor(bpf(Command.MAP_CREATE, attr, f"map {name}"))
    except BpfError as error:
        if error.errno != errno.EPERM or not raise_memory_limit():
            raise
    return Descriptor(bpf(Command.MAP_CREATE, attr, f"map {name}"))


def raise_memory_limit() -> bool:
    """Let this process lock as much memory as it may, which maps count as before Linux 5.11; whether that is more now.

    Without CAP_SYS_RESOURCE that is the hard limit that the container runtime gives.
    """
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for wanted in (resource.RLIM_INFINITY, resource.RLIM_INFINITY), (before[1], before[1]):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
            break
    return resource.getrlimit(resource.RLIMIT_MEMLOCK) != before


def map_info(fd: int) -> MapInfo:
    """Type and sizes of an open map."""
    kind, _, key_bytes, value_bytes, max_entries = struct.unpack_from("=IIIII", object_info(fd, 80))
    return MapInfo(kind, key_bytes, value_bytes, max_entries)


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value of a key, None when there is none. For per-CPU maps give the size over all CPUs."""
    k, value = buffer(key), ctypes.create_string_buffer(value_bytes)
    result, number = call(Command.MAP_LOOKUP_ELEM, attributes("IIQQQ", fd, 0, address(k), address(value), 0))
    if result < 0 and number == errno.ENOENT:
        return None
    if result < 0:
        raise BpfError(number, f"bpf(MAP_LOOKUP_ELEM) on map {fd}")
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set a key's value, whether it exists or not."""
    k, v = buffer(key), buffer(value)
    bpf(Command.MAP_UPDATE_ELEM, attributes("IIQQQ", fd, 0, address(k), address(v), 0), f"map {fd}")


def add(fd: int, key: bytes, value: bytes) -> bool:
    """Set a key's value unless it has one; False when it has."""
    k, v = buffer(key), buffer(value)
    attr = attributes("IIQQQ", fd, 0, address(k), address(v), _NOEXIST)
    result, number = call(Command.MAP_UPDATE_ELEM, attr)
    if result < 0 and number != errno.EEXIST:
        raise BpfError(number, f"bpf(MAP_UPDATE_ELEM) on map {fd}")
    return result >= 0


def take(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Remove a key and say what its last value was, None when it was not there.

    One step from Linux 5.14 on; before, what is written in between is lost.
    """
    k, value = buffer(key), ctypes.create_string_buffer(value_bytes)
    attr = attributes("IIQQQ", fd, 0, address(k), address(value), 0)
    result, number = call(Command.MAP_LOOKUP_AND_DELETE_ELEM, attr)
    if result < 0 and number in _UNSUPPORTED:
        found = lookup(fd, key, value_bytes)
        return found if delete(fd, key) else None
    if result < 0 and number == errno.ENOENT:
        return None
    if result < 0:
        raise BpfError(number, f"bpf(MAP_LOOKUP_AND_DELETE_ELEM) on map {fd}")
    return value.raw


def delete(fd: int, key: bytes) -> bool:
    """Remove a key; False when it was not there."""
    k = buffer(key)
    result, number = call(Command.MAP_DELETE_ELEM, attributes("IIQQQ", fd, 0, address(k), 0, 0))
    if result < 0 and number != errno.ENOENT:
        raise BpfError(number, f"bpf(MAP_DELETE_ELEM) on map {fd}")
    return result >= 0


def keys(fd: int, key_bytes: int) -> Iterator[bytes]:
    """All keys, one system call each. A key deleted meanwhile may start the walk anew: expect repeats."""
    following, current = ctypes.create_string_buffer(key_bytes), 0
    reached = ctypes.create_string_buffer(key_bytes)
    while True:
        attr = attributes("IIQQQ", fd, 0, current, address(following), 0)
        result, number = call(Command.MAP_GET_NEXT_KEY, attr)
        if result < 0 and number == errno.ENOENT:
            return
        if result < 0:
            raise BpfError(number, f"bpf(MAP_GET_NEXT_KEY) on map {fd}")
        reached.raw = following.raw
        current = address(reached)
        yield following.raw


def possible_cpus() -> int:
    """How many values a per-CPU map has for each key."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().rsplit("-", 1)[-1].rsplit(",", 1)[-1]) + 1
