"""Which chains and rules are kube-proxy's: the list by which a flush removes, and nothing else.

Read from kube-proxy's sources (1.2x to 1.37). Chains are known by exact name, or by a prefix with
kube-proxy's 16-character hash; a rule in somebody else's chain is kube-proxy's only when it is one of the
jumps that kube-proxy writes: same table, chain, target, comment and state match, nothing more and nothing
less. What only looks similar (kubelet's KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT,
KUBE-MARK-DROP) is not here.

Two chains may be in use by others. The CNI plug-in portmap jumps to KUBE-MARK-MASQ, and the mark that it sets
there is masqueraded by KUBE-POSTROUTING; kubelets before 1.28 maintain both. So these two go only together,
and only when nobody else refers to them. Any other chain of kube-proxy's that a foreign rule jumps to is
emptied and kept, since deleting it would mean changing the foreign rule.
"""

import re
from dataclasses import dataclass

from handover_agent.kubeproxy.rulesets import Rule, Rules

CHAINS = {
    "nat": frozenset(
        {"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"}
    ),
    "filter": frozenset(
        {
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-FORWARD",
            "KUBE-PROXY-FIREWALL",
            "KUBE-PROXY-CANARY",
        }
    ),
    "mangle": frozenset({"KUBE-PROXY-CANARY"}),
}
SERVICE_CHAIN = re.compile(r"KUBE-(?:SVC|SVL|SEP|EXT|FW|XLB)-[A-Z2-7]{16}")
"""Chains per Service port and per endpoint, in `nat`; XLB until Kubernetes 1.23."""

MASQUERADE = frozenset({"KUBE-MARK-MASQ", "KUBE-POSTROUTING"})
OLD_KUBELET = "KUBE-MARK-DROP"

IPVS_CHAINS = {
    "nat": frozenset({"KUBE-NODE-PORT", "KUBE-LOAD-BALANCER"}),
    "filter": frozenset(
        {"KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"}
    ),
}
"""Chains that only a kube-proxy in IPVS mode makes."""

NFT_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))

_PORTALS = "kubernetes service portals"
_EXTERNAL = "kubernetes externally-visible service portals"
_FIREWALL = "kubernetes load balancer firewall"
_NEW = ("-m", "conntrack", "--ctstate", "NEW")


def _jump(comment: str, target: str, *matches: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset({("-m", "comment", "--comment", comment), ("-j", target), *matches})


JUMPS = {
    ("nat", "PREROUTING"): (_jump(_PORTALS, "KUBE-SERVICES"),),
    ("nat", "OUTPUT"): (_jump(_PORTALS, "KUBE-SERVICES"),),
    ("nat", "POSTROUTING"): (_jump("kubernetes postrouting rules", "KUBE-POSTROUTING"),),
    ("filter", "INPUT"): (
        _jump(_EXTERNAL, "KUBE-EXTERNAL-SERVICES", _NEW),
        _jump(_EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        _jump(_PORTALS, "KUBE-SERVICES", _NEW),  # until 1.19
        _jump("kubernetes health check service ports", "KUBE-NODEPORTS"),
        _jump(_FIREWALL, "KUBE-PROXY-FIREWALL", _NEW),
    ),
    ("filter", "FORWARD"): (
        _jump(_EXTERNAL, "KUBE-EXTERNAL-SERVICES", _NEW),
        _jump(_EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        _jump(_PORTALS, "KUBE-SERVICES", _NEW),
        _jump("kubernetes forwarding rules", "KUBE-FORWARD"),
        _jump(_FIREWALL, "KUBE-PROXY-FIREWALL", _NEW),
    ),
    ("filter", "OUTPUT"): (
        _jump(_PORTALS, "KUBE-SERVICES", _NEW),
        _jump(_PORTALS, "KUBE-SERVICES"),
        _jump(_FIREWALL, "KUBE-PROXY-FIREWALL", _NEW),
    ),
}
"""Per table and built-in chain: what a jump of kube-proxy's consists of, whatever the order of its parts."""


@dataclass(frozen=True, slots=True)
class Owned:
    """What of one table is kube-proxy's, and what a flush does with it."""

    table: str
    delete: tuple[str, ...] = ()  # chains that go
    empty: tuple[str, ...] = ()  # chains that foreign rules jump to: emptied, kept
    shared: tuple[str, ...] = ()  # the masquerade pair while others use it: left alone
    jumps: tuple[Rule, ...] = ()  # rules in built-in chains that go

    @property
    def chains(self) -> tuple[str, ...]:
        """Every chain of kube-proxy's that is there, shared or not."""
        return self.delete + self.empty + self.shared


def owns_chain(table: str, chain: str) -> bool:
    """Whether a chain of this name in this table is kube-proxy's."""
    return chain in CHAINS.get(table, ()) or (table == "nat" and SERVICE_CHAIN.fullmatch(chain) is not None)


def owns_jump(table: str, rule: Rule) -> bool:
    """Whether a rule in a built-in chain is one of the jumps that kube-proxy writes, exactly."""
    known = JUMPS.get((table, rule.chain))
    if known is None or not rule.target.startswith("KUBE-"):
        return False
    return _parts(rule.words) in known


def owned(table: Rules) -> Owned:
    """What is kube-proxy's in a table."""
    ours = [name for name in table.chains if owns_chain(table.name, name)]
    mine = set(ours)
    jumps: list[Rule] = []
    referred: set[str] = set()
    for chain in table.chains.values():
        if chain.name in mine:
            continue
        for rule in chain.rules:
            if rule.target in mine:
                if chain.policy is not None and owns_jump(table.name, rule):
                    jumps.append(rule)
                else:
                    referred.add(rule.target)
    shared: frozenset[str] = frozenset()
    if table.name == "nat" and (referred & MASQUERADE or OLD_KUBELET in table.chains):
        shared = MASQUERADE & mine
    return Owned(
        table.name,
        delete=tuple(name for name in ours if name not in shared and name not in referred),
        empty=tuple(name for name in ours if name in referred and name not in shared),
        shared=tuple(name for name in ours if name in shared),
        jumps=tuple(rule for rule in jumps if rule.target not in shared),
    )


def _parts(words: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """A rule's words grouped by match and target."""
    parts: list[list[str]] = []
    for word in words:
        if word in {"-m", "-j", "-g"} or not parts:
            parts.append([word])
        else:
            parts[-1].append(word)
    return frozenset(tuple(part) for part in parts)
