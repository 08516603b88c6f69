"""The agent's directory on the node's disk: what each file there is called, and who works with them."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


class AnotherAgent(Exception):
    """Another agent works on this node."""

    def __init__(self, lock: Path) -> None:
        super().__init__(f"another handover-agent of this node holds {lock}; it has to end first")


@dataclass(frozen=True, slots=True)
class State:
    """By its path. It outlives the agent and its pod."""

    directory: Path

    @property
    def journal(self) -> Path:
        """Where the node stands on the ladder."""
        return self.directory / "journal.json"

    @property
    def snapshot(self) -> Path:
        """A directory: kube-proxy's rules, as they were before they were removed."""
        return self.directory / "snapshot"

    @property
    def names(self) -> Path:
        """The Service ports behind the maps' numbers."""
        return self.directory / "names.json"

    @property
    def baseline(self) -> Path:
        """What the probes found before the cutover."""
        return self.directory / "baseline.json"

    @property
    def servers(self) -> Path:
        """The API servers' own addresses."""
        return self.directory / "apiservers.json"

    @property
    def metrics_address(self) -> Path:
        """Where kube-proxy's metrics listened."""
        return self.directory / "metrics-address"

    def lock(self) -> int:
        """Be the only agent of this node, until this descriptor is closed or the process ends. Raises AnotherAgent,
        OSError.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise AnotherAgent(path) from None
        return handle
