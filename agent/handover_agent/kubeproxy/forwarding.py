"""Goes on accepting what KUBE-FORWARD accepted, in the chain in which it accepted it.

Where the FORWARD policy is DROP (Docker sets it), replies of forwarded connections pass only because
KUBE-FORWARD accepts established and service-marked traffic. An accept in an nft table of our own would not
help: the packet still goes through iptables' FORWARD. So wherever kube-proxy has its jump, a chain of ours
with the same accepts stands right behind it. It stays for as long as kube-proxy is gone, not only until old
connections have ended: kube-proxy accepted the replies of all established connections, pods' own included.

And it accepts what the packet path translated, known by its mark: KUBE-FORWARD accepts what kube-proxy marked.
"""

from handover_agent.kubeproxy import iptables
from handover_agent.kubeproxy.iptables import SOURCES
from handover_agent.kubeproxy.ownership import owns_jump
from handover_agent.kubeproxy.rulesets import Rules
from handover_agent.marks import Mark

CHAIN = "HANDOVER-FORWARD"
_OURS = f"-m mark --mark {Mark.OURS:#x}/{Mark.OURS:#x} -j ACCEPT"
_JUMP = f'-m comment --comment "handover: accept what KUBE-FORWARD accepted" -j {CHAIN}'


def ensure() -> None:
    """Put our chain behind each jump to KUBE-FORWARD. Idempotent; without such a jump nothing changes."""
    for source in SOURCES:
        text = addition(iptables.read(source).get("filter"))
        if text:
            iptables.apply(source, text)


def present() -> bool:
    """Whether every set of rules that has KUBE-FORWARD in force has our chain behind it."""
    return not any(addition(iptables.read(source).get("filter")) for source in SOURCES)


def remove() -> None:
    """Take our chain and the jump away from every set of rules. Idempotent."""
    for source in SOURCES:
        text = subtraction(iptables.read(source).get("filter"))
        if text:
            iptables.apply(source, text)


def addition(table: Rules | None) -> str:
    """The transaction that puts our chain in place; empty when it is, or when KUBE-FORWARD is not used."""
    if table is None or "FORWARD" not in table.chains or "KUBE-FORWARD" not in table.chains:
        return ""
    forward = table.chains["FORWARD"].rules
    theirs = [rule for rule in forward if rule.target == "KUBE-FORWARD" and owns_jump("filter", rule)]
    if not theirs:
        return ""
    accepts = [rule.text for rule in table.chains["KUBE-FORWARD"].rules if rule.target == "ACCEPT"]
    accepts.append(_OURS)
    ours = [rule for rule in forward if rule.target == CHAIN]
    have = [rule.text for rule in table.chains[CHAIN].rules] if CHAIN in table.chains else []
    if have == accepts and len(ours) == 1:
        return ""
    others = [rule for rule in forward if rule not in ours]
    lines = [f":{CHAIN} - [0:0]", *(f"-A {CHAIN} {text}" for text in accepts)]
    lines += [f"-D FORWARD {rule.text}" for rule in ours]
    lines.append(f"-I FORWARD {others.index(theirs[-1]) + 2} {_JUMP}")
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def subtraction(table: Rules | None) -> str:
    """The transaction that takes our chain away; empty when it is not there."""
    if table is None or CHAIN not in table.chains:
        return ""
    jumps = [f"-D {rule.chain} {rule.text}" for rule in table.rules if rule.target == CHAIN]
    return "\n".join(("*filter", f":{CHAIN} - [0:0]", *jumps, f"-X {CHAIN}", "COMMIT", ""))
