"""The phases of the demo's table, from where the nodes stand. Pure."""

from collections.abc import Sequence

from handover_api.base import Rung

from e2e.standings import Standing

BASELINE = "baseline"
SOAK = "soak"
SERVICE = "Service created and scaled"
WAY_BACK = "way back"
AFTERWARDS = "kube-proxy alone again"


def way_up(node: str) -> str:
    """The name of the phase in which a node climbs."""
    return f"{node} on its way up"


def on_the_way_up(standings: Sequence[Standing]) -> str:
    """The phase while nodes climb: whose way up it is, or a soak when all that started stand on Sole."""
    climbing = [s for s in standings if s.wanted is not Rung.STANDBY and s.rung is not Rung.SOLE]
    if climbing:
        return way_up(climbing[0].node)
    if any(s.rung is Rung.SOLE for s in standings):
        return SOAK
    return BASELINE
