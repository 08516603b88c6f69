"""Which base chains of nft's come before kube-proxy's DNAT, read from `nft -y list chains`: pure.

The text, since that costs half of what the JSON costs where kube-proxy has some 10,000 chains of its own, and since nft
1.0.6 leaves devices out of the JSON.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

DNAT = -100
"""The priority of kube-proxy's chains, in all modes: what is lower comes before."""
_FAMILIES = ("ip", "ip6", "inet", "netdev")
_LOOPBACK = ("lo",)
_TABLE_OR_BASE = re.compile(
    r"^table (?P<family>\S+) (?P<table>\S+) \{"
    r"|^\tchain (?P<name>\S+) \{\n(?:\t\tcomment .*\n)?"
    r"\t\ttype \S+ hook (?P<hook>\S+) (?:devices? (?P<devices>.*?) )?priority (?P<priority>-?\d+);"
    r"(?: policy (?P<policy>\w+);)?",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that the kernel enters. `drops`: its policy."""

    family: str
    table: str
    name: str
    drops: bool = False


def early(text: str) -> Iterator[Base]:
    """Those that packets from outside come through before kube-proxy's DNAT."""
    family = table = ""
    for found in _TABLE_OR_BASE.finditer(text):
        if found["family"]:
            family, table = found["family"], found["table"]
        elif family in _FAMILIES and _before(found):
            yield Base(family, table, found["name"], found["policy"] == "drop")


def _before(base: re.Match[str]) -> bool:
    if base["hook"] == "prerouting":
        return int(base["priority"]) < DNAT
    devices = tuple(re.findall(r"[^\s\"{},=]+", base["devices"] or ""))
    return base["hook"] == "ingress" and devices != _LOOPBACK
