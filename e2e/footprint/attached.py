"""Which BPF programs are attached to cgroups, asked of the kernel directly.

It does not use the agent's own code: a check that shares its subject's mistakes would find nothing.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

_BPF = {"x86_64": 321, "aarch64": 280}  # the system call's number
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_MOST_PROGRAMS = 64

# enum bpf_attach_type, those of cgroups
_HOOKS = {
    0: "ingress",
    1: "egress",
    2: "sock_create",
    3: "sock_ops",
    6: "device",
    8: "bind4",
    9: "bind6",
    10: "connect4",
    11: "connect6",
    12: "post_bind4",
    13: "post_bind6",
    14: "sendmsg4",
    15: "sendmsg6",
    18: "sysctl",
    19: "recvmsg4",
    20: "recvmsg6",
    21: "getsockopt",
    22: "setsockopt",
    29: "getpeername4",
    30: "getpeername6",
    31: "getsockname4",
    32: "getsockname6",
    34: "sock_release",
}


def programs(root: Path) -> Iterator[tuple[str, str, str]]:
    """Cgroup (below root), hook and program's name of everything attached to root or below it."""
    for directory in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # a pod's, gone while we looked
        try:
            for hook, name in _HOOKS.items():
                for program in _query(descriptor, hook):
                    yield f"/{directory.relative_to(root)}".replace("/.", "/"), name, _name(program)
        finally:
            os.close(descriptor)


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """The system call. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = _BPF[platform.machine()]
    result = libc.syscall(number, command, ctypes.byref(attributes), len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def _query(cgroup: int, hook: int) -> list[int]:
    """The ids of the programs at one hook of one cgroup."""
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt (and what newer kernels add: zero)
    packed = struct.pack("=IIIIQI", cgroup, hook, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS)
    attributes = ctypes.create_string_buffer(packed, 64)
    try:
        bpf(_PROG_QUERY, attributes)
    except OSError as error:
        if error.errno == 22:  # a kernel without this hook
            return []
        raise
    (count,) = struct.unpack_from("=I", attributes.raw, 24)
    return list(ids[:count])


def _name(program: int) -> str:
    """The program's name, as its loader called it."""
    try:
        descriptor = bpf(_PROG_GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("=I", program), 16))
    except FileNotFoundError:
        return "(gone)"
    try:
        info = ctypes.create_string_buffer(256)
        packed = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
        bpf(_OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(packed, 16))
        return info.raw[64:80].rstrip(b"\0").decode()  # bpf_prog_info.name
    finally:
        os.close(descriptor)
