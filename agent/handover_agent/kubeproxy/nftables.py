"""The edge to nft: listings as text and as JSON, and transactions.

A snapshot is the text, since nft takes its own listing back: JSON lacks chains' comments and is refused on
input when a chain is used before it is declared (nft 1.0.6). Parity reads the JSON.
"""

import json
import re
from typing import Any

from handover_agent.kubeproxy.command import run
from handover_agent.kubeproxy.errors import ToolFailed

Table = tuple[str, str]  # family, name
_NO_NFTABLES = ("Protocol not supported", "cache initialization failed", "Operation not supported")
_ABSENT = "No such file or directory"
_EXPIRES = re.compile(r" expires \w+")
_SET = re.compile(r"^\t(?:set|map) \S+ \{\n.*?^\t\}\n", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"^\t\telements = \{.*?\}\n", re.MULTILINE | re.DOTALL)


def tables() -> frozenset[Table]:
    """The tables that exist; none on a kernel without nftables."""
    try:
        text = run(("nft", "list", "tables"))
    except ToolFailed as error:
        if any(sign in error.why for sign in _NO_NFTABLES):
            return frozenset()
        raise
    return frozenset((words[1], words[2]) for words in map(str.split, text.split("\n")) if len(words) == 3)


def listing(table: Table) -> str | None:
    """A table as text, or None if it does not exist."""
    return _list(("nft", "list", "table", *table))


def listing_json(table: Table) -> list[dict[str, Any]] | None:
    """A table's objects as nft's JSON has them, or None if it does not exist."""
    command = ("nft", "-j", "list", "table", *table)
    return _objects(command) or None


def chains_text() -> str:
    """All chains, without rules, with priorities as numbers. Reads no sets, as `tables` does."""
    return _list(("nft", "-y", "list", "chains")) or ""


def rules_json(family: str) -> list[dict[str, Any]]:
    """All rules of a family, without what named sets hold, which is not even read."""
    return _objects(("nft", "-j", "-t", "list", "ruleset", family))


def rules_text(family: str) -> str:
    """The same as text, with handles and without counters."""
    return _list(("nft", "-a", "-s", "-t", "list", "ruleset", family)) or ""


def map_json(table: Table, name: str) -> list[dict[str, Any]]:
    """A named map with its elements."""
    return _objects(("nft", "-j", "list", "map", *table, name))


def apply(text: str) -> None:
    """Carry out a file of nft commands as one transaction: all or nothing. Raises ToolFailed."""
    run(("nft", "-f", "-"), text)


def check(text: str) -> None:
    """Whether the kernel would take the transaction; nothing is changed. Raises ToolFailed."""
    run(("nft", "-c", "-f", "-"), text)


def removal(table: Table) -> str:
    """Commands that delete a table, whether or not it is there."""
    name = " ".join(table)
    return f"add table {name}\ndelete table {name}\n"


def static(text: str) -> str:
    """A listing without what changes by itself: elements that packets add to dynamic sets, expiry times."""

    def fixed(match: re.Match[str]) -> str:
        body = match[0]
        return _ELEMENTS.sub("", body) if "flags" in body and "dynamic" in body else body

    return _EXPIRES.sub("", _SET.sub(fixed, text))


def _objects(command: tuple[str, ...]) -> list[dict[str, Any]]:
    text = _list(command)
    objects: list[dict[str, Any]] = json.loads(text)["nftables"] if text else []
    return objects


def _list(command: tuple[str, ...]) -> str | None:
    try:
        return run(command)
    except ToolFailed as error:
        if _ABSENT in error.why or any(sign in error.why for sign in _NO_NFTABLES):
            return None
        raise
