"""What compiled instructions leave open, filled in: maps, and what the kernel can do. Pure.

Our maps are made by the agent (so that they outlive programs and versions), and what a kernel can do is found where the
programs are loaded. So an instruction that wants either carries its number (bpf/kernel.h: filled_in).
"""

import struct
from collections.abc import Sequence

_LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, the only instruction of 16 bytes
_MAP, _ABILITY = 1, 15  # the kernel's BPF_PSEUDO_MAP_FD, and one that it does not have
_INSTRUCTION = struct.Struct("=BBhi")
_WHOLE, _HALVES = (
    struct.Struct("<Q"),
    struct.Struct("<ii"),
)  # the low one is in the first half of the instruction


def filled_in(code: bytes, descriptors: Sequence[int], abilities: Sequence[int]) -> bytes:
    """The instructions, with each map's descriptor and each ability's value for its number. Raises IndexError when
    there is no such number.
    """
    filled, position = bytearray(code), 0
    while position < len(code):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, position)
        kind, register = divmod(registers, 16)
        if opcode == _LOAD_64 and kind == _MAP:
            _INSTRUCTION.pack_into(filled, position, opcode, registers, offset, descriptors[immediate])
        elif opcode == _LOAD_64 and kind == _ABILITY:
            low, high = _HALVES.unpack(_WHOLE.pack(abilities[immediate]))
            _INSTRUCTION.pack_into(filled, position, opcode, register, offset, low)
            _INSTRUCTION.pack_into(filled, position + _INSTRUCTION.size, 0, 0, 0, high)
        position += 2 * _INSTRUCTION.size if opcode == _LOAD_64 else _INSTRUCTION.size
    return bytes(filled)
