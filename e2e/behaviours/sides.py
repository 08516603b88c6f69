"""The nodes that are compared, and answers in words that are the same on each: `server-here`, `node-next`. Pure.

Three nodes: one has kube-proxy in nftables mode, one in iptables mode, and one is migrated. Seen from each, it is
`here`, and the others are `next` and `last`, in a ring: so what is to be expected is written down once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2e.lab import Node

NFTABLES, IPTABLES, OURS = "kube-proxy (nftables)", "kube-proxy (iptables)", "migrated"
PROXIES = {"n1": NFTABLES, "n2": OURS, "n3": IPTABLES}
FAMILIES = (4, 6)
REFUSED, DROPPED, UNREACHABLE = "refused", "dropped", "unreachable"
NOBODY = {DROPPED, UNREACHABLE}
"""What comes of an address that nobody serves: the packet goes to the network's router, which knows no way, and says so
only so often; or, in the Services' range, nftables mode drops it.
"""
_WHERE = ("here", "next", "last")


@dataclass(frozen=True, slots=True)
class Side:
    """One node, and the ring of nodes seen from it."""

    node: Node
    ring: tuple[str, ...]

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def proxy(self) -> str:
        """Who serves there."""
        return PROXIES[self.name]

    def address(self, family: int) -> str:
        """The node's own."""
        return self.node.ipv4 if family == 4 else self.node.ipv6

    def at(self, where: str) -> str:
        """The node that is `here`, `next` or `last`."""
        return self.ring[_WHERE.index(where)]

    def relative(self, name: str) -> str:
        """`server-n2` as it is called here."""
        start, _, end = name.rpartition("-")
        return f"{start}-{_WHERE[self.ring.index(end)]}" if end in self.ring else name

    def __str__(self) -> str:
        return f"{self.name} {self.proxy}"


def sides(nodes: Sequence[Node]) -> list[Side]:
    """One for each node."""
    names = [node.name for node in nodes]
    return [Side(node, tuple(names[i:] + names[:i])) for i, node in enumerate(nodes)]


def in_words(
    found: Mapping[str, Any], side: Side, names: Mapping[str, str], *, source: bool, port: bool
) -> str:
    """An answer as it is compared: who it was; on demand, at which port, and whom they saw as its source."""
    if "by" not in found:
        return str(found["what"])
    who = side.relative(found["by"]) + (f":{found['port']}" if port else "")
    seen = names.get(found["from"], found["from"])
    return f"{who} sees {side.relative(seen)}" if source else who
