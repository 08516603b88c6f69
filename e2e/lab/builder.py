"""Dockerfiles built without a registry: by buildah, in chroot isolation, from base images that are archives.

An archive is kept under a key of all that it was made from, so building again is a look-up. Below that,
buildah's own layers are kept: a change of one source file does not install packages again.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import packages, registries
from e2e.lab.command import environment, output, run
from e2e.lab.errors import LabError
from e2e.lab.paths import cache_dir, locked, shared, sweep
from e2e.lab.progress import Progress

RECIPE = "2"  # counted up when the lab makes something else out of the same inputs
# Builders mount things and start programs; when one is killed, these namespaces take all that along.
PRIVATE = (
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip
KEPT_ARCHIVES = 3
KEPT_LAYERS = 300


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


def kept(reference: str, key: str) -> Path:
    """Where the archive of an image with that key is, or will be."""
    directory = cache_dir() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{_slug(reference)}-{key}.tar"


def _slug(reference: str) -> str:
    return reference.rpartition("/")[2].replace(":", "-")


def forget_old(archive: Path) -> None:
    """Keep the newest archives of an image; one that somebody may just be loading stays."""
    stem = archive.stem.rpartition("-")[0]
    others = sorted(
        archive.parent.glob(f"{stem}-{'?' * 16}.tar"), key=lambda f: f.stat().st_mtime, reverse=True
    )
    for old in others[KEPT_ARCHIVES:]:
        if old.stat().st_mtime < time.time() - 300:
            old.unlink(missing_ok=True)


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
    target = kept(reference, digest([reference, text, *(bases[b].archive.name for b in needed), *sources]))
    waiting = f"another command builds {reference}: waiting for it"
    with locked(f"image-{_slug(reference)}", lambda: progress.say(waiting)):
        if target.exists():
            os.utime(target)
            return Image(reference, target)
        packages.ensure(packages.BUILDING_IMAGES, progress)
        sweep(target.parent)
        with (
            progress.step(f"building the image {reference}"),
            tempfile.TemporaryDirectory(
                dir=target.parent, prefix=".build-", ignore_cleanup_errors=True
            ) as scratch,
        ):
            buildah = Buildah(Path(scratch))
            with shared("layers", alone=buildah.tidy):
                for needs in dict.fromkeys(needed):
                    buildah.pull(bases[needs])
                buildah.build(reference, dockerfile, context)
                buildah.push(reference, Path(scratch) / "image.tar")
            (Path(scratch) / "image.tar").rename(target)
        forget_old(target)
    return Image(reference, target)


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah(1) with a store of its own in the cache; what is mounted and running is in `scratch` alone."""

    scratch: Path

    @property
    def store(self) -> Path:
        """Layers and images."""
        return cache_dir() / "layers"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command up to buildah's own command."""
        places = ("--root", str(self.store), "--runroot", str(self.scratch / "run"))
        return (*PRIVATE, "buildah", "--storage-driver", "overlay", *places)

    def tidy(self) -> None:
        """Remove what an interrupted build left, and start afresh when there are very many layers."""
        if not self.store.exists():
            return
        ids = output([*self.prefix, "images", "--all", "--quiet"], timeout_s=60).split()
        if len(set(ids)) > KEPT_LAYERS:
            shutil.rmtree(self.store)
        else:
            run([*self.prefix, "rm", "--all"], timeout_s=120)

    def pull(self, base: Image) -> None:
        """Have a base image in the store, by the name that FROM says."""
        mark = f"localhost/kept/{base.archive.stem.lower()}:1"
        if run([*self.prefix, "inspect", "--type", "image", mark], check=False).returncode == 0:
            run([*self.prefix, "tag", mark, base.reference])
            return
        source = f"docker-archive:{base.archive}"
        run([*self.prefix, "pull", "-q", "--signature-policy", self._policy(), source], timeout_s=600)
        run([*self.prefix, "tag", base.reference, mark])

    def build(self, reference: str, dockerfile: Path, context: Path) -> None:
        """Build a Dockerfile; its RUNs have this machine's way to packages, which does not stay in
        the image.
        """
        loan = registries.lend(self.scratch / "lent")
        how: Sequence[str] = ("--isolation", "chroot", "--network", "host", "--pull-never", "--layers")
        what = ("--format", "docker", "-t", reference, "-f", str(dockerfile), str(context))
        run(
            [*self.prefix, "bud", *how, "--signature-policy", self._policy(), *loan.arguments(), *what],
            env={**environment(), "TMPDIR": str(self.scratch)},
            timeout_s=1800,
        )

    def push(self, reference: str, target: Path) -> None:
        """Write the image to an archive."""
        destination = f"docker-archive:{target}:{reference}"
        argv = [*self.prefix, "push", "-q", "--signature-policy", self._policy(), reference, destination]
        run(argv, env={**environment(), "TMPDIR": str(self.scratch)}, timeout_s=600)

    def _policy(self) -> str:
        file = self.scratch / "policy.json"
        file.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        return str(file)
