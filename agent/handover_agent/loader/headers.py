"""The kernel headers that BCC compiles against: one merged tree.

Our programs use UAPI types only, so any version's headers do for any kernel: the agent's image carries one
tree, and no node needs headers. On Debian they come in two packages (-common and the flavour's) that refer to
each other by absolute paths; merged, they stand on their own. `python -m handover_agent.loader.headers
DIRECTORY` makes such a tree.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_IMAGE = Path("/usr/share/handover/kernel-headers")
_PACKAGES = Path("/usr/src")
_ARCHITECTURES = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "riscv64": "riscv",
    "ppc64le": "powerpc",
    "s390x": "s390",
}


class NoHeaders(Exception):
    """No tree of kernel headers, and nothing to make one from."""

    def __init__(self) -> None:
        super().__init__(
            f"no kernel headers to compile with: neither BCC_KERNEL_SOURCE nor {IN_IMAGE} is there, and "
            f"{_PACKAGES} has no linux-headers-*-common with a flavour next to it "
            "(on Debian: apt-get install linux-headers-amd64)"
        )


def find_headers() -> Path:
    """The merged tree: BCC_KERNEL_SOURCE, the image's, or the cache's, which is made when missing."""
    named = os.environ.get("BCC_KERNEL_SOURCE")
    for candidate in (Path(named) if named else None, IN_IMAGE):
        if candidate and (candidate / "include").is_dir():
            return candidate
    common, flavour = packages(_PACKAGES)
    tree = cache() / flavour.name.replace("linux-headers", "kernel-headers")
    if not tree.is_dir():
        merge(common, flavour, tree)
    return tree


def cache() -> Path:
    """Where who runs the agent outside of its image keeps what took time to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handover"


def packages(sources: Path) -> tuple[Path, Path]:
    """The newest installed pair of header packages, -common and flavour. Raises NoHeaders."""
    pairs = []
    for common in sources.glob("linux-headers-*-common"):
        prefix = common.name.removesuffix("common")
        pairs += [
            (common, flavour)
            for flavour in sources.glob(f"{prefix}*")
            if flavour != common and (flavour / "include/generated/autoconf.h").is_file()
        ]
    if not pairs:
        raise NoHeaders
    return max(pairs, key=lambda pair: [int(part) for part in _numbers(pair[1].name)])


def merge(common: Path, flavour: Path, tree: Path) -> None:
    """Make `tree` out of two packages: `include`, and this machine's `arch`. It appears whole, or not."""
    architecture = _ARCHITECTURES[platform.machine()]
    with appearing(tree) as building:
        for package in (common, flavour):
            for part in ("include", f"arch/{architecture}/include"):
                if (package / part).is_dir():
                    shutil.copytree(package / part, building / part, symlinks=True, dirs_exist_ok=True)


@contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Inside, a directory is filled that takes its place afterwards: it appears whole, or not. One that is there stays."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
        building = Path(scratch) / directory.name
        building.mkdir()
        yield building
        if not directory.exists():
            building.rename(directory)


def _numbers(name: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in name.partition("-headers-")[2]).split()


def main(arguments: list[str]) -> int:
    """Make a tree in the directory given."""
    parser = argparse.ArgumentParser(prog="python -m handover_agent.loader.headers", description=main.__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=IN_IMAGE)
    tree: Path = parser.parse_args(arguments).directory
    try:
        merge(*packages(_PACKAGES), tree)
    except NoHeaders as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
