"""nft's tables as the walk sees them, from what `nft -j` lists: pure.

`terse` listings leave out what named sets hold, which may be a lot; such a set may match. A map of verdicts is read by
itself, as it says where packets go.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from handover_agent.bypassed.destinations import (
    Match,
    Never,
    OfFamily,
    Ports,
    Types,
    Unknown,
    addresses,
    protocols,
)
from handover_agent.bypassed.iptables import CALICO_POLICY
from handover_agent.bypassed.nftchains import Base
from handover_agent.bypassed.walk import Does, Hooked, Step

Object = Mapping[str, Any]
Maps = Callable[[str], Sequence[Any]]
"""The elements of a named map of verdicts."""

_FAMILIES = {"ip": frozenset({True}), "ip6": frozenset({False})}
_BOTH = frozenset({True, False})
_SENSES = {"==": False, "in": False, "!=": True}
_COMPARED = (*_SENSES, "<", "<=", ">", ">=")
_DESTINATION = ("port", "address", "type", "unknown")
_BITWISE = ("&", "|", "^")
_RAW_PORT = ("th", 16, 16)
_HANDLE = re.compile(r"^\t\t(.*) # handle (\d+)$", re.MULTILINE)
_HARMLESS = frozenset({"", "return"})


def hooked(base: Base, objects: Iterable[Object], listing: str, maps: Maps) -> Hooked:
    """One base chain with the chains of its table. `listing`: the text of its family's tables, with handles."""
    texts = _texts(listing, base.family, base.table)
    chains: dict[str, list[Step]] = {}
    for each in objects:
        rule = each.get("rule")
        if rule is not None and (rule["family"], rule["table"]) == (base.family, base.table):
            text = texts.get(rule["handle"], f"rule with handle {rule['handle']}")
            chains.setdefault(rule["chain"], []).extend(_steps(rule, text, maps))
    return Hooked(
        f"nft {base.family} {base.table}",
        base.name,
        {name: tuple(steps) for name, steps in chains.items()},
        _FAMILIES.get(base.family, _BOTH),
        drops=base.drops,
    )


def _texts(listing: str, family: str, table: str) -> dict[int, str]:
    """The rules of a table as nft prints them, by handle."""
    begin = listing.find(f"table {family} {table} {{")
    end = listing.find("\n}", begin)
    part = listing[begin : end if end >= 0 else len(listing)] if begin >= 0 else ""
    return {int(handle): text for text, handle in _HANDLE.findall(part)}


def _steps(rule: Object, text: str, maps: Maps) -> Iterator[Step]:
    """A rule; one that chooses a verdict by a map is one for each element."""
    asked: list[Match] = []
    statements = rule.get("expr", ())
    marks = any("mangle" in statement for statement in statements)
    policy = CALICO_POLICY.search(rule["chain"]) is not None
    for statement in statements:
        if "match" in statement:
            match = statement["match"]
            asked += _matches(match["left"], match["op"], match["right"])
        elif "vmap" in statement:
            key, data = statement["vmap"]["key"], statement["vmap"]["data"]
            elements = maps(data[1:]) if isinstance(data, str) else data["set"]
            for value, verdict in elements:
                does, to, word = _verdict(verdict)
                matches = (*asked, *_matches(key, "==", value))
                yield Step(text, does, to, matches, matters=policy and word not in _HARMLESS)
            return
        elif (found := _verdict(statement))[0] is not Does.NOTHING:
            yield Step(text, found[0], found[1], tuple(asked), matters=policy and found[2] not in _HARMLESS)
            return
    yield Step(text, matches=tuple(asked), matters=policy and marks)


def _verdict(statement: Object) -> tuple[Does, str, str]:
    word = next(iter(statement), "")
    match word:
        case "drop" | "reject" | "queue" | "tproxy":
            return Does.ENDS, "", word
        case "accept":
            return Does.ACCEPTS, "", word
        case "return":
            return Does.LEAVES, "", word
        case "jump" | "goto":
            return Does.JUMPS if word == "jump" else Does.GOES, str(statement[word]["target"]), word
    return Does.NOTHING, "", ""


def _matches(left: Any, operator: str, right: Any) -> Iterator[Match]:
    """What is asked, if it tells where a packet goes, or that it is none from outside."""
    kind, field, family = _asked(left)
    if not kind:
        return
    values = list(_values(right))
    if None in values or operator not in (_COMPARED if kind == "port" else _SENSES):
        kind = "unknown" if kind in _DESTINATION else ""
    negated = _SENSES.get(operator, False)
    match kind:
        case "unknown":
            yield Unknown()
        case "port":
            if field != "th":
                yield protocols([field])
            ranges = [pair for value in values if (pair := _numbers(value, operator)) is not None]
            yield Ports(tuple(ranges), negated) if len(ranges) == len(values) else Unknown()
        case "address":
            yield addresses(map(_address, values), negated)
        case "type":
            yield Types(frozenset(str(value).upper() for value in values), negated)
        case "protocol":
            if family:
                yield OfFamily(family == "ip")
            yield protocols((str(value) for value in values), negated)
        case "family" if len(values) == 1:
            yield OfFamily((values[0] in ("ipv4", "ip")) is not negated)
        case "device" if values == ["lo"] and not negated:
            yield Never()


def _asked(left: Any) -> tuple[str, str, str]:
    """What the left side of a match is: its kind, the protocol of a port, the family of a protocol's field."""
    if not isinstance(left, dict) or "tunnel" in left.get("payload", ()):
        return "", "", ""
    if "payload" in left and "field" not in left["payload"]:
        raw = left["payload"]
        return ("port", "th", "") if (raw["base"], raw["offset"], raw["len"]) == _RAW_PORT else ("", "", "")
    if "payload" in left:
        protocol, field = left["payload"]["protocol"], left["payload"]["field"]
        if field == "dport":
            return "port", protocol, ""
        if field == "daddr" and protocol in ("ip", "ip6"):
            return "address", "", ""
        return ("protocol", "", protocol) if field in ("protocol", "nexthdr") else ("", "", "")
    if "fib" in left and "daddr" in left["fib"]["flags"]:
        return ("type" if left["fib"]["result"] == "type" else "unknown"), "", ""
    if "meta" in left:
        known = {"l4proto": "protocol", "nfproto": "family", "protocol": "family"}
        key = left["meta"]["key"]
        return ("device" if key in ("iif", "iifname") else known.get(key, "")), "", ""
    if "ct" in left and left["ct"].get("dir") == "original":
        key = str(left["ct"]["key"])
        if key == "proto-dst":
            return "port", "th", ""
        return ("address" if key in ("ip daddr", "ip6 daddr") else ""), "", ""
    parts = next((left[key] for key in ("concat", *_BITWISE) if key in left), ())
    return ("unknown" if any(_asked(part)[0] in _DESTINATION for part in parts) else ""), "", ""


def _values(right: Any) -> Iterator[Any]:
    """The values that are asked for; None for a named set."""
    if isinstance(right, str) and right.startswith("@"):
        yield None
    elif isinstance(right, list):
        for value in right:
            yield from _values(value)
    elif isinstance(right, dict) and "set" in right:
        yield from _values(right["set"])
    elif isinstance(right, dict) and "elem" in right:
        yield from _values(right["elem"]["val"])
    else:
        yield right


def _numbers(value: Any, operator: str) -> tuple[int, int] | None:
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return (first, last) if isinstance(first, int) and isinstance(last, int) else None
    if not isinstance(value, int):
        return None
    match operator:
        case "<" | "<=":
            return 0, value - (operator == "<")
        case ">" | ">=":
            return value + (operator == ">"), 0xFFFF
    return value, value


def _address(value: Any) -> str:
    """As text; what is none stays what it is."""
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, dict) and "range" in value:
        return "-".join(value["range"])
    return str(value)
