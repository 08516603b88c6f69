"""Images built without a registry, kept as archives in the cache under a key of all that they are made from.

Debian's base system comes from debootstrap under the name that Dockerfiles say in FROM; what has a
Dockerfile is built by buildah in chroot isolation; pause and CoreDNS are one static program each.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from e2e.lab import archive, binaries, builder, packages, registries
from e2e.lab.builder import Image, build, digest, kept
from e2e.lab.command import run
from e2e.lab.errors import LabError
from e2e.lab.paths import CHECKOUT, PACKAGE, locked
from e2e.lab.progress import Progress

DEBIAN = "docker.io/library/debian:bookworm-slim"
DEBIAN_SUITE = "bookworm"
PAUSE = "registry.local/pause:3.10"
COREDNS = "registry.local/coredns:1.14.2"
BASE = "registry.local/base:1"
KUBE_PROXY = f"registry.local/kube-proxy:v{binaries.KUBERNETES}"
OPERATOR = "registry.local/handover-operator:dev"
AGENT = "registry.local/handover-agent:dev"

_UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
)


def debian(progress: Progress) -> Image:
    """Debian's minimal system, as Docker's slim image has it: without documentation and lists."""
    target = kept(DEBIAN, digest([DEBIAN_SUITE]))
    with locked("debian", lambda: progress.say("another command makes Debian's image: waiting for it")):
        if target.exists():
            return Image(DEBIAN, target)
        packages.ensure(packages.BUILDING_IMAGES, progress)
        with (
            progress.step(f"making the image {DEBIAN} by debootstrap"),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".debian-") as scratch,
        ):
            root = Path(scratch) / "root"
            bootstrap = [
                "debootstrap",
                "--variant=minbase",
                DEBIAN_SUITE,
                str(root),
                registries.debian_mirror(),
            ]
            run([*builder.PRIVATE, *bootstrap], timeout_s=1800)
            _slim(root)
            archive.write(target, DEBIAN, root, command=["bash"])
    return Image(DEBIAN, target)


def _slim(root: Path) -> None:
    """Remove what no container reads, and have packages that are installed later leave it out as well."""
    for unwanted in _UNWANTED:
        for child in (root / unwanted).glob("*"):
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
    excluded = "".join(f"path-exclude /{d}/*\n" for d in _UNWANTED if d.startswith("usr/share"))
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(excluded)
    for of_this_machine in ("etc/resolv.conf", "etc/hostname"):
        (root / of_this_machine).unlink(missing_ok=True)


def single(reference: str, program: str, progress: Progress) -> Image:
    """An image that holds one static program and starts it."""
    source = binaries.bin_dir() / program
    target = kept(reference, digest([reference, source]))
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".single-") as scratch:
            root = Path(scratch)
            root.chmod(0o755)
            shutil.copy2(source, root / program)
            progress.say(f"making the image {reference}")
            archive.write(target, reference, root, entrypoint=[f"/{program}"])
    return Image(reference, target)


def for_cluster(progress: Progress) -> list[Image]:
    """The images without which no lab comes up."""
    system = debian(progress)
    base = _with_programs(BASE, "base", ["agnhost"], {DEBIAN: system}, progress)
    proxy = _with_programs(KUBE_PROXY, "kube-proxy", ["kube-proxy"], {BASE: base}, progress)
    return [single(PAUSE, "pause", progress), single(COREDNS, "coredns", progress), base, proxy]


def _with_programs(
    reference: str, name: str, programs: Iterable[str], bases: Mapping[str, Image], progress: Progress
) -> Image:
    """An image defined below e2e/images, with programs out of the cache in its build context."""
    definition = PACKAGE.parent / "images" / name
    with tempfile.TemporaryDirectory(prefix=".context-", dir=kept("x", "").parent) as scratch:
        context = Path(scratch) / name
        shutil.copytree(definition, context)
        for program in programs:
            source = (binaries.bin_dir() / program).resolve()
            os.link(source, context / program)
        return build(reference, context / "Dockerfile", context, bases, progress)


def of_project(progress: Progress) -> list[Image]:
    """The operator's and the agent's images, from the Dockerfiles of the checkout."""
    bases = {DEBIAN: debian(progress)}
    built = []
    for reference, name in ((OPERATOR, "Dockerfile.operator"), (AGENT, "Dockerfile.agent")):
        dockerfile = CHECKOUT / name
        if not dockerfile.exists():
            raise LabError(f"{dockerfile} does not exist", "run this from a checkout of the project")
        built.append(build(reference, dockerfile, CHECKOUT, bases, progress))
    return built
