"""What a trace says of each step of the way, line by line: pure."""

from collections.abc import Iterator, Sequence

from handover_agent.kubeproxy.served import Answer, Verdict
from handover_agent.showing.connections import Connection
from handover_agent.showing.listing import ago, number
from handover_agent.showing.trace.cluster import Member
from handover_agent.showing.trace.considering import Considered
from handover_agent.showing.trace.endpoints import Sorted, is_local
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.path import Way
from handover_agent.table import FrontendFlags, Scope, ip_text

_MOST = 10
_FLAGS = {
    FrontendFlags.REFUSE: "no endpoint anywhere: connections are refused",
    FrontendFlags.DROP: "a Local policy without an endpoint on this node: connections time out",
    FrontendFlags.AFFINITY: "session affinity: a client stays with its backend",
    FrontendFlags.MASQUERADE: "packets to its backends get this node's address as their source (sockets need not)",
    FrontendFlags.SOURCES: "only the Service's loadBalancerSourceRanges may connect",
}


def name(facts: Facts) -> Iterator[str]:
    """What the cluster's DNS says, where a name was asked."""
    if facts.target.address is not None:
        return
    answer, direct = facts.answer, facts.direct_answer
    if answer is None:
        yield "the cluster's DNS was not asked: neither our maps nor the API server say where it is"
        return
    alias = f" (an alias of {answer.alias})" if answer.alias else ""
    if answer.addresses:
        told = ", ".join(map(ip_text, answer.addresses))
        yield f"{answer.name}{alias} is {told}, says the cluster's DNS at {answer.server}"
    else:
        yield f"{answer.name}: {answer.problem} (the cluster's DNS at {answer.server})"
    if direct is not None:
        told = ", ".join(map(ip_text, direct.addresses)) or direct.problem
        broken = (
            "the way to its Service is broken, not the server" if direct.answered else "the server is down"
        )
        yield f"its backend {direct.server}, asked directly: {told}; {broken}"
    service = facts.seen.service
    if service is not None and service.cluster_ips and answer.addresses:
        strange = [ip_text(a) for a in answer.addresses if a not in service.cluster_ips]
        if strange:
            yield f"{', '.join(strange)} is no ClusterIP of Service {service.key}: DNS is behind, or means another"


def service(facts: Facts) -> Iterator[str]:
    """The Service and its policies, as the API server has them."""
    service, seen = facts.seen.service, facts.seen
    if service is None:
        for thing in seen.missing:
            yield f"the API server has no {thing}"
        return
    spec = seen.raw.get("spec") or {}
    words_ = [f"{service.key}, type {spec.get('type', 'ClusterIP')}"]
    if service.skipped:
        yield f"{words_[0]}: not served by a node proxy (headless, ExternalName, or another proxy's)"
        return
    words_.append(f"internalTrafficPolicy {spec.get('internalTrafficPolicy') or 'Cluster'}")
    if spec.get("externalTrafficPolicy"):
        words_.append(f"externalTrafficPolicy {spec['externalTrafficPolicy']}")
    if service.affinity_timeout_s:
        words_.append(f"sessionAffinity ClientIP for {ago(service.affinity_timeout_s)}")
    if spec.get("trafficDistribution"):
        words_.append(f"trafficDistribution {spec['trafficDistribution']}")
    yield ", ".join(words_)


def frontend(facts: Facts) -> Iterator[str]:
    """The frontend in our maps, and what its flags mean."""
    held, asked = facts.frontend, facts.destination
    if held is None:
        if facts.ground.attached.loaded:
            yield f"none in our maps for {asked}"
        return
    if held.rest:
        yield f"{held.frontend} {_scope(held.key.scope)}: all that is no port of this ClusterIP"
    else:
        yield f"{held.frontend} {_scope(held.key.scope)}, of Service port {held.service}"
    for flag, text in _FLAGS.items():
        if flag in held.value.flags and not held.rest:
            yield text


def _scope(scope: Scope) -> str:
    return "(for what arrives from outside)" if scope is Scope.EXTERNAL else "(for what starts on this node)"


_WAYS = {
    Way.SOCKET: "at the socket: {hook} changes the destination when a process names it",
    Way.PACKET: "packet by packet: {hook} on {device}",
    Way.KUBE_PROXY: "kube-proxy's rules",
    Way.NOBODY: "nobody translates it",
}


def path(told: Considered) -> Iterator[str]:
    """Who takes the connection, why, and what kube-proxy's rules do."""
    choice, ground = told.choice, told.facts.ground
    yield _WAYS[choice.way].format(hook=choice.hook, device=choice.device)
    yield from (f"because {why}" if not index else f"and {why}" for index, why in enumerate(choice.why))
    yield f"rung {ground.rung}; kube-proxy's rules: {_rules(told)}"


def _rules(told: Considered) -> str:
    if told.facts.ground.rules is None:
        return "not known"
    if not told.facts.ground.mode:
        return "none on this node"
    answer = told.theirs
    if answer is None:
        return f"there ({told.facts.ground.mode}), none for this destination"
    text = f"there ({told.facts.ground.mode}), {_answer(answer)}"
    if told.choice.way in (Way.SOCKET, Way.PACKET) and told.facts.frontend is not None:
        same = answer.backends == frozenset(told.facts.frontend.backends)
        text += (
            "; ours come first, with the same backends" if same else "; ours come first, with other backends"
        )
    return text


def _answer(answer: Answer) -> str:
    if answer.verdict is Verdict.SERVED:
        return f"to {number(len(answer.backends), 'backend')}"
    return "refuse it" if answer.verdict is Verdict.REFUSED else "drop it"


def region(facts: Facts) -> Iterator[str]:
    """Where the frontend's backends are, and by which policy."""
    held = facts.frontend
    if held is None or not held.value.slots:
        return
    first, length = held.value.offset, held.value.slots
    slots = f"slot {first}" if length == 1 else f"slots {first} to {first + length - 1}"
    more = f", and {len(held.draining)} that keep the flows that they have" if held.draining else ""
    yield f"{slots} of the backend array: {number(held.value.count, 'backend')}{more}"
    service = facts.seen.service
    if service is None:
        return
    if is_local(service, held.key):
        yield "policy Local: this node's endpoints only"
    else:
        hints = any(e.node_hints or e.zone_hints for s in facts.seen.slices for e in s.endpoints)
        yield "policy Cluster: all endpoints" + (", as topology hints allow" if hints else "")


def backends(endpoints: Sorted) -> Iterator[str]:
    """What a new connection may go to."""
    shown = endpoints.chosen[:_MOST]
    for backend, member in shown:
        yield f"{backend}   {_member(member)}"
    if len(endpoints.chosen) > _MOST:
        yield f"and {len(endpoints.chosen) - _MOST} more"


def left_out(endpoints: Sorted) -> Iterator[str]:
    """Endpoints that get no new connections from here, and why."""
    for member, why in endpoints.left_out[:_MOST]:
        yield f"{member.backend}   {_member(member)}: {why}"
    if len(endpoints.left_out) > _MOST:
        yield f"and {len(endpoints.left_out) - _MOST} more"


def _member(member: Member | None) -> str:
    if member is None:
        return "in no EndpointSlice that could be read"
    what = f"pod {member.pod}" if member.pod else "no pod"
    where = f" on {member.node}" if member.node else ""
    return f"{what}{where}, {member.condition}, EndpointSlice {member.slice}"


def affinity(facts: Facts) -> Iterator[str]:
    """Whether this client stays with a backend."""
    held = facts.frontend
    if held is None or not held.value.flags & FrontendFlags.AFFINITY:
        return
    stay = facts.stay
    if stay is None and not facts.client_known:
        yield "which entry is this pod's is not known here: `handover-agent affinity` shows them by namespace"
    elif stay is None:
        yield "this client has no entry: the next connection chooses, and makes one"
    elif stay.state == "valid":
        yield f"{stay.client} stays with {stay.entry.backend}, for {ago(stay.left_s or 0)} after its last connection"
    else:
        yield f"{stay.client} has an entry for {stay.entry.backend} that does not count ({stay.state})"


def connections(connections: Sequence[Connection]) -> Iterator[str]:
    """What is there already."""
    for c in connections[:_MOST]:
        idle = "" if c.idle_s is None else f", idle {ago(c.idle_s)}"
        yield f"{c.path}: {c.client_text} → {c.backend}, {c.state}{idle}"
    if len(connections) > _MOST:
        yield f"and {len(connections) - _MOST} more (handover-agent flows)"


def agreement(told: Considered) -> Iterator[str]:
    """Whether the maps hold what the cluster wants."""
    facts = told.facts
    if facts.seen.service is None or facts.seen.node is None or not facts.ground.attached.loaded:
        return
    if told.difference:
        yield f"{told.difference}: the agent follows within a moment; if it stays so, see `handover-agent check`"
    elif facts.frontend is not None:
        yield "the maps hold what the cluster wants now"
