"""From all that is known of a connection to the story of its way: pure."""

from handover_agent.showing.trace import documents, steps
from handover_agent.showing.trace.considering import consider
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.story import Step, Story
from handover_agent.showing.trace.verdict import judge


def tell(facts: Facts) -> Story:
    """The story of one connection."""
    told = consider(facts)
    outcome, verdict = judge(told)
    shown = [
        Step(name, lines)
        for name, lines in (
            ("name", tuple(steps.name(facts))),
            ("service", tuple(steps.service(facts))),
            ("frontend", tuple(steps.frontend(facts))),
            ("path", tuple(steps.path(told))),
            ("region", tuple(steps.region(facts))),
            ("backends", tuple(steps.backends(told.endpoints))),
            ("left out", tuple(steps.left_out(told.endpoints))),
            ("affinity", tuple(steps.affinity(facts))),
            ("open now", tuple(steps.connections(facts.connections))),
            ("agreement", tuple(steps.agreement(told))),
        )
        if lines
    ]
    notes = list(facts.notes)
    if facts.destination.others:
        notes.append(f"also there, to be traced by itself: {', '.join(facts.destination.others)}")
    return Story(
        f"{facts.destination} from {facts.source.text}",
        shown,
        outcome,
        verdict,
        documents.of(facts, told.choice, told.endpoints, told.difference),
        notes,
    )
