"""An exact reading of kube-proxy's nft table for one packet: every way in which it may end.

A subset of nft's language is understood, which is what kube-proxy writes; anything else raises `NotUnderstood`
rather than being guessed at. Chance (`numgen random`) and nothing else makes more than one ending. Sets that
remember clients (session affinity) hold what they held when the rules were read.

That this is how the kernel reads the rules is tested with real packets (`test_interpreter`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from handover_agent.table import Backend, ip_bytes
from tests.differential.packets import DROPPED, LEFT, REFUSED, Ending, Endings, Kind, Origin, Packet

Json = Any
Value = Any
GO_ON, ACCEPT, DROP, REJECT, RETURN = "continue", "accept", "drop", "reject", "return"


class NotUnderstood(Exception):
    """A rule says something that this reading does not know."""

    def __init__(self, what: object) -> None:
        super().__init__(f"not understood in kube-proxy's rules: {what}")


@dataclass(frozen=True, slots=True)
class Travel:
    """A packet on its way through the hooks."""

    source: bytes
    destination: bytes
    port: int
    protocol: str
    mark: int = 0
    translated: bool = False
    masqueraded: bool = False


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of intervals of addresses."""

    ends: tuple[tuple[bytes, bytes], ...]

    def __contains__(self, value: bytes) -> bool:
        return any(first <= value <= last for first, last in self.ends)


Step = tuple[str, Travel]


class Table:
    """kube-proxy's table of one family, from `nft -j list table`'s objects; `local` are the node's addresses."""

    def __init__(self, objects: Sequence[dict[str, Json]], local: frozenset[bytes]) -> None:
        self._local = local
        self._sets: dict[str, Mapping[Value, Json]] = {}
        self._rules: dict[str, list[list[Json]]] = {}
        self._hooks: dict[str, list[tuple[int, str, str]]] = {}
        self._known: dict[
            int, Ranges
        ] = {}  # by the identity of a rule's literal, which lives as long as this
        for item in objects:
            for kind, value in item.items():
                if kind in ("set", "map"):
                    self._sets[value["name"]] = dict(_elements(value))
                elif kind == "rule":
                    self._rules.setdefault(value["chain"], []).append(value["expr"])
                elif kind == "chain" and "hook" in value:
                    if value["policy"] != "accept":
                        raise NotUnderstood(value)
                    self._hooks.setdefault(value["hook"], []).append(
                        (value["prio"], value["name"], value["type"])
                    )
        for chains in self._hooks.values():
            chains.sort()

    def endings(self, packet: Packet) -> Endings:
        """Every way in which the packet may end."""
        start = Travel(packet.source, packet.destination, packet.port, packet.protocol.name.lower())
        found: set[Ending] = set()
        hooks = ["output"] if packet.origin is Origin.NODE else ["prerouting"]
        for verdict, travel in self._hook(hooks[0], start):
            for end, last in [(verdict, travel)] if verdict != GO_ON else self._rest(packet.origin, travel):
                found |= _ending(end, last)
        return frozenset(found)

    def _rest(self, origin: Origin, travel: Travel) -> Iterator[Step]:
        """What comes after routing."""
        local = travel.destination in self._local
        if origin is Origin.NODE:
            hooks = ["postrouting", *(["prerouting", "input"] if local else [])]
        else:
            hooks = ["input"] if local else ["forward", "postrouting"]
        steps = [(GO_ON, travel)]
        for hook in hooks:
            steps = [
                step
                for verdict, at in steps
                for step in (
                    self._hook(hook, at, again=hook == "prerouting") if verdict == GO_ON else [(verdict, at)]
                )
            ]
        yield from steps

    def _hook(self, hook: str, travel: Travel, again: bool = False) -> list[Step]:
        """Through the base chains of a hook. `again`: address translation has been decided already."""
        steps = [(GO_ON, travel)]
        for _, chain, kind in self._hooks.get(hook, []):
            if again and kind == "nat":
                continue
            through: list[Step] = []
            for verdict, at in steps:
                through.extend(self._chain(chain, at) if verdict == GO_ON else [(verdict, at)])
            steps = [(GO_ON if verdict in (ACCEPT, RETURN) else verdict, at) for verdict, at in through]
        return steps

    def _chain(self, name: str, travel: Travel) -> list[Step]:
        """Through a chain; a step that goes on, or returns, goes on after the chain."""
        ended: list[Step] = []
        at = [travel]
        for rule in self._rules.get(name, []):
            going: list[Travel] = []
            for each in at:
                for verdict, then in self._rule(rule, each):
                    if verdict == GO_ON:
                        going.append(then)
                    else:
                        ended.append((GO_ON if verdict == RETURN else verdict, then))
            at = going
            if not at:
                break
        return ended + [(GO_ON, each) for each in at]

    def _rule(self, expressions: list[Json], travel: Travel) -> list[Step]:
        for expression in expressions:
            ((kind, value),) = expression.items()
            if kind == "match":
                if not self._matches(value, travel):
                    return [(GO_ON, travel)]
            elif kind == "vmap":
                verdicts = self._verdicts(value, travel)
                if verdicts:
                    return [step for verdict in verdicts for step in self._verdict(verdict, travel)]
                return [(GO_ON, travel)]
            elif kind == "mangle":
                if value["key"] != {"meta": {"key": "mark"}}:
                    raise NotUnderstood(expression)
                travel = replace(travel, mark=self._value(value["value"], travel))
            elif kind == "dnat":
                return [
                    (ACCEPT, replace(travel, destination=to, port=port, translated=True))
                    for to, port in _targets(value)
                ]
            elif kind == "masquerade":
                return [(ACCEPT, replace(travel, masqueraded=True))]
            elif kind == "set":
                if value["op"] != "update":  # a client is remembered: nothing for this packet
                    raise NotUnderstood(expression)
            else:
                return self._verdict(expression, travel)
        return [(GO_ON, travel)]

    def _verdict(self, verdict: Json, travel: Travel) -> list[Step]:
        ((kind, value),) = verdict.items()
        if kind in (DROP, ACCEPT, RETURN, REJECT):
            return [(kind, travel)]
        if kind == "jump":
            return self._chain(value["target"], travel)
        if kind == "goto":  # after it comes what is after this chain
            return [(RETURN if end == GO_ON else end, at) for end, at in self._chain(value["target"], travel)]
        raise NotUnderstood(verdict)

    def _verdicts(self, vmap: Json, travel: Travel) -> list[Json]:
        if "numgen" in vmap["key"]:
            return [verdict for _, verdict in vmap["data"]["set"]]
        if not isinstance(vmap["data"], str):
            raise NotUnderstood(vmap)
        verdict = self._sets[vmap["data"].removeprefix("@")].get(self._value(vmap["key"], travel))
        return [] if verdict is None else [verdict]

    def _matches(self, match: Json, travel: Travel) -> bool:
        left, right, op = match["left"], match["right"], match["op"]
        if left == {"ct": {"key": "state"}} and (op, right) == ("in", "new"):
            return True
        if left == {"ct": {"key": "status"}} and (op, right) == ("in", "dnat"):
            return travel.translated
        if op not in ("==", "!="):
            raise NotUnderstood(match)
        value = self._value(left, travel)
        if isinstance(right, str) and right.startswith("@"):
            found = value in self._sets[right.removeprefix("@")]
        elif isinstance(value, bytes):
            if id(right) not in self._known:
                parts = right["set"] if isinstance(right, dict) and "set" in right else [right]
                self._known[id(right)] = _ranges(parts)
            found = value in self._known[id(right)]
        else:
            found = value == right
        return found is (op == "==")

    def _value(self, what: Json, travel: Travel) -> Value:
        if isinstance(what, int):
            return what
        ((kind, value),) = what.items()
        if kind == "concat":
            return tuple(self._value(part, travel) for part in value)
        if kind in _OPERATIONS:
            one, two = (self._value(part, travel) for part in value)
            return _OPERATIONS[kind](one, two)
        if kind == "fib":
            (flag,) = value["flags"]
            if value["result"] != "type":
                raise NotUnderstood(what)
            return "local" if _address(flag, travel) in self._local else "unicast"
        if kind == "payload":
            if value["protocol"] == "th" and value["field"] == "dport":
                return travel.port
            if value["protocol"] in ("ip", "ip6"):
                return _address(value["field"], travel)
        if kind == "meta" and value["key"] == "mark":
            return travel.mark
        if kind == "meta" and value["key"] == "l4proto":
            return travel.protocol
        raise NotUnderstood(what)


_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "|": lambda a, b: a | b,
    "&": lambda a, b: a & b,
    "^": lambda a, b: a ^ b,
}


def _address(field: str, travel: Travel) -> bytes:
    if field == "saddr":
        return travel.source
    if field == "daddr":
        return travel.destination
    raise NotUnderstood(field)


def _elements(container: Json) -> Iterator[tuple[Value, Json]]:
    """Keys as `_value` makes them, with their verdicts (None in a set)."""
    types = container["type"] if isinstance(container["type"], list) else [container["type"]]
    for element in container.get("elem", ()):
        key, verdict = element if "map" in container else (element, None)
        bare = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
        parts = bare["concat"] if isinstance(bare, dict) and "concat" in bare else [bare]
        if not all(isinstance(part, str | int) for part in parts):
            raise NotUnderstood(container["name"])
        values = tuple(
            ip_bytes(part) if kind.endswith("_addr") else part
            for kind, part in zip(types, parts, strict=True)
        )
        yield values if len(values) > 1 else values[0], verdict


def _ranges(parts: Sequence[Json]) -> Ranges:
    ends = []
    for part in parts:
        if isinstance(part, str):
            ends.append((ip_bytes(part), ip_bytes(part)))
        elif "prefix" in part:
            network = ip_network((part["prefix"]["addr"], part["prefix"]["len"]))
            ends.append((ip_bytes(str(network[0])), ip_bytes(str(network[-1]))))
        elif "range" in part:
            ends.append((ip_bytes(part["range"][0]), ip_bytes(part["range"][1])))
        else:
            raise NotUnderstood(part)
    return Ranges(tuple(ends))


def _targets(dnat: Json) -> Iterator[tuple[bytes, int]]:
    address = dnat["addr"]
    if isinstance(address, str):
        yield ip_bytes(address), dnat["port"]
        return
    if "numgen" not in address["map"]["key"]:
        raise NotUnderstood(dnat)
    for _, value in address["map"]["data"]["set"]:
        to, port = value["concat"]
        yield ip_bytes(to), port


def _ending(verdict: str, travel: Travel) -> Endings:
    if verdict == DROP:
        return DROPPED
    if verdict == REJECT:
        return REFUSED
    if not travel.translated:
        return LEFT
    return frozenset({Ending(Kind.SERVED, Backend(travel.destination, travel.port), travel.masqueraded)})
