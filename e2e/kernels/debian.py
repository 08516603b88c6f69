"""The kernel of a Debian suite, fetched and unpacked by apt's own tools; nothing of it is installed.

apt gets directories of its own, so that a suite which this machine does not use never meets its packages.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import registries
from e2e.lab.command import output, run
from e2e.lab.errors import LabError
from e2e.lab.paths import cache_dir

PACKAGE = "linux-image-cloud-amd64"
SUITES = {"6.1": "bookworm", "6.12": "trixie", "5.10": "bullseye"}
"""The stock kernel of each release, by its series; 5.10 is the oldest that has what the datapath needs."""
STABLE = ("6.1", "6.12")
"""Those that are tried when nobody asks for others."""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NAME = re.compile(r"^\s*Depends: (linux-image-\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package."""

    release: str
    """As `uname -r` says it."""
    package: str
    """Name and version."""
    image: Path
    modules: Path
    """The directory with modules.dep."""


def fetch(series: str) -> Kernel:
    """The newest kernel of a series in its suite. Raises LabError."""
    suite = SUITES[series]
    root = cache_dir() / "kernels" / suite
    apt = _apt(root, suite)
    run([*apt, "update", "-q"], timeout_s=600)
    listing = output(["apt-cache", *apt[1:], "depends", PACKAGE])
    found = _NAME.search(listing)
    if found is None:
        raise LabError(
            f"{PACKAGE} of {suite} names no kernel: {listing}", "look at the suite's package by hand"
        )
    name = found[1]
    version = re.search(r"^Version: (\S+)$", output(["apt-cache", *apt[1:], "show", name]), re.MULTILINE)
    unpacked = root / f"{name}_{version[1] if version else ''}".replace(":", "%")
    if not unpacked.is_dir():
        for old in root.glob("*.deb"):
            old.unlink()
        run([*apt, "download", "-q", name], timeout_s=1200, cwd=root)
        (package,) = root.glob("*.deb")
        fresh = root / ".unpacking"
        run(["rm", "-rf", str(fresh)])
        run(["dpkg", "-x", str(package), str(fresh)], timeout_s=300)
        package.unlink()
        fresh.rename(unpacked)
    return _kernel(unpacked, f"{name} {version[1] if version else ''}".strip())


def _kernel(unpacked: Path, package: str) -> Kernel:
    (image,) = unpacked.glob("boot/vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    if not (unpacked / "lib").exists():  # since trixie, only /usr/lib is in a package
        (unpacked / "lib").symlink_to("usr/lib")
    modules = unpacked / "lib/modules" / release
    if not (modules / "modules.dep").exists():
        run(["depmod", "-b", str(unpacked), release], timeout_s=300)
    return Kernel(release, package, image, modules)


def _apt(root: Path, suite: str) -> list[str]:
    """apt-get with lists and sources of its own."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (root / part).mkdir(parents=True, exist_ok=True)
    sources = root / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {registries.debian_mirror()} {suite} main\n")
    settings = {
        "Dir::State": root / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": root / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    return ["apt-get", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
