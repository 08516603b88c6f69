"""Pushes each frontend through kube-proxy's nft table and notes where a connection may end: pure.

Reads `nft -j`'s objects. The source is a process of this node (see `trace_iptables`). Both shapes are
understood: one chain per endpoint behind a verdict map (until 1.34), and a map from a random number to an
address and port.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from handover_agent.kubeproxy.served import Answer, Served, Verdict
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

_DEEPEST = 8
Json = Any


def trace(objects: Sequence[dict[str, Json]], ipv4: bool) -> Served:
    """What the table of one family does."""
    walk = _Walk(objects)
    restricted = {tuple(key) for key, _ in walk.elements("firewall-ips")}
    addresses: dict[FrontendKey, Answer] = {}
    node_ports: dict[tuple[int, Protocol, bool], Answer] = {}
    # Translation comes before filtering: the first answer counts.
    for name in ("service-ips", "no-endpoint-services"):
        for (address, protocol, port), verdict in walk.elements(name):
            key = FrontendKey(ip_bytes(address), port, Protocol[protocol.upper()])
            answer = walk.answer(verdict, (address, protocol, port) in restricted)
            addresses.setdefault(key, answer)
    for name in ("service-nodeports", "no-endpoint-nodeports"):
        for (protocol, port), verdict in walk.elements(name):
            node_ports.setdefault((port, Protocol[protocol.upper()], ipv4), walk.answer(verdict))
    return Served(addresses, node_ports)


class _Walk:
    """The maps and chains of a table, and where a connection that entered a chain may end."""

    def __init__(self, objects: Iterable[dict[str, Json]]) -> None:
        self._maps: dict[str, Json] = {}
        self._chains: dict[str, list[list[dict[str, Json]]]] = {}
        self._known: dict[str, frozenset[Backend]] = {}
        for item in objects:
            for kind, value in item.items():
                if kind == "map":
                    self._maps[value["name"]] = value.get("elem", [])
                elif kind == "rule":
                    self._chains.setdefault(value["chain"], []).append(value["expr"])

    def elements(self, name: str) -> Iterator[tuple[list[Json], dict[str, Json]]]:
        """A map's keys, as lists, and verdicts."""
        for key, verdict in self._maps.get(name, ()):
            bare = key["elem"]["val"] if "elem" in key else key
            yield bare["concat"], verdict

    def answer(self, verdict: dict[str, Json], restricted: bool = False) -> Answer:
        """What a verdict leads to."""
        if "drop" in verdict:
            return Answer(Verdict.DROPPED)
        target = (verdict.get("goto") or verdict.get("jump") or {}).get("target", "")
        if target == "reject-chain":
            return Answer(Verdict.REFUSED)
        return Answer(Verdict.SERVED, self.backends(target), restricted)

    def backends(self, chain: str, depth: int = 0) -> frozenset[Backend]:
        if chain not in self._known:
            self._known[chain] = frozenset(self._ends(chain, depth))
        return self._known[chain]

    def _ends(self, chain: str, depth: int) -> Iterator[Backend]:
        if depth > _DEEPEST:
            return
        for expressions in self._chains.get(chain, ()):
            matches, sure = _matches(expressions)
            if not matches:
                continue
            for expression in expressions:
                if "dnat" in expression:
                    yield from _translations(expression["dnat"])
                elif "vmap" in expression:
                    for _, verdict in expression["vmap"]["data"]["set"]:
                        yield from self._follow(verdict, depth)
                elif "goto" in expression or "jump" in expression:
                    yield from self._follow(expression, depth)
                else:
                    continue
                if sure:
                    return

    def _follow(self, verdict: dict[str, Json], depth: int) -> Iterator[Backend]:
        target = (verdict.get("goto") or verdict.get("jump") or {}).get("target")
        if target:
            yield from self.backends(target, depth + 1)


def _matches(expressions: list[dict[str, Json]]) -> tuple[bool, bool]:
    """Whether a rule may match for a process of this node, and whether it certainly does."""
    sure = True
    for expression in expressions:
        match = expression.get("match")
        if match is None:
            continue
        left, right = match["left"], match["right"]
        if "fib" in left or "meta" in left:
            continue  # `fib saddr type local` holds; `meta l4proto` is the frontend's
        if isinstance(right, str) and right.startswith("@"):
            sure = False  # an affinity set
        elif left.get("payload", {}).get("field") == "saddr" and match["op"] == "==":
            return False, False  # the pods' CIDR
    return True, sure


def _translations(dnat: dict[str, Json]) -> Iterator[Backend]:
    address = dnat["addr"]
    if isinstance(address, str):
        yield Backend(ip_bytes(address), dnat["port"])
        return
    for _, value in address["map"]["data"]["set"]:
        to, port = value["concat"]
        yield Backend(ip_bytes(to), port)
