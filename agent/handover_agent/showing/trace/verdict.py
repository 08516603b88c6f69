"""What becomes of a new connection, in one sentence: pure."""

from handover_agent.kubeproxy.served import Answer, Verdict
from handover_agent.showing.trace.asking import Origin
from handover_agent.showing.trace.considering import Considered
from handover_agent.showing.trace.destination import is_service_address
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.path import Way
from handover_agent.showing.trace.story import Outcome
from handover_agent.table import Backend, FrontendFlags, Scope


def judge(told: Considered) -> tuple[Outcome, str]:
    """The outcome, and what to say of it."""
    facts, choice = told.facts, told.choice
    held = facts.frontend
    if choice.way is Way.KUBE_PROXY and told.theirs is not None:
        return _by_kube_proxy(told.theirs)
    if choice.way is Way.NOBODY or held is None:
        return _by_nobody(facts)
    if held.rest:
        own = ", ".join(f"{port}/{protocol}" for _, protocol, port, _ in facts.seen.ports())
        return Outcome.REFUSED, "the ClusterIP has no such port" + (f"; its ports are {own}" if own else "")
    flags = held.value.flags
    if flags & FrontendFlags.SOURCES and facts.admitted is False:
        return Outcome.DROPPED, f"{facts.source.text} is in none of the Service's loadBalancerSourceRanges"
    if flags & FrontendFlags.REFUSE:
        return (
            Outcome.REFUSED,
            f"{held.service} has no endpoint: look at its selector and at its pods' readiness",
        )
    if flags & FrontendFlags.DROP:
        return (
            Outcome.DROPPED,
            "the policy is Local and no endpoint is on this node: the client sees a time-out",
        )
    if not held.backends:
        return (
            Outcome.UNSERVED,
            "the frontend has no backends and no flag that says why: `handover-agent check`",
        )
    return Outcome.SERVED, _served(told)


def _served(told: Considered) -> str:
    facts, held = told.facts, told.facts.frontend
    assert held is not None  # noqa: S101 - the caller looked
    if facts.stay is not None and facts.stay.state == "valid":
        text = f"a new connection goes to {facts.stay.entry.backend}, by affinity"
    elif len(held.backends) == 1:
        text = f"a new connection goes to {held.backends[0]}, the only backend"
    else:
        text = f"a new connection goes to one of {len(held.backends)} backends, with equal chances"
        if held.value.flags & FrontendFlags.AFFINITY and not facts.client_known:
            text = f"a new connection goes to one of {len(held.backends)} backends: the client's own, if it has one"
    if told.choice.way is Way.PACKET:
        outside = facts.source.origin is Origin.OUTSIDE and held.key.scope is Scope.INTERNAL
        hairpin = facts.source.address in {b.address for b in held.backends}
        if held.value.flags & FrontendFlags.MASQUERADE or outside:
            text += "; the backend sees this node's address"
        elif hairpin:
            text += "; where that is the client itself, it sees this node's address"
        else:
            text += "; the backend sees the client's address"
    if held.value.flags & FrontendFlags.SOURCES and facts.admitted is None:
        text += ", if the address that it is sent from is in loadBalancerSourceRanges"
    return text


def _by_kube_proxy(answer: Answer) -> tuple[Outcome, str]:
    if answer.verdict is Verdict.REFUSED:
        return Outcome.REFUSED, "kube-proxy's rules refuse it: no endpoint is ready"
    if answer.verdict is Verdict.DROPPED:
        return Outcome.DROPPED, "kube-proxy's rules drop it: a Local policy without an endpoint on this node"
    ends = sorted(answer.backends)
    to = str(ends[0]) if len(ends) == 1 else f"one of {len(ends)} backends"
    restricted = ", if its source is in loadBalancerSourceRanges" if answer.restricted else ""
    return Outcome.SERVED, f"kube-proxy's rules send a new connection to {to}{restricted}"


def _by_nobody(facts: Facts) -> tuple[Outcome, str]:
    destination, service, held = facts.destination, facts.seen.service, facts.frontend
    if held is not None and held.value.flags & FrontendFlags.DROP and facts.ground.attached.accepting:
        return Outcome.DROPPED, "the policy is Local and no endpoint is on this node: nobody answers there"
    if held is None and destination.address in facts.ground.local:
        return (
            Outcome.DIRECT,
            "an address of this node's own: whoever listens there is meant (NodeLocal DNSCache, say)",
        )
    ours = held is not None or is_service_address(destination.address, service)
    if ours and not (service is not None and service.skipped):
        return (
            Outcome.UNSERVED,
            "a Service's address, and nobody on this node translates it: `handover-agent check`",
        )
    what = (
        "a headless Service's name leads to its pods directly"
        if service is not None
        else "no Service's address"
    )
    return Outcome.DIRECT, f"{what}: it goes to {Backend(destination.address, destination.port)} as it is"
