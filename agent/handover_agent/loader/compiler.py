"""C to BPF instructions, by BCC. The only module that imports it.

BCC serves as a compiler alone: our maps are made by the agent (so that they outlive programs and versions),
and an instruction that wants a map's address carries the map's number, which `with_maps` replaces by a
descriptor.
"""

import os
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from handover_agent.hooks import HOOKS

_LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, the only instruction of 16 bytes
_PSEUDO_MAP_FD = 1
_INSTRUCTION = struct.Struct("=BBhi")
SOCKET_PROGRAMS = tuple(hook.name for hook in HOOKS)


class CompileError(Exception):
    """The C sources do not compile with these headers; the compiler's own words are on stderr."""


def compile_programs(
    headers: Path,
    defines: Sequence[str],
    source: str = "socket.c",
    programs: Sequence[str] = SOCKET_PROGRAMS,
) -> dict[str, bytes]:
    """Program of `source` → its instructions, maps as numbers. `headers`: a merged tree of kernel headers."""
    os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    from bcc import BPF  # noqa: PLC0415 - costs 70 MB, and reads the environment

    with resources.as_file(resources.files("handover_agent").joinpath("bpf")) as sources:
        # Nobody reads the debugging information that BCC asks for; it is a quarter of the compiler's work.
        flags = [f"-I{sources}", "-DHANDOVER_BCC", "-Wall", "-g0", *(f"-D{name}" for name in defines)]
        try:
            module = BPF(src_file=str(sources / source), cflags=flags)
        except Exception as error:  # BCC raises bare Exceptions
            raise CompileError(
                f"BCC cannot compile {sources / source} with headers {headers}: {error}"
            ) from error
    return {name: module.dump_func(name.encode()) for name in programs}


def with_maps(code: bytes, descriptors: Sequence[int]) -> bytes:
    """The instructions with each map's number replaced by its descriptor; IndexError on an unknown number."""
    patched, position = bytearray(code), 0
    while position < len(code):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, position)
        if opcode == _LOAD_64 and registers >> 4 == _PSEUDO_MAP_FD:
            _INSTRUCTION.pack_into(patched, position, opcode, registers, offset, descriptors[immediate])
        position += 2 * _INSTRUCTION.size if opcode == _LOAD_64 else _INSTRUCTION.size
    return bytes(patched)
