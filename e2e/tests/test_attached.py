"""The kernel is asked right: a program that hangs on a cgroup is found there, by hook and name."""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.footprint import attached
from e2e.lab.cgroup import hierarchies

pytestmark = pytest.mark.datapath

_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_SKB, _EGRESS = 8, 1
_PASS = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 1; exit


@pytest.fixture
def cgroup() -> Iterator[Path]:
    directory = hierarchies().unified / f"handover-e2e-attached-{os.getpid()}"
    (directory / "below").mkdir(parents=True)
    yield directory
    (directory / "below").rmdir()
    directory.rmdir()


def test_a_program_on_a_cgroup_below_is_found_and_gone_with_it(cgroup: Path) -> None:
    assert list(attached.programs(cgroup)) == []
    code, text = ctypes.create_string_buffer(_PASS), ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "=IIQQIIQII16s",
        _CGROUP_SKB,
        2,
        ctypes.addressof(code),
        ctypes.addressof(text),
        0,
        0,
        0,
        0,
        0,
        b"e2e_pass",
    )
    program = attached.bpf(_PROG_LOAD, ctypes.create_string_buffer(load, 128))
    below = os.open(cgroup / "below", os.O_RDONLY)
    try:
        attached.bpf(
            _PROG_ATTACH, ctypes.create_string_buffer(struct.pack("=IIII", below, program, _EGRESS, 0), 32)
        )
        assert list(attached.programs(cgroup)) == [("/below", "egress", "e2e_pass")]
    finally:
        os.close(below)
        os.close(program)
