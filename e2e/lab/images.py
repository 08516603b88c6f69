"""Images built without a registry, kept as archives in the cache under a key of all that they are made from.

Debian's base system comes from debootstrap under the name that Dockerfiles say in FROM; what has a
Dockerfile is built by buildah in chroot isolation; pause and CoreDNS are one static program each.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import archive, binaries, packages, registries
from e2e.lab.command import run
from e2e.lab.errors import LabError
from e2e.lab.paths import CHECKOUT, PACKAGE, cache_dir
from e2e.lab.progress import Progress

DEBIAN = "docker.io/library/debian:bookworm-slim"
DEBIAN_SUITE = "bookworm"
PAUSE = "registry.local/pause:3.10"
COREDNS = "registry.local/coredns:1.14.2"
BASE = "registry.local/base:1"
KUBE_PROXY = f"registry.local/kube-proxy:v{binaries.KUBERNETES}"
OPERATOR = "registry.local/handover-operator:dev"
AGENT = "registry.local/handover-agent:dev"

# Builders mount things and start programs; when one is killed, these namespaces take all that along.
PRIVATE = (
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip
RECIPE = "1"  # counted up when this module makes something else out of the same inputs
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


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is there: its reference and its archive."""

    reference: str
    archive: Path


def digest(parts: Iterable[bytes | str | Path]) -> str:
    """A short key of texts and of files, directories with all that is below them."""
    total = hashlib.sha256(RECIPE.encode())
    for part in parts:
        if isinstance(part, Path):
            for file in _files(part):
                total.update(f"\0{file.relative_to(part.parent)}\0{file.stat().st_mode & 0o111:o}\0".encode())
                with file.open("rb") as opened:
                    total.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            total.update(b"\0" + (part.encode() if isinstance(part, str) else part))
    return total.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    ignored = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    return sorted(
        f for f in path.rglob("*") if f.is_file() and not ignored & set(f.parts) and f.suffix != ".pyc"
    )


def dockerfile_inputs(text: str) -> tuple[list[str], list[str]]:
    """What a Dockerfile is made from: the images in FROM, and the paths that COPY and ADD take from the
    context.
    """
    joined = re.sub(r"\\\n", " ", text)
    bases: list[str] = []
    stages: set[str] = set()
    copied: list[str] = []
    for line in joined.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].upper() == "FROM":
            arguments = [w for w in words[1:] if not w.startswith("--")]
            if arguments[0] not in stages and arguments[0] != "scratch":
                bases.append(arguments[0])
            if len(arguments) == 3:
                stages.add(arguments[2])
        elif words[0].upper() in {"COPY", "ADD"}:
            if any(w.startswith("--from=") for w in words):
                continue
            copied += [w for w in words[1:-1] if not w.startswith("--")]
    return bases, copied


def _slug(reference: str) -> str:
    return reference.rpartition("/")[2].replace(":", "-")


def _kept(reference: str, key: str) -> Path:
    directory = cache_dir() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{_slug(reference)}-{key}.tar"


def debian(progress: Progress) -> Image:
    """Debian's minimal system, as Docker's slim image has it: without documentation and lists."""
    target = _kept(DEBIAN, digest([DEBIAN_SUITE]))
    if target.exists():
        return Image(DEBIAN, target)
    packages.ensure(packages.BUILDING_IMAGES, progress)
    with (
        progress.step(f"making the image {DEBIAN} by debootstrap"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".debian-") as scratch,
    ):
        root = Path(scratch) / "root"
        mirror = registries.debian_mirror()
        run([*PRIVATE, "debootstrap", "--variant=minbase", DEBIAN_SUITE, str(root), mirror], timeout_s=1200)
        for unwanted in _UNWANTED:
            directory = root / unwanted
            if directory.is_dir():
                for child in directory.iterdir():
                    if child.is_dir() and not child.is_symlink():
                        shutil.rmtree(child)
                    else:
                        child.unlink()
        excluded = "".join(f"path-exclude /{d}/*\n" for d in _UNWANTED if d.startswith("usr/share"))
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(excluded)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/hostname").unlink(missing_ok=True)
        archive.write(target, DEBIAN, root, command=["bash"])
    return Image(DEBIAN, target)


def single(reference: str, program: str, progress: Progress) -> Image:
    """An image that holds one static program and starts it."""
    source = binaries.bin_dir() / program
    target = _kept(reference, digest([reference, source]))
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".single-") as scratch:
            root = Path(scratch)
            root.chmod(0o755)
            shutil.copy2(source, root / program)
            progress.say(f"making the image {reference}")
            archive.write(target, reference, root, entrypoint=[f"/{program}"])
    return Image(reference, target)


def build(
    reference: str,
    dockerfile: Path,
    context: Path,
    bases: Mapping[str, Image],
    progress: Progress,
) -> Image:
    """Build a Dockerfile unless the archive for the same inputs is there."""
    text = dockerfile.read_text()
    needed, copied = dockerfile_inputs(text)
    if unknown := [b for b in needed if b not in bases]:
        raise LabError(f"{dockerfile} builds on {', '.join(unknown)}", f"the lab has {', '.join(bases)}")
    sources: list[bytes | str | Path] = []
    for pattern in copied:
        matches = (
            sorted(context.glob(pattern.removeprefix("./").rstrip("/"))) if pattern != "." else [context]
        )
        if not matches:
            raise LabError(f"{dockerfile} copies {pattern}, which is not in {context}")
        sources += matches
    target = _kept(reference, digest([reference, text, *(bases[b].archive.name for b in needed), *sources]))
    if target.exists():
        return Image(reference, target)
    packages.ensure(packages.BUILDING_IMAGES, progress)
    with (
        progress.step(f"building the image {reference}"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch,
    ):
        _buildah(
            reference=reference,
            dockerfile=dockerfile,
            context=context,
            bases=[bases[b] for b in needed],
            scratch=Path(scratch),
            target=target,
        )
    return Image(reference, target)


def _buildah(
    *, reference: str, dockerfile: Path, context: Path, bases: Iterable[Image], scratch: Path, target: Path
) -> None:
    # Storage of its own that is thrown away: the archive is the cache, and an interrupted build leaves
    # nothing.
    buildah = [
        *PRIVATE,
        "buildah", "--storage-driver", "overlay",
        "--root", str(scratch / "storage"), "--runroot", str(scratch / "run"),
    ]  # fmt: skip
    env = {**os.environ, "TMPDIR": str(scratch), "BUILDAH_ISOLATION": "chroot"}
    policy = scratch / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for base in bases:
        run(
            [*buildah, "pull", "-q", "--signature-policy", str(policy), f"docker-archive:{base.archive}"],
            env=env,
            timeout_s=600,
        )
    loan = registries.lend(scratch / "lent")
    run(
        [
            *buildah, "bud", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers=false",
            "--format", "docker", "--signature-policy", str(policy), *loan.arguments(),
            "-t", reference, "-f", str(dockerfile), str(context),
        ],
        env=env,
        timeout_s=1800,
    )  # fmt: skip
    finished = scratch / "image.tar"
    pushed = f"docker-archive:{finished}:{reference}"
    run(
        [*buildah, "push", "-q", "--signature-policy", str(policy), reference, pushed], env=env, timeout_s=600
    )
    finished.rename(target)


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
    with tempfile.TemporaryDirectory(prefix=".context-", dir=_kept("x", "").parent) as scratch:
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
