"""Recognizes a kube-proxy in IPVS mode, which cannot be taken over yet.

IPVS needs another order than the other modes: taking a VIP off `kube-ipvs0` or deleting a virtual server
kills the connections it carries, so they have to be drained first. Until that exists, nothing is touched on
such a node.
"""

import socket
from collections.abc import Iterable, Mapping

from handover_agent.kubeproxy.errors import NotSupported
from handover_agent.kubeproxy.ownership import IPVS_CHAINS
from handover_agent.kubeproxy.rulesets import Rules

DEVICE = "kube-ipvs0"


def refuse(rulesets: Iterable[tuple[object, Mapping[str, Rules]]]) -> None:
    """Raises NotSupported when the node bears traces of an IPVS kube-proxy, and says which."""
    found = [f"device {DEVICE}"] if any(name == DEVICE for _, name in socket.if_nameindex()) else []
    for source, tables in rulesets:
        for table, names in IPVS_CHAINS.items():
            present = sorted(names & tables[table].chains.keys()) if table in tables else []
            found += [f"{source} {table} chain {name}" for name in present]
    if found:
        raise NotSupported(
            "ipvs",
            ", ".join(found),
            "Leave this node on kube-proxy, or switch kube-proxy to nftables or iptables first: set the "
            "mode, restart its pod on the node, remove what the old mode left with `kube-proxy --cleanup` "
            f"({DEVICE} must be gone)",
        )
