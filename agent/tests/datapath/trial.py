"""Runs a packet path program on one packet (BPF_PROG_TEST_RUN): what becomes of it, to the bit."""

import ctypes
import struct
from dataclasses import dataclass
from pathlib import Path

from handover_agent import bpfsys
from handover_agent.bpfsys import BpfError
from handover_agent.marks import Mark
from tests.datapath.frames import ethernet

GO_ON, SHOT, REDIRECT = -1, 2, 7
_TEST_RUN = 10  # enum bpf_cmd
_CONTEXT_BYTES = 192  # struct __sk_buff
_MARK_AT = 8
_OUT_BYTES = 70_000
# union bpf_attr, struct test
_LAYOUT = "IIIIQQIIIIQQ"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program made of a packet."""

    verdict: int
    packet: bytes  # without its Ethernet header
    mark: Mark


class Trial:
    """The pinned programs of a directory."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs

    def __call__(self, program: str, packet: bytes, mark: int = 0) -> Outcome:
        """Run on an IP packet in an Ethernet frame."""
        frame = ethernet(packet)
        verdict, out, marked = self.run(program, frame, mark)
        assert out[:14] == frame[:14]
        return Outcome(verdict, out[14:], marked)

    def run(self, program: str, frame: bytes, mark: int = 0, flags: int = 0) -> tuple[int, bytes, Mark]:
        """Run on a frame as it is. Raises BpfError."""
        given = ctypes.create_string_buffer(frame, len(frame))
        out = ctypes.create_string_buffer(_OUT_BYTES)
        context = ctypes.create_string_buffer(_CONTEXT_BYTES)
        struct.pack_into("=I", context, _MARK_AT, mark)
        context_out = ctypes.create_string_buffer(_CONTEXT_BYTES)
        with bpfsys.obj_get(self._programs / program) as opened:
            attr = bpfsys.attributes(
                _LAYOUT + "III",
                *(opened.fd, 0, len(frame), len(out), bpfsys.address(given), bpfsys.address(out), 1, 0),
                *(_CONTEXT_BYTES, _CONTEXT_BYTES, bpfsys.address(context), bpfsys.address(context_out)),
                *(flags, 0, 0),
            )
            result, number = bpfsys.call(_TEST_RUN, attr)  # type: ignore[arg-type]
            if result < 0:
                raise BpfError(number, f"a trial of {program} with {len(frame)} bytes")
        verdict, _, size = struct.unpack_from("=iII", attr, 4)
        (marked,) = struct.unpack_from("=I", context_out, _MARK_AT)
        return verdict, out.raw[:size], Mark(marked)
