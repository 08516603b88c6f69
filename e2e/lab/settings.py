"""What a lab was asked to be, remembered so that later commands find it and a second `up` can compare."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.lab.errors import LabError

MODES = ("iptables", "nftables")
BACKENDS = ("nft", "legacy")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `up`."""

    name: str
    nodes: int
    mode: str
    backend: str

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LabError(f"kube-proxy has no mode {self.mode!r} here", f"choose {' or '.join(MODES)}")
        if self.backend not in BACKENDS:
            raise LabError(f"iptables has no back end {self.backend!r}", f"choose {' or '.join(BACKENDS)}")

    def __str__(self) -> str:
        return f"{self.nodes} nodes, mode {self.mode}, iptables back end {self.backend}"

    def save(self, file: Path) -> None:
        """Remember: the lab with these settings came up."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, file: Path) -> "Settings | None":
        """What was remembered; None when no lab came up there."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None
