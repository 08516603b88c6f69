"""Goes on accepting what KUBE-FORWARD accepted, in the chain in which it accepted it.

Where the FORWARD policy is DROP (Docker sets it), replies of forwarded connections pass only because
KUBE-FORWARD accepts established and service-marked traffic. An accept in an nft table of our own would not
help: the packet still goes through iptables' FORWARD. So wherever kube-proxy has its jump, a chain of ours
with the same accepts stands right behind it. It stays for as long as kube-proxy is gone, not only until old
connections have ended: kube-proxy accepted the replies of all established connections, pods' own included.

Once kube-proxy's rules are gone, only the snapshot knows what they accepted, and where: by it the chain is made anew
after a reboot, or when somebody has loaded a firewall.

And it accepts what the packet path translated, known by its mark: KUBE-FORWARD accepts what kube-proxy marked.
"""

from collections.abc import Mapping
from types import MappingProxyType

from handover_agent.kubeproxy import iptables
from handover_agent.kubeproxy.iptables import SOURCES, Source
from handover_agent.kubeproxy.ownership import owns_jump
from handover_agent.kubeproxy.restoring import merged
from handover_agent.kubeproxy.rulesets import Rule, Rules
from handover_agent.marks import Mark

CHAIN = "HANDOVER-FORWARD"
_OURS = f"-m mark --mark {Mark.OURS:#x}/{Mark.OURS:#x} -j ACCEPT"
_JUMP = f'-m comment --comment "handover: accept what KUBE-FORWARD accepted" -j {CHAIN}'


Recorded = Mapping[Source, Rules]
"""The filter tables of a snapshot."""
NOTHING: Recorded = MappingProxyType({})


def ensure(recorded: Recorded = NOTHING) -> None:
    """Put our chain behind each jump to KUBE-FORWARD, or where it was. Idempotent; without either nothing changes."""
    for source in SOURCES:
        text = addition(iptables.read(source).get("filter"), recorded.get(source))
        if text:
            iptables.apply(source, text)


def present(recorded: Recorded = NOTHING) -> bool:
    """Whether our chain is wherever KUBE-FORWARD is in force, or was when it was recorded."""
    return not any(addition(iptables.read(source).get("filter"), recorded.get(source)) for source in SOURCES)


def remove() -> None:
    """Take our chain and the jump away from every set of rules. Idempotent."""
    for source in SOURCES:
        text = subtraction(iptables.read(source).get("filter"))
        if text:
            iptables.apply(source, text)


def addition(table: Rules | None, recorded: Rules | None = None) -> str:
    """The transaction that puts our chain in place; empty when it is, or when KUBE-FORWARD neither is nor was used."""
    if table is None or "FORWARD" not in table.chains:
        return ""
    forward = table.chains["FORWARD"].rules
    ours = [rule for rule in forward if rule.target == CHAIN]
    others = [rule for rule in forward if rule not in ours]
    if theirs := _jumps(table):
        model, place = table, others.index(theirs[-1]) + 2
    elif recorded is not None and (theirs := _jumps(recorded)):
        model = recorded
        place = merged(recorded.chains["FORWARD"].rules, theirs[-1:], others, ()).index(theirs[-1]) + 1
    else:
        return ""
    accepts = [rule.text for rule in model.chains["KUBE-FORWARD"].rules if rule.target == "ACCEPT"]
    accepts.append(_OURS)
    have = [rule.text for rule in table.chains[CHAIN].rules] if CHAIN in table.chains else []
    if have == accepts and len(ours) == 1:
        return ""
    lines = [f":{CHAIN} - [0:0]", *(f"-A {CHAIN} {text}" for text in accepts)]
    lines += [f"-D FORWARD {rule.text}" for rule in ours]
    lines.append(f"-I FORWARD {place} {_JUMP}")
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def _jumps(table: Rules) -> list[Rule]:
    if "FORWARD" not in table.chains or "KUBE-FORWARD" not in table.chains:
        return []
    rules = table.chains["FORWARD"].rules
    return [rule for rule in rules if rule.target == "KUBE-FORWARD" and owns_jump("filter", rule)]


def subtraction(table: Rules | None) -> str:
    """The transaction that takes our chain away; empty when it is not there."""
    if table is None or CHAIN not in table.chains:
        return ""
    jumps = [f"-D {rule.chain} {rule.text}" for rule in table.rules if rule.target == CHAIN]
    return "\n".join(("*filter", f":{CHAIN} - [0:0]", *jumps, f"-X {CHAIN}", "COMMIT", ""))
