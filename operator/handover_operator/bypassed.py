"""Rules of others' that come before kube-proxy's DNAT, and that our programs would get ahead of.

A node that has any keeps kube-proxy until the owner says otherwise. They are asked for again before the cutover, as our
programs are attached from then on. A node that is past it stays where it is, whatever comes: it is told of.
"""

from collections.abc import Collection, Sequence

from handover_api.base import Feature, Rung
from handover_api.nodemigration import BypassedRule

from handover_operator.gates import Block, Kind
from handover_operator.reasons import Reason
from handover_operator.standing import Standing

_TOLD = 3  # rules that are told in full


def gate(s: Standing, acknowledged: Collection[Feature]) -> Block | None:
    """The agent has looked for such rules, and there are none, or the owner goes on without them."""
    if Feature.RULES_BEFORE_DNAT in acknowledged:
        return None
    found = s.status.bypassed
    if found is None:
        return Block(
            Kind.WAIT,
            Reason.AGENT_NOT_READY,
            s.name,
            "its agent to have looked for rules before kube-proxy's DNAT",
            "it has not yet, or is of a release that does not",
            "If that lasts, its log says why it cannot.",
        )
    if not found:
        return None
    return Block(
        Kind.REFUSE,
        Reason.RULES_BYPASSED,
        s.name,
        "no rules that decide about NodePorts, load balancers' or external addresses before kube-proxy's DNAT",
        _some(found),
        "Our datapath would be ahead of them, and they would decide nothing. Let something behind it decide (a policy"
        " for the pods, rules about the pods' addresses in FORWARD, loadBalancerSourceRanges, nodePortAddresses) and"
        f" remove them; or add {Feature.RULES_BEFORE_DNAT} to spec.acknowledge; or leave the node out with"
        " spec.nodeSelector.",
    )


def told(standings: Sequence[Standing], acknowledged: Collection[Feature]) -> str:
    """One sentence about nodes whose programs are ahead of such rules already; empty when there are none."""
    if Feature.RULES_BEFORE_DNAT in acknowledged:
        return ""
    found = [(s.name, s.status.bypassed) for s in standings if _attached(s) and s.status.bypassed]
    if not found:
        return ""
    names = ", ".join(name for name, _ in found[:10]) + (
        f" and {len(found) - 10} more" if len(found) > 10 else ""
    )
    return f"Rules before kube-proxy's DNAT are bypassed on {names}; on the first: {_some(found[0][1])}."


def _attached(s: Standing) -> bool:
    return s.reached.height >= Rung.SERVING.height


def _some(rules: Sequence[BypassedRule]) -> str:
    more = f"; and {len(rules) - _TOLD} more" if len(rules) > _TOLD else ""
    return "; ".join(f"{each.place}, {each.rule}" for each in rules[:_TOLD]) + more
