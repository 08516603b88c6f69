"""Many keys in few system calls: the batch commands of bpf(2) (Linux 5.6); one call per key without them.

A batch is not atomic: after an error, part of it may have been written. Callers write in an order that allows
for it. `batch=False` forces the slow way, for tests.
"""

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from handover_agent import bpfmap, bpfsys
from handover_agent.bpfsys import BpfError, Command

_CHUNK = 4096
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: the kernel's own ENOTSUPP
_LAYOUT = "QQQQIIQQ"  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_COUNT_AT = 32

Buffer = ctypes.Array[ctypes.c_char]


def read_hash(fd: int, key_bytes: int, value_bytes: int, batch: bool = True) -> Iterator[tuple[bytes, bytes]]:
    """Every key of a hash map with its value; a key changed meanwhile may be seen before, after, or twice."""
    room, cursor = _CHUNK, b""
    while batch:
        keys, values = _space(room * key_bytes), _space(room * value_bytes)
        following = _space(max(key_bytes, 8))
        count, number = _run(
            Command.MAP_LOOKUP_BATCH, fd, keys, values, room, cursor=cursor, following=following
        )
        if number == errno.ENOSPC:  # a bucket holds more than there is room for
            room *= 2
            continue
        if number in _UNSUPPORTED and not cursor:
            break
        if number not in (0, errno.ENOENT):  # ENOENT: this was the end
            raise BpfError(number, f"bpf(MAP_LOOKUP_BATCH) on map {fd}")
        yield from zip(_pieces(keys, key_bytes, count), _pieces(values, value_bytes, count), strict=True)
        if number:
            return
        cursor = following.raw
    for key in list(bpfmap.keys(fd, key_bytes)):
        value = bpfmap.lookup(fd, key, value_bytes)
        if value is not None:
            yield key, value


def read_pinned(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every key with its value of the hash map that is pinned there; none if none is."""
    try:
        descriptor = bpfsys.obj_get(path)
    except FileNotFoundError:
        return
    with descriptor as opened:
        info = bpfmap.map_info(opened.fd)
        yield from read_hash(opened.fd, info.key_bytes, info.value_bytes)


def delete_pinned(path: Path, keys: Sequence[bytes]) -> None:
    """Remove every key from the map that is pinned there, if there is one."""
    if keys:
        with suppress(FileNotFoundError), bpfsys.obj_get(path) as opened:
            delete(opened.fd, keys)


def read_array(fd: int, start: int, count: int, value_bytes: int, batch: bool = True) -> list[bytes]:
    """`count` values of an array map from index `start` on."""
    if batch and count:
        keys, values = _space(count * 4), _space(count * value_bytes)
        cursor = struct.pack("=I", start - 1) if start else b""
        done, number = _run(
            Command.MAP_LOOKUP_BATCH, fd, keys, values, count, cursor=cursor, following=_space(8)
        )
        if number in (0, errno.ENOENT) and done == count:
            return list(_pieces(values, value_bytes, count))
        if number not in (0, errno.ENOENT, *_UNSUPPORTED):
            raise BpfError(number, f"bpf(MAP_LOOKUP_BATCH) on map {fd}")
    found = [
        bpfmap.lookup(fd, struct.pack("=I", index), value_bytes) for index in range(start, start + count)
    ]
    if None in found:
        raise IndexError(f"map {fd} has no index {start + found.index(None)}")
    return [value for value in found if value is not None]


def write(fd: int, entries: Sequence[tuple[bytes, bytes]], batch: bool = True) -> None:
    """Set every key's value, in order. Raises BpfError (E2BIG: the map is full) after having written some."""
    for start in range(0, len(entries), _CHUNK):
        piece = entries[start : start + _CHUNK]
        if batch:
            keys, values = (_buffer(b"".join(column)) for column in zip(*piece, strict=True))
            done, number = _run(Command.MAP_UPDATE_BATCH, fd, keys, values, len(piece))
            if not number:
                continue
            if done or number not in _UNSUPPORTED:
                raise BpfError(number, f"bpf(MAP_UPDATE_BATCH) of {len(piece)} on map {fd}")
        for key, value in piece:
            bpfmap.update(fd, key, value)


def delete(fd: int, keys: Sequence[bytes], batch: bool = True) -> None:
    """Remove every key; one that is not there is passed over."""
    position = 0
    while position < len(keys):
        piece = keys[position : position + _CHUNK]
        if batch:
            done, number = _run(Command.MAP_DELETE_BATCH, fd, _buffer(b"".join(piece)), None, len(piece))
            if not number or number == errno.ENOENT:  # stops at a key that is not there: go on behind it
                position += len(piece) if not number else done + 1
                continue
            if number not in _UNSUPPORTED:
                raise BpfError(number, f"bpf(MAP_DELETE_BATCH) of {len(piece)} on map {fd}")
        for key in piece:
            bpfmap.delete(fd, key)
        position += len(piece)


def _run(
    command: Command,
    fd: int,
    keys: Buffer,
    values: Buffer | None,
    count: int,
    *,
    cursor: bytes = b"",
    following: Buffer | None = None,
) -> tuple[int, int]:
    """One batch command: how many entries it did, and the error number (0: none)."""
    before = _buffer(cursor) if cursor else None
    attr = bpfsys.attributes(_LAYOUT, *map(_address, (before, following, keys, values)), count, fd, 0, 0)
    result, number = bpfsys.call(command, attr)
    (done,) = struct.unpack_from("=I", attr, _COUNT_AT)
    return done, number if result < 0 else 0


def _space(length: int) -> Buffer:
    return ctypes.create_string_buffer(length)


def _buffer(content: bytes) -> Buffer:
    return ctypes.create_string_buffer(content, len(content))


def _address(buffer: Buffer | None) -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0


def _pieces(buffer: Buffer, length: int, count: int) -> Iterator[bytes]:
    content = buffer.raw
    return (content[i : i + length] for i in range(0, count * length, length))
