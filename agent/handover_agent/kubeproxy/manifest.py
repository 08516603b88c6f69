"""What a snapshot's directory says about itself: the parts, each with its hash, and where and when they were read."""

from datetime import datetime

from handover_api.nodemigration import ProxyMode
from pydantic import BaseModel, ConfigDict

from handover_agent.kubeproxy.iptables import Family, Source, Variant


class Part(BaseModel):
    """A file of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str  # "iptables" or "nft"
    place: str  # "nft/ipv4" or "ip"
    table: str
    file: str
    sha256: str
    bytes: int

    @property
    def source(self) -> Source:
        """The set of iptables rules that the part is from. Raises ValueError for a place that is none."""
        return source_at(self.place)


class Manifest(BaseModel):
    """What a snapshot consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = 1
    taken_at: datetime
    kernel: str
    boot_id: str
    mode: ProxyMode
    parts: tuple[Part, ...]


def source_at(place: str) -> Source:
    """The set of iptables rules that a part's place names, as `nft/ipv4`. Raises ValueError."""
    variant, _, family = place.partition("/")
    return Source(Variant(variant), Family(family))
