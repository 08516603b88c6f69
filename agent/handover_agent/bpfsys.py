"""The bpf(2) system call, as thin and typed as it can be.

The agent lives as long as its node, and BCC costs 70 MB only to be imported: so the agent itself speaks to
the kernel by this module, and BCC is left to the compiler's child process. Nothing here knows what our maps
and programs mean.

Descriptors are wrapped in `Descriptor`, which closes at the end of its `with`. Every failure is a `BpfError`
that names the command and the object.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_ENOTSUPP = 524  # the kernel's own, not in errno
_ATTR_BYTES = 128
_LOG_BYTES = 4 << 20


class Command(IntEnum):
    """Commands of bpf(2) that we use (include/uapi/linux/bpf.h: enum bpf_cmd)."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_GET_INFO_BY_FD = 15
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class ProgramType(IntEnum):
    """enum bpf_prog_type."""

    SCHED_CLS = 3
    CGROUP_SOCK = 9
    CGROUP_SOCK_ADDR = 18


class DatapathError(Exception):
    """Everything that the datapath refuses or fails at, in a message for the person who reads the status."""


class BpfError(DatapathError, OSError):
    """The kernel refused a bpf(2) command: what was tried, on what, and its reason."""

    def __init__(self, number: int, tried: str, log: str = "") -> None:
        reason = "not supported" if number == _ENOTSUPP else os.strerror(number)
        advice = (
            "; the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and before Linux 5.11 room for its maps in "
            "locked memory (ulimit -l)"
            if number == errno.EPERM
            else ""
        )
        super().__init__(number, f"{tried}: {reason}{advice}" + (f"\n{log}" if log else ""))
        self.tried, self.log = tried, log

    def __str__(self) -> str:
        return str(self.strerror)


class Descriptor:
    """An open BPF object (or cgroup directory); closed at the end of its `with`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; pinned objects live on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says about a cgroup link; `cgroup_id` is 0 when it no longer is attached."""

    program_id: int
    cgroup_id: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """What the kernel says about a tcx link; `index` is 0 when its device is gone."""

    program_id: int
    index: int
    attach_type: int


def bpf(command: Command, attr: ctypes.Array[ctypes.c_char], tried: str) -> int:
    result, number = call(command, attr)
    if result < 0:
        raise BpfError(number, f"bpf({command.name}) on {tried}")
    return result


def call(command: Command, attr: ctypes.Array[ctypes.c_char]) -> tuple[int, int]:
    while True:
        result = _LIBC.syscall(
            ctypes.c_long(_SYSCALL_NUMBER[platform.machine()]),
            ctypes.c_int(command),
            ctypes.byref(attr),
            ctypes.c_uint(len(attr)),
        )
        number = ctypes.get_errno()
        if result >= 0 or number not in (errno.EINTR, errno.EAGAIN):
            return int(result), number


def attributes(layout: str, *fields: int | bytes) -> ctypes.Array[ctypes.c_char]:
    attr = ctypes.create_string_buffer(_ATTR_BYTES)
    struct.pack_into("=" + layout, attr, 0, *fields)
    return attr


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, max(len(content), 1))


def program_id(fd: int) -> int:
    """The kernel's id of an open program."""
    return int(struct.unpack_from("=II", object_info(fd, 8))[1])


def link_info(fd: int) -> LinkInfo:
    """Program and cgroup of an open cgroup link."""
    # type, id, program id, (padding), then the cgroup's: id, attach type
    _, _, program, cgroup, attach_type = struct.unpack_from("=III4xQI", object_info(fd, 32))
    return LinkInfo(program, cgroup, attach_type)


def device_link_info(fd: int) -> DeviceLink:
    """Program and device of an open tcx link."""
    _, _, program, index, attach_type = struct.unpack_from("=III4xII", object_info(fd, 32))
    return DeviceLink(program, index, attach_type)


def object_info(fd: int, length: int) -> bytes:
    info = ctypes.create_string_buffer(length)
    bpf(Command.OBJ_GET_INFO_BY_FD, attributes("IIQ", fd, length, address(info)), f"descriptor {fd}")
    return info.raw


def program_load(
    kind: ProgramType,
    attach_type: int,
    instructions: bytes,
    name: str,
    log: bool = True,
) -> Descriptor:
    """Hand a program to the verifier. A refusal carries the end of the verifier's log."""
    code, licence = buffer(instructions), buffer(b"GPL\0")
    attr = attributes(
        "IIQQIIQII16sII",
        *(kind, len(instructions) // 8, address(code), address(licence), 0, 0, 0, 0, 0),
        *(name.encode()[:15], 0, attach_type),
    )
    result, number = call(Command.PROG_LOAD, attr)
    if result >= 0:
        return Descriptor(result)
    text = ""
    if log:  # a second time, with a log: it costs memory that a good program does not need
        said = ctypes.create_string_buffer(_LOG_BYTES)
        struct.pack_into("=IIQ", attr, 24, 1, len(said), address(said))
        result, number = call(Command.PROG_LOAD, attr)
        if result >= 0:
            return Descriptor(result)
        text = said.value.decode(errors="replace")[-4000:]
    raise BpfError(number, f"bpf(PROG_LOAD) on program {name}", text)


def pin(fd: int, path: Path) -> None:
    """Give an object a name in a bpffs; it then outlives every process. BpfError when it is taken."""
    name = buffer(bytes(path) + b"\0")
    bpf(Command.OBJ_PIN, attributes("QI", address(name), fd), str(path))


def obj_get(path: Path) -> Descriptor:
    """Open a pinned object. Raises FileNotFoundError when there is none."""
    name = buffer(bytes(path) + b"\0")
    result, number = call(Command.OBJ_GET, attributes("QI", address(name), 0))
    if result < 0 and number == errno.ENOENT:
        raise FileNotFoundError(number, "no such pinned object", str(path))
    if result < 0:
        raise BpfError(number, f"bpf(OBJ_GET) on {path}")
    return Descriptor(result)


def link_create(program_fd: int, target: int, attach_type: int, tried: str) -> Descriptor:
    """Attach a program by a link, next to whatever else is attached there.

    `target`: the descriptor of a cgroup, or the index of a device, depending on the attach type.
    """
    return Descriptor(bpf(Command.LINK_CREATE, attributes("III", program_fd, target, attach_type), tried))


def link_update(link_fd: int, program_fd: int, tried: str) -> None:
    """Swap the program of a link, atomically."""
    bpf(Command.LINK_UPDATE, attributes("II", link_fd, program_fd), tried)


def link_detach(link_fd: int, tried: str) -> None:
    """Detach a link's program now, not when its last reference goes."""
    bpf(Command.LINK_DETACH, attributes("I", link_fd), tried)
