"""The edge to other people's rules: what iptables has was read with kube-proxy's, what nft has is asked for here.

Which base chains there are is asked first, as that reads no rules. Only where one comes before kube-proxy's DNAT are
the rules of its family listed; tersely, without what sets hold: with nft 1.0.6, a listing of one table reads the
elements of all (seconds for some 100,000 of them), `list chains` and a terse `list ruleset` do not.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from handover_agent.bypassed import iptables, nft, nftchains
from handover_agent.bypassed.walk import Hooked
from handover_agent.kubeproxy import keeper, nftables
from handover_agent.kubeproxy.iptables import Family, Source, Variant
from handover_agent.kubeproxy.ownership import NFT_TABLES
from handover_agent.kubeproxy.rulesets import Rules
from handover_agent.packetpath import handing, rules

_NOT_THEIRS = frozenset({*NFT_TABLES, ("inet", keeper.TABLE), rules.TABLE, handing.GUARD})


def read(rulesets: Mapping[Source, Mapping[str, Rules]]) -> tuple[Hooked, ...]:
    """What comes before kube-proxy's DNAT; `rulesets` as `inspect` has read them. Raises ToolFailed."""
    found = [each for source, tables in rulesets.items() for each in iptables.hooked(source, tables)]
    shown = {
        ("ip" if source.family is Family.IPV4 else "ip6", name)
        for source, tables in rulesets.items()
        if source.variant is Variant.NFT
        for name in tables
    }
    theirs = [
        base
        for base in nftchains.early(nftables.chains_text())
        if (base.family, base.table) not in _NOT_THEIRS | shown
    ]
    for family in sorted({base.family for base in theirs}):
        objects, text = nftables.rules_json(family), nftables.rules_text(family)
        for base in theirs:
            if base.family == family:
                found.append(nft.hooked(base, objects, text, partial(_map, (family, base.table))))
    return tuple(found)


def _map(table: nftables.Table, name: str) -> list[Any]:
    for each in nftables.map_json(table, name):
        if "map" in each:
            return list(each["map"].get("elem", []))
    return []
