"""Pushes each frontend through kube-proxy's iptables rules and notes where a connection may end: pure.

The source is a process of this node. So a rule for `--src-type LOCAL` matches, one for the pods' CIDR does
not, and what depends on chance (`statistic`) or on earlier connections (`recent`) may match: all its
outcomes count.
"""

import re
from collections.abc import Iterator, Mapping

from handover_agent.kubeproxy.ownership import SERVICE_CHAIN
from handover_agent.kubeproxy.rulesets import Rule, Rules
from handover_agent.kubeproxy.served import Answer, Served, Verdict
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_FRONTEND = re.compile(r"^(?:-d (\S+?)/(?:32|128) )?-p (tcp|udp|sctp) .*--dport (\d+)(?: |$)")
_DNAT = re.compile(r"--to-destination (?:\[(\S+)\]|([0-9.]+)):(\d+)")
_SOURCE = re.compile(r"(?:^| )-s ")
_UNSURE = ("-m statistic ", "-m recent ")
_VERDICTS = {"REJECT": Verdict.REFUSED, "DROP": Verdict.DROPPED}
_DEEPEST = 8  # KUBE-SERVICES → FW → EXT → SVC → SEP, and room


def trace(tables: Mapping[str, Rules], ipv4: bool) -> Served:
    """What the rules of one family and back end do. Empty when KUBE-SERVICES is not in force."""
    nat, filter_ = tables.get("nat"), tables.get("filter")
    if nat is None or not any(rule.target == "KUBE-SERVICES" for rule in nat.rules):
        return Served()
    addresses: dict[FrontendKey, Answer] = {}
    node_ports: dict[tuple[int, Protocol, bool], Answer] = {}
    walk = _Walk(nat)
    for table, chains in (
        (nat, ("KUBE-SERVICES", "KUBE-NODEPORTS")),
        (filter_, ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES")),
    ):
        for rule in _rules(table, chains):
            found = _FRONTEND.match(_QUOTED.sub('""', rule.text))
            if found is None:
                continue
            if rule.target in _VERDICTS:
                answer = Answer(_VERDICTS[rule.target])
            elif SERVICE_CHAIN.fullmatch(rule.target):
                restricted = rule.target.startswith("KUBE-FW-")
                answer = Answer(Verdict.SERVED, walk.backends(rule.target), restricted)
            else:
                continue
            address, protocol, port = found[1], Protocol[found[2].upper()], int(found[3])
            # Translation comes before filtering: the first answer counts.
            if address is not None:
                addresses.setdefault(FrontendKey(ip_bytes(address), port, protocol), answer)
            elif rule.chain in {"KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"}:
                node_ports.setdefault((port, protocol, ipv4), answer)
    return Served(addresses, node_ports)


def _rules(table: Rules | None, chains: tuple[str, ...]) -> Iterator[Rule]:
    for name in chains:
        if table is not None and name in table.chains:
            yield from table.chains[name].rules


class _Walk:
    """Where a connection that entered a chain may end; remembers what it has seen."""

    def __init__(self, nat: Rules) -> None:
        self._nat = nat
        self._known: dict[str, frozenset[Backend]] = {}

    def backends(self, chain: str, depth: int = 0) -> frozenset[Backend]:
        if chain not in self._known:
            self._known[chain] = frozenset(self._ends(chain, depth))
        return self._known[chain]

    def _ends(self, name: str, depth: int) -> Iterator[Backend]:
        chain = self._nat.chains.get(name)
        if chain is None or depth > _DEEPEST:
            return
        for rule in chain.rules:
            target = rule.target
            if target == "DNAT":
                found = _DNAT.search(rule.text)
                if found is not None:
                    yield Backend(ip_bytes(found[1] or found[2]), int(found[3]))
                return
            if not SERVICE_CHAIN.fullmatch(target):
                continue
            from_some = _SOURCE.search(_QUOTED.sub('""', rule.text)) is not None
            if from_some and not name.startswith("KUBE-FW-"):
                continue
            yield from self.backends(target, depth + 1)
            if not from_some and not any(match in rule.text for match in _UNSURE):
                return
