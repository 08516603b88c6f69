"""Debian packages that the lab needs, installed by name when they are not there."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from e2e.lab.command import SEARCH, environment, run
from e2e.lab.errors import LabError
from e2e.lab.progress import Progress

# package -> a program of it, searched in the usual directories
RUNNING: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "iptables",
    "nftables": "nft",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "iproute2": "ip",
    "openssl": "openssl",
    "tini": "tini",
    "util-linux": "nsenter",
    "mount": "mount",
    "procps": "sysctl",
    "kmod": "modprobe",
}
BUILDING_IMAGES: Mapping[str, str] = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}


def find(program: str) -> str | None:
    """Where Debian has a program; what lies elsewhere on somebody's PATH is not on a node's."""
    if program.startswith("/"):
        return program if Path(program).exists() else None
    return shutil.which(program, path=SEARCH)


def missing(wanted: Mapping[str, str]) -> list[str]:
    """Packages whose program is not there."""
    return sorted(package for package, program in wanted.items() if find(program) is None)


def install(packages: Iterable[str], progress: Progress) -> None:
    """Install packages by name; a list of packages that is too old is renewed once."""
    names = list(packages)
    if not names:
        return
    if find("apt-get") is None:
        raise LabError(
            f"these packages are missing, and there is no apt-get: {' '.join(names)}", "use Debian 12 or 13"
        )
    argv = [
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=600",
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        *names,
    ]
    env = {**environment(), "DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"installing packages: {' '.join(names)}"):
        # In a session of its own: Ctrl-C must not leave dpkg half-way.
        shielded = ["setsid", "--wait", *argv]
        if run(shielded, env=env, timeout_s=1200, check=False).returncode != 0:
            run(["setsid", "--wait", "apt-get", "update", "-q"], env=env, timeout_s=600)
            run(shielded, env=env, timeout_s=1200)


def ensure(wanted: Mapping[str, str], progress: Progress) -> None:
    """Install what is missing, and refuse to go on when a program is still not there."""
    install(missing(wanted), progress)
    if still := missing(wanted):
        raise LabError(
            f"after installing, these programs are still missing: {', '.join(wanted[p] for p in still)}",
            f"look at `apt-get install {' '.join(still)}`",
        )
