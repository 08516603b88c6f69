"""On which of the node's addresses kube-proxy serves NodePorts, read from its rules: pure.

Its configuration is a file in a ConfigMap, or flags, or built into a distribution; its rules are on every node and say
what came of it: one rule for all local addresses, or in iptables mode one for each, in nftables mode a set of them.
They also say whether 127.0.0.1 is among them.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from handover_agent.kubeproxy import nftables
from handover_agent.kubeproxy.iptables import Family, Source
from handover_agent.kubeproxy.rulesets import Rules

_SET = re.compile(r"\n\tset nodeport-ips \{\n(.*?)\n\t\}", re.DOTALL)
_ELEMENTS = re.compile(r"elements = \{(.*?)\}", re.DOTALL)
_NOWHERE = {True: "0.0.0.0/32", False: "::/128"}
"""No address of a node: where a family has rules, and none of them for NodePorts."""


@dataclass(frozen=True, slots=True)
class NodePortPlaces:
    """`addresses`: CIDRs as in nodePortAddresses, none meaning all; `localhost`: whether 127.0.0.1 is one of them."""

    addresses: tuple[str, ...] = ()
    localhost: bool = True


def places(
    rulesets: Mapping[Source, Mapping[str, Rules]], nft: Mapping[nftables.Table, str]
) -> NodePortPlaces | None:
    """Where NodePorts are by these rules; None when no rules say so."""
    found: list[str] | None = None
    localhost = False
    for (family, _), text in nft.items():
        rule = next((line for line in text.split("\n") if "vmap @service-nodeports" in line), "")
        if "@nodeport-ips" in rule:
            found = (found or []) + (list(_in_set(text)) or [_NOWHERE[family == "ip"]])
        elif "fib daddr type local" in rule:
            found = found or []
    if found is not None:
        return NodePortPlaces(
            tuple(sorted(found)), localhost=False
        )  # it never serves them there in this mode
    for source, tables in rulesets.items():
        rules = list(_jumps(tables.get("nat")))
        if not rules:
            continue
        ipv4 = source.family is Family.IPV4
        everywhere = [text for text in rules if "--dst-type LOCAL" in text]
        named = [
            match[1]
            for text in rules
            if (match := re.search(r"(?:^| )-d (\S+)", text)) and text not in everywhere
        ]
        found = (found or []) + ([] if everywhere else named or [_NOWHERE[ipv4]])
        if ipv4:
            shut_out = any(re.search(r"! -d 127\.", text) for text in everywhere)
            localhost |= bool(everywhere and not shut_out) or any(text.startswith("127.") for text in named)
    return None if found is None else NodePortPlaces(tuple(sorted(set(found))), localhost)


def by_name(found: NodePortPlaces, primary: Collection[str]) -> NodePortPlaces:
    """The same said with `primary`, if that is what they are: the node's address may change."""
    hosts = {ip_address(text.partition("/")[0]) for text in found.addresses if text not in _NOWHERE.values()}
    families = {host.version for host in hosts}
    if hosts and hosts == {address for text in primary if (address := ip_address(text)).version in families}:
        return NodePortPlaces(("primary",), found.localhost)
    return found


def _jumps(nat: Rules | None) -> Iterator[str]:
    if nat is None or "KUBE-SERVICES" not in nat.chains:
        return
    if not any(rule.target == "KUBE-SERVICES" for rule in nat.rules):
        return  # a leftover that nothing leads to
    for rule in nat.chains["KUBE-SERVICES"].rules:
        if rule.target == "KUBE-NODEPORTS":
            yield rule.text


def _in_set(table: str) -> Iterator[str]:
    found = _SET.search(table)
    elements = _ELEMENTS.search(found[1]) if found else None
    for text in elements[1].split(",") if elements else ():
        address = ip_address(text.strip())
        yield f"{address}/{address.max_prefixlen}"
