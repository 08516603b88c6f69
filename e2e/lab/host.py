"""What this machine must be for a lab to run on it, checked before anything is changed."""

import os
import platform
import re
from pathlib import Path

from e2e.lab import cgroup
from e2e.lab.command import run
from e2e.lab.errors import LabError
from e2e.lab.packages import find

# Debian 12's: the oldest that the lab is meant for.
OLDEST_KERNEL = (6, 1)
MODULES = (
    "overlay",
    "br_netfilter",
    "nf_conntrack",
    "nf_tables",
    "ip_tables",
    "ip6_tables",
    "veth",
    "bridge",
)


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of a kernel's release."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise LabError(f"the kernel's release {release!r} cannot be read")
    return int(match[1]), int(match[2])


def check_kernel(release: str) -> None:
    """Refuse a kernel that is too old."""
    if (found := kernel_version(release)) < OLDEST_KERNEL:
        wanted = ".".join(map(str, OLDEST_KERNEL))
        raise LabError(
            f"this kernel is {release}; the lab needs {wanted} or newer",
            f"boot a newer one: Debian 12 has 6.1, Debian 13 has 6.12 (found {found[0]}.{found[1]})",
        )


def check_root() -> None:
    """Refuse to start without root."""
    if os.geteuid() != 0:
        raise LabError(
            "the lab makes namespaces, mounts and cgroups, which needs root", "run it with sudo, or as root"
        )


def check() -> None:
    """Refuse a machine that cannot run a lab, with the reason."""
    check_root()
    check_kernel(platform.release())
    cgroup.hierarchies()


def check_features() -> None:
    """Load the kernel modules that exist as modules, then see that what nodes need is there."""
    if find("modprobe"):
        # A kernel that has them built in knows no such modules: what counts is looked at below.
        run(["modprobe", "-a", "-q", *MODULES], check=False)
    filesystems = Path("/proc/filesystems").read_text().split()
    for wanted, why in (("overlay", "containerd's images"), ("bpf", "pinned programs")):
        if wanted not in filesystems:
            raise LabError(
                f"this kernel has no {wanted} file system, which {why} need", "use a Debian kernel"
            )
    for argv in (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        done = run(["unshare", "--net", *argv], check=False)
        if done.returncode != 0:
            raise LabError(f"`{' '.join(argv)}` does not work on this kernel: {done.stderr.strip()}")
    if not Path("/proc/sys/net/bridge").exists():
        raise LabError(
            "bridged packets would not pass the nodes' rules: br_netfilter is missing", "load the module"
        )
