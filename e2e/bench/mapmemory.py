"""What the kernel says that pinned BPF maps take of its memory."""

import ctypes
import os
import struct
from pathlib import Path

from e2e.footprint.attached import bpf

_OBJ_GET = 7


def below(pins: Path) -> int:
    """Bytes of all maps pinned below a directory."""
    return sum(_bytes(path) for path in pins.rglob("*") if path.is_file())


def parse(fdinfo: str) -> int:
    """A map's bytes from its /proc/PID/fdinfo; 0 for what is no map (programs and links have no map_type). Pure."""
    fields = dict(line.split(":", 1) for line in fdinfo.splitlines() if ":" in line)
    return int(fields["memlock"]) if "map_type" in fields else 0


def _bytes(pin: Path) -> int:
    name = ctypes.create_string_buffer(os.fsencode(pin))
    descriptor = bpf(
        _OBJ_GET, ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0), 16)
    )
    try:
        return parse(Path(f"/proc/self/fdinfo/{descriptor}").read_text())
    finally:
        os.close(descriptor)
