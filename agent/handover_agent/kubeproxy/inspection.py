"""One look at everything on a node that kube-proxy may have written."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from handover_api.nodemigration import ProxyMode

from handover_agent.kubeproxy import iptables, ipvs, nftables
from handover_agent.kubeproxy.iptables import SOURCES, Source
from handover_agent.kubeproxy.ownership import NFT_TABLES, Owned, owned
from handover_agent.kubeproxy.rulesets import Rules


@dataclass(frozen=True, slots=True)
class Inspection:
    """The rules as read: iptables' tables per source, kube-proxy's nft tables as text."""

    rulesets: Mapping[Source, Mapping[str, Rules]]
    nft: Mapping[nftables.Table, str]
    owned: Mapping[Source, Mapping[str, Owned]] = field(init=False)
    """Derived: what of each table is kube-proxy's."""

    def __post_init__(self) -> None:
        found = {
            source: {name: owned(table) for name, table in tables.items()}
            for source, tables in self.rulesets.items()
        }
        object.__setattr__(self, "owned", found)

    @property
    def mode(self) -> ProxyMode:
        """How kube-proxy wrote the rules in force; leftovers of another mode do not count."""
        if self.nft:
            return ProxyMode.NFTABLES
        jumps = (rule for tables in self.owned.values() if "nat" in tables for rule in tables["nat"].jumps)
        return ProxyMode.IPTABLES if any(rule.target == "KUBE-SERVICES" for rule in jumps) else ProxyMode.NONE

    @property
    def backends(self) -> tuple[str, ...]:
        """The iptables back ends (`legacy`, `nft`) in which something is kube-proxy's."""
        return tuple(
            sorted(
                {str(s.variant) for s, tables in self.owned.items() if any(o.chains for o in tables.values())}
            )
        )

    @property
    def rule_count(self) -> int:
        """Rules in kube-proxy's chains and tables, and its jumps; without what stays because others use it."""
        count = 0
        for source, tables in self.owned.items():
            for name, mine in tables.items():
                chains = self.rulesets[source][name].chains
                count += len(mine.jumps) + sum(len(chains[chain].rules) for chain in mine.delete + mine.empty)
        return count + sum(_nft_rules(text) for text in self.nft.values())

    def leftovers(self) -> list[str]:
        """Whatever a flush would remove, named; empty after a complete flush.

        Chains that others use (see `ownership`) are not among them once they are as a flush leaves them.
        """
        left: list[str] = []
        for source, tables in self.owned.items():
            for name, mine in tables.items():
                chains = self.rulesets[source][name].chains
                left += [f"{source} {name} chain {chain}" for chain in mine.delete]
                left += [
                    f"{source} {name} rules in chain {chain}" for chain in mine.empty if chains[chain].rules
                ]
                left += [f"{source} {name} jump {rule.chain} to {rule.target}" for rule in mine.jumps]
        return left + [f"nft table {family} {name}" for family, name in self.nft]


def inspect() -> Inspection:
    """Read both iptables back ends and nft, for both families. Changes nothing.

    Raises NotSupported for IPVS, ToolFailed when something cannot be read.
    """
    rulesets = {source: iptables.read(source) for source in SOURCES}
    ipvs.refuse(rulesets.items())
    nft: dict[nftables.Table, str] = {}
    for table in sorted(nftables.tables() & set(NFT_TABLES)):
        text = nftables.listing(table)
        if text is not None:
            nft[table] = text
    return Inspection(rulesets, nft)


def _nft_rules(text: str) -> int:
    """Rules of an nft listing: the lines in chains besides `type`, `policy` and comments."""
    count, inside = 0, False
    for line in text.split("\n"):
        if line.startswith("\tchain "):
            inside = True
        elif line == "\t}":
            inside = False
        elif inside and not line.startswith(("\t\ttype ", "\t\tcomment ")):
            count += 1
    return count
