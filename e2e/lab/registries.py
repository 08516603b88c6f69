"""This machine's way to Debian's and Python's packages, lent to image builds and never left in an image.

A machine may reach packages through a proxy, a mirror or an authority of its own. Builds get that as files
mounted for the length of each RUN: apt's Acquire settings, pip's settings, certificates, credentials.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.command import output, run

LENT = "/run/handover-build"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
_PIP_LINE = re.compile(r"^(?P<section>[^.]+)\.(?P<key>[^=]+)=(?P<value>.*)$")
# Settings that speak of the machine, not of how to reach packages.
_NOT_LENT = {"require-virtualenv", "user", "target", "prefix", "root", "cache-dir", "break-system-packages"}


@dataclass(frozen=True, slots=True)
class Loan:
    """Mounts for a build: (path on this machine, path in the build)."""

    mounts: tuple[tuple[str, str], ...]

    def arguments(self) -> list[str]:
        """As buildah's options."""
        return [part for source, target in self.mounts for part in ("--volume", f"{source}:{target}:ro")]


def pip_settings(listing: str) -> dict[str, str]:
    """pip's effective settings for downloads, from `pip config list`; the environment outranks files."""
    ranked: dict[str, tuple[int, str]] = {}
    ranks = {"global": 0, "install": 1, "download": 1, ":env:": 2}
    for line in listing.splitlines():
        match = _PIP_LINE.match(line.strip())
        if match is None or match["section"] not in ranks:
            continue
        key, rank = match["key"].strip(), ranks[match["section"]]
        if key in _NOT_LENT or (key in ranked and ranked[key][0] > rank):
            continue
        ranked[key] = (rank, str(ast.literal_eval(match["value"])))
    return {key: value for key, (_, value) in sorted(ranked.items())}


def mirrors(sources: Iterable[str]) -> list[str]:
    """The addresses in apt's source files, of either form, in order."""
    found: list[str] = []
    for text in sources:
        for line in text.splitlines():
            if line.startswith("URIs:"):
                found += line.split()[1:]
            elif match := re.match(r"deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s", line):
                found.append(match[1])
    return found


def debian_mirror(root: Path = Path("/etc/apt")) -> str:
    """The mirror that this machine itself installs Debian from."""
    directory = root / "sources.list.d"
    files = [root / "sources.list", *sorted(directory.glob("*.list")), *sorted(directory.glob("*.sources"))]
    for address in mirrors(f.read_text() for f in files if f.exists()):
        if address.rstrip("/").endswith("/debian") and address.startswith("http"):
            return address
    return DEFAULT_MIRROR


def lend(directory: Path, environment: Mapping[str, str] = os.environ) -> Loan:
    """Write what builds need to reach packages below `directory` and say how to mount it."""
    directory.mkdir(parents=True, exist_ok=True)
    mounts: list[tuple[str, str]] = []

    def path_in_build(value: str) -> str:
        if not value.startswith("/") or not Path(value).exists():
            return value
        target = f"{LENT}/{len(mounts)}"
        mounts.append((value, target))
        return target

    listing = run([sys.executable, "-m", "pip", "config", "list"], check=False, env=dict(environment)).stdout
    settings = pip_settings(listing)
    lines = [
        f"{key} = {' '.join(path_in_build(part) for part in value.split())}"
        for key, value in settings.items()
    ]
    (directory / "pip.conf").write_text("\n".join(["[global]", *lines]) + "\n")
    mounts.append((str(directory / "pip.conf"), "/etc/pip.conf"))
    (directory / "apt.conf").write_text(apt_settings(output(["apt-config", "dump"]), path_in_build))
    mounts.append((str(directory / "apt.conf"), "/etc/apt/apt.conf.d/95handover-build"))
    for source, target in ((Path.home() / ".netrc", "/root/.netrc"),):
        if source.exists():
            mounts.append((str(source), target))
    for source in sorted(Path("/etc/apt/auth.conf.d").glob("*.conf")):
        mounts.append((str(source), f"/etc/apt/auth.conf.d/{source.name}"))
    return Loan(tuple(mounts))


def apt_settings(dump: str, path_in_build: Callable[[str], str]) -> str:
    """Of `apt-config dump`, what says how to reach archives, with files by their path in the build."""
    kept = []
    for line in dump.splitlines():
        match = re.match(r'^(Acquire::[Hh]ttps?(?:::\S+)?) "(.*)";$', line)
        if match and match[2]:
            kept.append(f'{match[1]} "{path_in_build(match[2])}";')
    return "\n".join(kept) + "\n"
