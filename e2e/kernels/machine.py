"""A machine by QEMU's TCG: no KVM, so it runs wherever the tests do; one processor's time is worth a tenth.

Without `-cx16` QEMU 7.2 corrupts such guests at random. QEMU ends with status 0 even when the guest panics, so that
only what the guest says on its serial line counts.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from e2e.lab.errors import LabError

_ACCELERATOR = "tcg,thread=multi,tb-size=512"
_CPU = "max,-cx16"
_APPEND = "console=ttyS0 panic=-1 mitigations=off quiet"
_TAIL = 40


def boot(kernel: Path, archives: list[Path], until: str, *, memory_mib: int, within_s: float) -> list[str]:
    """Boot, wait until the guest says `until`, and return all that it said. Raises LabError."""
    with tempfile.TemporaryDirectory(dir=archives[0].parent, prefix=".machine-") as scratch:
        initrd, serial = Path(scratch) / "initrd", Path(scratch) / "serial"
        with initrd.open("wb") as out:
            for archive in archives:
                with archive.open("rb") as part:
                    shutil.copyfileobj(part, out)
        argv = ["nice", "-n", "19", *_qemu(kernel, initrd, serial, memory_mib)]
        began = time.monotonic()
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=within_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"the machine did not end within {within_s:.0f} s; it said last:\n{_tail(serial)}",
                "look at its last words; a loaded machine needs more time (--within)",
            ) from error
        said = _lines(serial)
        if done.returncode or until not in said:
            after = f"after {time.monotonic() - began:.0f} s"
            raise LabError(
                f"the machine ended {after} and never said {until}; QEMU: {done.stderr.strip() or 'nothing'}; "
                f"it said last:\n{_tail(serial)}"
            )
        return said


def _qemu(kernel: Path, initrd: Path, serial: Path, memory_mib: int) -> list[str]:
    fixed = ["-machine", "q35", "-accel", _ACCELERATOR, "-cpu", _CPU, "-smp", "2"]
    fixed += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    return [
        "qemu-system-x86_64",
        *fixed,
        *("-m", str(memory_mib), "-serial", f"file:{serial}"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", _APPEND),
    ]


def _lines(serial: Path) -> list[str]:
    if not serial.exists():
        return []
    return [line.strip() for line in serial.read_text(errors="replace").splitlines()]


def _tail(serial: Path) -> str:
    return "\n".join(_lines(serial)[-_TAIL:])
