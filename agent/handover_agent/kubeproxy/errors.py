"""What can go wrong with kube-proxy's rules: each error says what was tried, on what, and what to do."""

from collections.abc import Sequence
from pathlib import Path


class KubeProxyError(Exception):
    """Something about kube-proxy's rules on this node did not go as it must."""

    def __init__(self, message: str) -> None:
        # It may quote a rule, which may hold bytes that are no text (see `command`): the status takes only text.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class ToolFailed(KubeProxyError):
    """A program (nft, iptables-restore, …) could not be run, or ended with an error and changed nothing."""

    def __init__(self, command: Sequence[str], why: str) -> None:
        super().__init__(f"`{' '.join(command)}` failed: {why.strip() or 'no message'}")
        self.command, self.why = tuple(command), why


class NotSupported(KubeProxyError):
    """kube-proxy's rules are of a kind that cannot be taken over yet; `mode` names it."""

    def __init__(self, mode: str, found: str, what_to_do: str) -> None:
        super().__init__(f"kube-proxy in mode {mode} is not supported yet: found {found}. {what_to_do}")
        self.mode = mode


class SnapshotInvalid(KubeProxyError):
    """A snapshot on disk cannot be trusted: names the file and what is wrong with it."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(
            f"snapshot file {file}: {why}; it is not used. While kube-proxy's rules are in force, take a new "
            "snapshot; else start kube-proxy on this node, which writes its rules anew"
        )
        self.file = file


class NothingFlushed(KubeProxyError):
    """A flush was refused before it changed anything."""


class Leftovers(KubeProxyError):
    """Re-reading after a flush found rules of kube-proxy's; names them."""

    def __init__(self, left: Sequence[str]) -> None:
        shown = "; ".join(left[:10]) + (f"; and {len(left) - 10} more" if len(left) > 10 else "")
        super().__init__(
            f"{len(left)} of kube-proxy's chains and rules are left after the flush: {shown}. "
            "Is a kube-proxy still running on this node, or another program writing them?"
        )


class NotRestored(KubeProxyError):
    """Re-reading after a restore found other rules than the snapshot has."""

    def __init__(self, differences: Sequence[str]) -> None:
        shown = "; ".join(differences[:10])
        super().__init__(
            f"after the restore, {len(differences)} things differ from the snapshot: {shown}. Restore again"
        )
        self.differences = tuple(differences)
