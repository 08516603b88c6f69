"""Where the lab keeps things: what is worth keeping in a cache outside the checkout, what is not under a scratch directory."""

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]


def cache_dir() -> Path:
    """Binaries, images and the Go toolchain: kept from lab to lab, shared by all checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "handover-lab"


def scratch_root() -> Path:
    """Below it each lab has a directory of its own, which `down` removes.

    Not below /var/lib or /etc: nodes have their own copies of those.
    """
    return Path(os.environ.get("HANDOVER_LAB_SCRATCH", "/var/tmp/handover-lab"))  # on disk, unlike /tmp


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

    def lock(self) -> Path:
        """Held while `up` or `down` runs; beside the directory, which `down` removes."""
        return self.root.with_suffix(".lock")
