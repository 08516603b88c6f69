"""What kube-proxy's rules do with new connections, as values that our table can be compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from handover_agent.table import Backend, FrontendKey, Protocol


class Verdict(StrEnum):
    """What becomes of a connection from a local process."""

    SERVED = "served"
    REFUSED = "refused"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules do with one frontend. `restricted`: only for the sources in loadBalancerSourceRanges."""

    verdict: Verdict
    backends: frozenset[Backend] = frozenset()
    restricted: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """All frontends of kube-proxy's rules. NodePorts have no address: they hold for the node's own ones."""

    addresses: Mapping[FrontendKey, Answer] = field(default_factory=dict)
    node_ports: Mapping[tuple[int, Protocol, bool], Answer] = field(default_factory=dict)
    """By port, protocol, and whether it is IPv4."""

    def __len__(self) -> int:
        return len(self.addresses) + len(self.node_ports)

    def get(self, key: FrontendKey) -> Answer | None:
        """What the rules do with a frontend: by its address, else as a NodePort."""
        return self.addresses.get(key) or self.node_ports.get((key.port, key.protocol, is_ipv4(key.address)))


def is_ipv4(address: bytes) -> bool:
    return address.startswith(b"\0" * 10 + b"\xff\xff")
