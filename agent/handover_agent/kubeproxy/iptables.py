"""The edge to iptables: four sets of rules (legacy and nft, IPv4 and IPv6), read and changed as text.

kube-proxy uses one of the two back ends, but rules may have stayed in the other one (another image, another
`update-alternatives`), so all four are read. Reading must not create anything: `iptables-legacy -t nat -L`
alone creates the table and its hooks, so legacy is only read for tables that /proc says exist, and never
with `-t`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from handover_agent.kubeproxy import nftables
from handover_agent.kubeproxy.command import run
from handover_agent.kubeproxy.errors import KubeProxyError, ToolFailed
from handover_agent.kubeproxy.ownership import owns_chain
from handover_agent.kubeproxy.rulesets import Rules, Unreadable, parse

_LOCK_WAIT_S = 30
_CHAIN = re.compile(r"^\tchain (\S+) \{", re.MULTILINE)
_NO_NFTABLES = ("Protocol not supported", "Failed to initialize nft", "Operation not supported")
_INCOMPATIBLE = re.compile(r"^# Table `(\w+)' is incompatible", re.MULTILINE)


class Variant(StrEnum):
    """Which kernel interface the tools use."""

    LEGACY = "legacy"
    NFT = "nft"


class Family(StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One of the four sets of rules."""

    variant: Variant
    family: Family

    def __str__(self) -> str:
        return f"iptables-{self.variant} {self.family}"

    def tool(self, suffix: str) -> str:
        """The program's name, as `ip6tables-nft-save`."""
        return f"{'iptables' if self.family is Family.IPV4 else 'ip6tables'}-{self.variant}-{suffix}"


SOURCES = tuple(Source(variant, family) for variant in Variant for family in Family)


class Incompatible(KubeProxyError):
    """A table holds chains of kube-proxy's and nft rules that iptables cannot express, so that it is not shown."""

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(
            f"{source} cannot show table {table}, since nft rules are in it. "
            f"Rules of kube-proxy's in it cannot be told from others'; "
            "move the foreign nft rules into a table of their own"
        )


def read(source: Source) -> dict[str, Rules]:
    """The tables of one set of rules; empty when the node has none of that kind. Raises KubeProxyError."""
    if source.variant is Variant.LEGACY and not _legacy_tables(source.family):
        return {}
    command = (source.tool("save"),)
    try:
        text = run(command)
    except ToolFailed as error:
        if source.variant is Variant.NFT and any(sign in error.why for sign in _NO_NFTABLES):
            return {}
        raise
    for table in _INCOMPATIBLE.findall(text):
        listing = nftables.listing(("ip" if source.family is Family.IPV4 else "ip6", table)) or ""
        if any(owns_chain(table, chain) for chain in _CHAIN.findall(listing)):
            raise Incompatible(source, table)
    try:
        return parse(text)
    except Unreadable as error:
        raise ToolFailed(command, f"its output is not understood: {error}") from error


def apply(source: Source, text: str) -> None:
    """Give text to iptables-restore without flushing what it does not name; each table's part is one
    transaction.

    Raises ToolFailed; tables before the failing one have been committed.
    """
    run((source.tool("restore"), "--noflush", "--wait", str(_LOCK_WAIT_S)), text)


def check(source: Source, text: str) -> None:
    """Whether iptables-restore would take the text; nothing is changed. Raises ToolFailed."""
    run((source.tool("restore"), "--noflush", "--test", "--wait", str(_LOCK_WAIT_S)), text)


def _legacy_tables(family: Family) -> list[str]:
    file = Path(f"/proc/thread-self/net/{'ip' if family is Family.IPV4 else 'ip6'}_tables_names")
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []  # a kernel without legacy iptables, or its module was never loaded
