"""The facts of a trace as a document for programs: pure."""

from handover_agent.showing.frontends import words
from handover_agent.showing.trace.cluster import Member
from handover_agent.showing.trace.endpoints import Sorted
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.path import Choice
from handover_agent.table import Backend, ip_text


def of(facts: Facts, choice: Choice, endpoints: Sorted, difference: str) -> dict[str, object]:
    """Everything but the words."""
    destination, source, held = facts.destination, facts.source, facts.frontend
    return {
        "to": {
            "asked": facts.target.text,
            "address": ip_text(destination.address),
            "port": destination.port,
            "protocol": destination.protocol.name,
        },
        "from": {
            "origin": source.origin,
            "text": source.text,
            "address": None if source.address is None else ip_text(source.address),
            "device": source.device or None,
        },
        "dns": None
        if facts.answer is None
        else {
            "name": facts.answer.name,
            "server": _end(facts.answer.server),
            "addresses": [ip_text(address) for address in facts.answer.addresses],
            "problem": facts.answer.problem or None,
        },
        "rung": facts.ground.rung,
        "service": (facts.seen.service.key if facts.seen.service else None)
        or (held.service.partition(":")[0] if held else None),
        "path": choice.way,
        "hook": choice.hook or None,
        "device": choice.device or None,
        "frontend": None
        if held is None
        else {
            "service_port": held.service,
            "scope": held.key.scope.name.lower(),
            "flags": words(held.value),
            "offset": held.value.offset,
            "count": held.value.count,
            "draining": len(held.draining),
        },
        "backends": [_end(backend) | _member(member) for backend, member in endpoints.chosen],
        "left_out": [_end(m.backend) | _member(m) | {"why": why} for m, why in endpoints.left_out],
        "affinity": None
        if facts.stay is None
        else {
            "client": facts.stay.client,
            "backend": _end(facts.stay.entry.backend),
            "state": facts.stay.state,
            "left_s": facts.stay.left_s,
        },
        "connections": [
            {
                "path": c.path,
                "client": None if c.client is None else _end(c.client),
                "socket_cookie": c.socket,
                "backend": _end(c.backend),
                "state": c.state,
                "idle_s": c.idle_s,
            }
            for c in facts.connections
        ],
        "difference": difference or None,
    }


def _end(end: Backend) -> dict[str, object]:
    return {"address": ip_text(end.address), "port": end.port}


def _member(member: Member | None) -> dict[str, object]:
    if member is None:
        return {"pod": None, "node": None, "condition": None, "slice": None}
    return {
        "pod": member.pod or None,
        "node": member.node or None,
        "condition": member.condition,
        "slice": member.slice,
    }
