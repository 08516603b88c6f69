"""The one nft table of the packet path: what the programs ask the kernel's own rules to do, by a packet's mark.

Static: it has the same few rules on every node, however many Services there are. Source ports are the kernel's to
choose, so that they never collide with a connection of the node's own; it must only not choose a NodePort, at
which an answer to a datagram would be taken for a request. Refusals are answered here as well, since the kernel
knows how to write a reset.

Nothing is accepted here: that would not overrule a drop in somebody else's chain. What an iptables FORWARD chain with
the policy DROP has to accept is told to it in its own chain (`kubeproxy.forwarding`).
"""

from handover_agent.kubeproxy import nftables
from handover_agent.marks import Mark

TABLE = ("inet", "handover-path")
PORTS = "1024-29999"
"""Below every NodePort, by the range that Kubernetes has unless it is told otherwise."""
_MASQUERADED = ("tcp", "udp", "sctp")

# chain → its head, and its rules, each with the comment that it is known by
_CHAINS = {
    "sources": ("type nat hook postrouting priority 90", ("tcp", "udp", "sctp")),
    "forwarding": ("type filter hook forward priority -10", ("reset", "unreachable")),
    "arriving": ("type filter hook input priority -10", ("reset", "unreachable")),
}
_PREFIX = "handover: "


def has(mark: Mark) -> str:
    """The match of packets with all bits of a mark."""
    return f"meta mark & {mark:#x} == {mark:#x}"


_RULES = {
    **{
        protocol: f"{has(Mark.MASQUERADE)} meta l4proto {protocol} masquerade to :{PORTS} fully-random"
        for protocol in _MASQUERADED
    },
    "reset": f"{has(Mark.REFUSE)} meta l4proto tcp reject with tcp reset",
    "unreachable": f"{has(Mark.REFUSE)} reject with icmpx type port-unreachable",
}


def ensure() -> None:
    """Put the table in place, or repair it, in one transaction. Idempotent. Raises KubeProxyError."""
    if not present():
        nftables.apply(transaction())


def present() -> bool:
    """Whether the table is there with every rule, and nothing else."""
    text = nftables.listing(TABLE)
    if text is None:
        return False
    comments = [rule for _, rules in _CHAINS.values() for rule in rules]
    return (
        all(f"\tchain {name} {{" in text for name in _CHAINS)
        and all(text.count(f'comment "{_PREFIX}{name}"') == comments.count(name) for name in _RULES)
        and text.count("comment") == len(comments)
    )


def remove() -> None:
    """Take it away. Idempotent. Connections that it masqueraded keep their addresses, by conntrack."""
    if TABLE in nftables.tables():
        nftables.apply(nftables.removal(TABLE))


def transaction() -> str:
    """The table as one file of commands, whatever was there before."""
    name = " ".join(TABLE)
    lines = [nftables.removal(TABLE).rstrip("\n"), f"add table {name}"]
    for chain, (head, rules) in _CHAINS.items():
        lines.append(f"add chain {name} {chain} {{ {head}; policy accept; }}")
        lines += [f'add rule {name} {chain} {_RULES[rule]} comment "{_PREFIX}{rule}"' for rule in rules]
    return "\n".join((*lines, ""))
