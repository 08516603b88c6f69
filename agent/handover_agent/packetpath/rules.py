"""The one nft table of the packet path: what the programs ask the kernel's own rules to do, by a packet's mark.

Static: it has the same few rules on every node, however many Services there are. Source ports are the kernel's to
choose, so that they never collide with a connection of the node's own; it must only not choose one at which the node
serves datagrams, where an answer would be taken for a request. All below the range that Kubernetes has for NodePorts
are free; where it was told of another range, those between two NodePorts are taken (`free_ports`). Refusals are
answered here as well, since the kernel knows how to write a reset.

A packet that was masqueraded loses that mark: in a tunnel it would go on to the packet outside, which is the node's own.

Nothing is accepted here: that would not overrule a drop in somebody else's chain. What an iptables FORWARD chain with
the policy DROP has to accept is told to it in its own chain (`kubeproxy.forwarding`).
"""

from collections.abc import Collection
from itertools import pairwise

from handover_agent.kubeproxy import nftables
from handover_agent.marks import Mark

TABLE = ("inet", "handover-path")
USUAL = range(1024, 30000)
"""What the kernel may choose from: no ports of system services, and no NodePorts, if these are where they usually are."""
_CLIENTS_END = 61000
"""Above are the ports of what the node itself sends past its sockets (bpf/consts.h: NODE_PORT_FIRST)."""
_MASQUERADED = ("tcp", "udp", "sctp")

# chain → its head, and its rules, each with the comment that it is known by
_CHAINS = {
    "sources": ("type nat hook postrouting priority 90", ("tcp", "udp", "sctp")),
    "left": ("type filter hook postrouting priority 200", ("masqueraded",)),
    "forwarding": ("type filter hook forward priority -10", ("reset", "unreachable")),
    "arriving": ("type filter hook input priority -10", ("reset", "unreachable")),
}
_PREFIX = "handover: "


def has(mark: Mark) -> str:
    """The match of packets with all bits of a mark."""
    return f"meta mark & {mark:#x} == {mark:#x}"


_RULES = {
    **{
        protocol: f"{has(Mark.MASQUERADE)} meta l4proto {protocol} masquerade to :{{ports}} fully-random"
        for protocol in _MASQUERADED
    },
    "masqueraded": f"{has(Mark.MASQUERADE)} meta mark set meta mark & {0xFFFFFFFF ^ (Mark.MASQUERADE ^ Mark.OURS):#x}",
    "reset": f"{has(Mark.REFUSE)} meta l4proto tcp reject with tcp reset",
    "unreachable": f"{has(Mark.REFUSE)} reject with icmpx type port-unreachable",
}


def free_ports(served: Collection[int]) -> range:
    """The ports to choose from, where the node serves datagrams at those of `served`: the usual ones if they are free or
    if none is, else the most in a row that there are.
    """
    if not any(port in USUAL for port in served):
        return USUAL
    inside = sorted(port for port in served if port in range(USUAL.start, _CLIENTS_END))
    ends = (USUAL.start - 1, *inside, _CLIENTS_END)
    return max((range(before + 1, after) for before, after in pairwise(ends)), key=len) or USUAL


def ensure(ports: range = USUAL) -> None:
    """Put the table in place, or repair it, in one transaction. Idempotent. Raises KubeProxyError."""
    if not present(ports):
        nftables.apply(transaction(ports))


def present(ports: range = USUAL) -> bool:
    """Whether the table is there with every rule, for these ports, and nothing else."""
    text = nftables.listing(TABLE)
    if text is None or text.count(f"masquerade to :{_between(ports)} ") != len(_MASQUERADED):
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


def transaction(ports: range = USUAL) -> str:
    """The table as one file of commands, whatever was there before."""
    name = " ".join(TABLE)
    lines = [nftables.removal(TABLE).rstrip("\n"), f"add table {name}"]
    for chain, (head, rules) in _CHAINS.items():
        lines.append(f"add chain {name} {chain} {{ {head}; policy accept; }}")
        lines += [
            f'add rule {name} {chain} {_RULES[rule].format(ports=_between(ports))} comment "{_PREFIX}{rule}"'
            for rule in rules
        ]
    return "\n".join((*lines, ""))


def _between(ports: range) -> str:
    return f"{ports[0]}-{ports[-1]}"
