"""What several parts of a trace's story need, worked out once: pure."""

from dataclasses import dataclass

from handover_agent.kubeproxy.served import Answer, is_ipv4
from handover_agent.showing.trace.destination import is_service_address, port_name
from handover_agent.showing.trace.endpoints import Sorted, agreement, sort, wanted
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.path import Choice, choose
from handover_agent.table import Backend


@dataclass(frozen=True, slots=True)
class Considered:
    """The facts, and what follows from them."""

    facts: Facts
    choice: Choice
    theirs: Answer | None
    """What kube-proxy's rules do with it."""
    endpoints: Sorted
    difference: str

    @property
    def backends(self) -> tuple[Backend, ...]:
        return tuple(backend for backend, _ in self.endpoints.chosen)


def consider(facts: Facts) -> Considered:
    """The way, the endpoints, and where maps and cluster differ."""
    destination, rules = facts.destination, facts.ground.rules
    theirs = rules.get(destination.key) if rules is not None else None
    held = facts.frontend
    choice = choose(
        facts.source,
        destination.protocol,
        held.value if held else None,
        is_ipv4(destination.address),
        facts.ground.attached,
        None if rules is None else theirs is not None,
    )
    if held is None and theirs is not None:
        backends: tuple[Backend, ...] = tuple(sorted(theirs.backends))
    else:
        backends = held.backends if held else ()
    name = port_name(held.service) if held else _named(facts)
    # By us or by kube-proxy: else nobody is chosen, and nobody left out.
    served = backends if held is None else not held.rest
    members = list(facts.seen.members(name, destination.protocol.name)) if served else []
    key = held.key if held else destination.key
    node = facts.seen.node.name if facts.seen.node else ""
    endpoints = sort(backends, held.draining if held else (), members, key, facts.seen, node)
    entry = wanted(facts.seen, key, facts.ground.local)
    known = facts.seen.service is not None and facts.seen.node is not None and facts.ground.attached.loaded
    if (entry is None or held is None) and not is_service_address(destination.address, facts.seen.service):
        known = False  # on which of its addresses a node has NodePorts, the agent alone has found out
    return Considered(facts, choice, theirs, endpoints, agreement(held, entry) if known else "")


def _named(facts: Facts) -> str:
    """The name of the Service's port that was asked for, where no frontend tells it."""
    for name, protocol, port, node_port in facts.seen.ports():
        if protocol == facts.destination.protocol.name and facts.destination.port in (port, node_port):
            return name
    return ""
