"""The machine that was measured on, and how much of it was busy with something else meanwhile."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from e2e.lab.cgroup import Subtree

_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, str]:
    """What makes figures of one machine unlike another's."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cores": str(os.cpu_count()),
        "processor": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "memory": f"{int(memory) / 1024**2:.0f} GiB",
        "kernel": platform.release(),
    }


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds of processor time that have been spent until a moment: by all, and by the lab and ourselves."""

    at: float
    all_s: float
    ours_s: float

    @classmethod
    def now(cls, lab: Subtree) -> Self:
        """As of now."""
        own = os.times()
        return cls(
            time.monotonic(),
            parse_stat(Path("/proc/stat").read_text()),
            parse_usage((lab.unified / "cpu.stat").read_text()) + own.user + own.system,
        )

    def others_since(self, before: "Busy") -> float:
        """Cores that others had on average since a moment before; processes of another lab, another test."""
        took = (self.all_s - before.all_s) - (self.ours_s - before.ours_s)
        return max(0.0, took / max(self.at - before.at, 0.01))


def parse_stat(text: str) -> float:
    """Busy seconds of all cores from /proc/stat: all but idle and waiting for disks. Pure."""
    fields = [int(field) for field in text.splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


def parse_usage(text: str) -> float:
    """Seconds from a cgroup's cpu.stat. Pure."""
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6
