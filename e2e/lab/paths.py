"""Where the lab keeps things: what is worth keeping in a cache outside the checkout, what is not under a
scratch directory.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]


def cache_dir() -> Path:
    """Binaries, images and the Go toolchain: kept from lab to lab, shared by all checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "handover-lab"


def sweep(directory: Path) -> None:
    """Remove what a killed command left half-made in a directory of the cache, a day ago or more."""
    for left in directory.glob(".*-*"):
        if left.is_dir() and left.stat().st_mtime < time.time() - 86400:
            shutil.rmtree(left, ignore_errors=True)


def scratch_root() -> Path:
    """Below it each lab has a directory of its own, which `down` removes.

    Not below /var/lib or /etc: nodes have their own copies of those.
    """
    return Path(os.environ.get("HANDOVER_LAB_SCRATCH", "/var/tmp/handover-lab"))  # on disk, unlike /tmp


def labs() -> list[str]:
    """The names of the labs on this machine that came up or were about to."""
    return sorted(d.name for d in scratch_root().glob("[a-z]*") if d.is_dir() and "." not in d.name)


@dataclass(frozen=True, slots=True)
class Scratch:
    """The files of one lab."""

    root: Path

    @classmethod
    def of(cls, name: str) -> "Scratch":
        """The scratch directory of the lab with that name."""
        return cls(scratch_root() / name)

    @property
    def state(self) -> Path:
        """What `up` was asked for and how far it came (JSON)."""
        return self.root / "state.json"

    @property
    def pki(self) -> Path:
        """Certificates, keys and kubeconfigs."""
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.pki / "admin.kubeconfig"

    @property
    def control(self) -> Path:
        """etcd's data and the control plane's logs."""
        return self.root / "control"

    def node(self, name: str) -> Path:
        """A node's own directories and logs."""
        return self.root / "nodes" / name

    @property
    def failed(self) -> Path:
        """The logs of a lab that did not come up; `down` removes them too."""
        return self.root.with_name(f"{self.root.name}.failed")


def _lock_file(what: str) -> Path:
    """The file behind a lock. It stays: removing it would let two hold the lock."""
    return Path(f"/run/lock/handover-lab-{what}")


@contextlib.contextmanager
def shared(what: str, alone: Callable[[], None]) -> Iterator[None]:
    """Be one of those who use something; calls `alone` first when nobody else does."""
    with _lock_file(what).open("w") as opened:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone()
        fcntl.flock(opened, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def locked(what: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the machine-wide lock of that name; calls `waiting` when somebody else has it."""
    with _lock_file(what).open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
