"""Keeps established connections alive when kube-proxy's rules go.

When the last rule that uses conntrack, or the last NAT chain, goes away in a network namespace, the kernel
takes its conntrack or NAT hooks off, and packets of translated connections are no longer translated: the
connections hang although their entries are still listed (measured; on nodes where something else uses both,
one does not notice). So a table of our own has one rule that looks at conntrack's state and changes
nothing, and an empty NAT chain per hook.

`forwarding` is the other half: what KUBE-FORWARD accepted must still be accepted.
"""

from handover_agent.kubeproxy import forwarding, nftables
from handover_agent.kubeproxy.errors import ToolFailed
from handover_agent.kubeproxy.forwarding import NOTHING, Recorded

TABLE = "handover"
_FORMS = (("inet",), ("ip", "ip6"))  # NAT chains in `inet` need kernel 5.2
_CHAINS = (
    ("keep-conntrack", "filter", "prerouting", -150),
    ("keep-nat-prerouting", "nat", "prerouting", -100),
    ("keep-nat-output", "nat", "output", -100),
    ("keep-nat-postrouting", "nat", "postrouting", 100),
)
_RULE = 'ct state established,related accept comment "keeps conntrack in use; accepts in this chain only"'


def ensure(recorded: Recorded = NOTHING) -> None:
    """Put the keeper in place, or repair it; `recorded` as for `forwarding.ensure`. Idempotent. Raises KubeProxyError."""
    if not _complete():
        try:
            nftables.apply(_transaction(_FORMS[0]))
        except ToolFailed:
            nftables.apply(_transaction(_FORMS[1]))
    forwarding.ensure(recorded)


def present(recorded: Recorded = NOTHING) -> bool:
    """Whether both halves of the keeper are there and whole."""
    return _complete() and forwarding.present(recorded)


def release() -> None:
    """Take only the table away: for when the connections that it was for have ended, and kube-proxy stays
    away.

    Established traffic is still accepted in FORWARD, as KUBE-FORWARD did for all of it. Idempotent.
    """
    text = "".join(nftables.removal(table) for table in _tables())
    if text:
        nftables.apply(text)


def remove() -> None:
    """Take everything away: for when kube-proxy's rules are back. Idempotent."""
    release()
    forwarding.remove()


def _tables() -> list[nftables.Table]:
    families = {family for form in _FORMS for family in form}
    return sorted(table for table in nftables.tables() if table[1] == TABLE and table[0] in families)


def _complete() -> bool:
    """Whether one of the forms is there with each chain and the rule."""
    there = {family: nftables.listing((family, TABLE)) or "" for family, _ in _tables()}
    return any(
        all(
            f"\tchain {name} {{" in there.get(family, "")
            and "ct state established,related accept" in there[family]
            for family in form
            for name, *_ in _CHAINS
        )
        for form in _FORMS
    )


def _transaction(families: tuple[str, ...]) -> str:
    lines: list[str] = []
    for family in families:
        lines.append(f"add table {family} {TABLE}")
        for name, kind, hook, priority in _CHAINS:
            head = f"type {kind} hook {hook} priority {priority}; policy accept;"
            lines.append(f"add chain {family} {TABLE} {name} {{ {head} }}")
            lines.append(f"flush chain {family} {TABLE} {name}")
        lines.append(f"add rule {family} {TABLE} {_CHAINS[0][0]} {_RULE}")
    return "\n".join((*lines, ""))
