"""Services that ask for what they cannot get hear of it, by an Event.

kube-proxy writes such things into its log, where the owner of a Service never looks. Each is told once, and again when
it has been put right and comes back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from handover_agent.bypassed import Found
from handover_agent.events import About, Happening
from handover_agent.objects import Service
from handover_agent.pressure import MORE_ROOM, PASSING, PRESSED_AT
from handover_agent.wanted import Dispute

_MOST = 200


def of_services(services: Iterable[Service]) -> list[Happening]:
    """What is odd about a Service by itself."""
    return [
        Happening(About.service(service.key), oddity.reason, "Compile", oddity.message)
        for service in services
        for oddity in service.oddities
    ]


def of_disputes(disputes: Iterable[Dispute]) -> list[Happening]:
    """Frontends that another Service has."""
    return [
        Happening(
            About.service(loser),
            "AddressTaken",
            "Compile",
            f"{key} belongs to Service {owner} (a ClusterIP goes first, then the older Service): connections go there",
        )
        for key, loser, owner in disputes
        if key.port
    ]


def of_unwritten(unwritten: Mapping[str, str], node: str) -> list[Happening]:
    """Service ports ("namespace/name:port/PROTOCOL") whose frontends could not be written here."""
    return [
        Happening(
            About.service(port.partition(":")[0]),
            "FrontendNotWritten",
            "Write",
            f"node {node} does not serve {reason}",
        )
        for port, reason in unwritten.items()
    ]


def of_health_check(service: str, port: int, error: Exception, node: str) -> Happening:
    """A health check port that cannot be opened on this node, in kube-proxy's words."""
    message = f"node {node} failed to start healthcheck {service!r} on port {port}: {error}"
    return Happening(About.service(service), "FailedToStartServiceHealthcheck", "Listen", message)


def of_full_maps(full: Mapping[str, int], node: str) -> list[Happening]:
    """Maps of this node that have no room for all that is wanted."""
    return [
        Happening(
            About("Node", node),
            "MapFull",
            "Write",
            f"BPF map {name} has no room: frontends are not as wanted. Metric handover_map_pressure_ratio tells how "
            f"full maps are, handover_frontends_failed how many frontends wait",
        )
        for name in sorted(full)
    ]


def of_pressed_maps(ratios: Mapping[str, float], node: str) -> list[Happening]:
    """Maps of this node in which what was silent longest is about to be forgotten, or is already."""
    return [
        Happening(
            About("Node", node),
            "MapPressed",
            "Write",
            f"BPF map {name} is nearly full: the connections that were silent longest are forgotten for new ones. "
            f"{MORE_ROOM}",
        )
        for name, ratio in sorted(ratios.items())
        if ratio >= PRESSED_AT and name not in PASSING
    ]


def of_bypassed(found: Sequence[Found], node: str) -> list[Happening]:
    """Others' rules that this node's programs are ahead of; the first stands for all, as they change together."""
    if not found:
        return []
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [
        Happening(
            About("Node", node),
            "RulesBypassed",
            "Look",
            f"packets from outside no longer meet this rule before they have their backend's address: "
            f"{found[0].place}: {found[0].rule}{more}. The NodeMigration's status.bypassed has them all",
        )
    ]


class Complaints:
    """Tells of each once, as long as it lasts."""

    def __init__(self, tell: Callable[[Happening], None]) -> None:
        self._tell = tell
        self._known: set[Happening] = set()

    def now(self, happenings: Iterable[Happening]) -> None:
        """These are all that there are at the moment. Beyond a bound, the rest waits until some are gone."""
        current = set(list(happenings)[:_MOST])
        for happening in current - self._known:
            self._tell(happening)
        self._known = current
