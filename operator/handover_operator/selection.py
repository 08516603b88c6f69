"""Which nodes a migration is about, and which of them may start now.

A slot is taken by every node between Shadow and a passed soak, in either direction. Canaries go one at a time, then
as many as `maxUnavailable` says. A zone keeps at least one Ready node that is not in flight; only a zone with a single
Ready node may be wholly in flight, and only one such zone at a time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from handover_operator.standing import Standing


class InvalidSpecError(ValueError):
    """The ProxyMigration asks for something that has no meaning; admission would have refused it."""


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node carries all of the selector's labels; an empty selector matches every node."""
    return all(labels.get(key) == value for key, value in selector.items())


def max_unavailable(value: int | str, nodes: int) -> int:
    """How many nodes may be in flight: a number, or per cent of the nodes, rounded down, never less than 1.

    Raises InvalidSpecError for anything that is not a number of at least 1 or 1% to 100%.
    """
    text = str(value)
    digits = text.removesuffix("%")
    limit = int(digits) if digits.isascii() and digits.isdigit() else 0
    if limit < 1 or (text.endswith("%") and limit > 100):
        raise InvalidSpecError(
            f"spec.rollout.maxUnavailable is {value!r}: write a number of at least 1, or 1% to 100%"
        )
    return max(1, nodes * limit // 100) if text.endswith("%") else limit


def slots_up(standings: Iterable[Standing], passed: int, canary: int, limit: int) -> int:
    """How many more nodes may start on the way up."""
    allowed = 1 if passed < canary else limit
    return max(0, allowed - sum(s.in_flight for s in standings))


def slots_down(standings: Iterable[Standing], limit: int) -> int:
    """How many more nodes may start on the way down."""
    return max(0, limit - sum(s.in_flight for s in standings))


class Zones:
    """Who is in flight in which zone, while nodes are being chosen."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self._grounded: dict[str, int] = defaultdict(int)  # Ready, not in flight
        self._flying: dict[str, int] = defaultdict(int)
        for s in standings:
            if not s.node.exists:
                continue
            if s.in_flight:
                self._flying[s.node.zone] += 1
            elif s.node.ready:
                self._grounded[s.node.zone] += 1

    def admits(self, s: Standing) -> bool:
        """Whether this node may start without leaving its zone, or a second zone, without a node on the ground."""
        zone = s.node.zone
        left = self._grounded[zone] - (1 if s.node.ready else 0)
        if left > 0:
            return True
        alone = self._flying[zone] == 0
        return alone and not any(
            count > 0 and self._grounded[other] == 0 for other, count in self._flying.items() if other != zone
        )

    def start(self, s: Standing) -> None:
        """Count this node as in flight from now on."""
        if s.node.ready:
            self._grounded[s.node.zone] -= 1
        self._flying[s.node.zone] += 1


def choose(candidates: Sequence[Standing], slots: int, zones: Zones) -> tuple[list[Standing], list[Standing]]:
    """The candidates that start now, in their order, and those that only their zone held back."""
    chosen: list[Standing] = []
    held_back: list[Standing] = []
    for s in candidates:
        if len(chosen) >= slots:
            break
        if zones.admits(s):
            zones.start(s)
            chosen.append(s)
        else:
            held_back.append(s)
    return chosen, held_back
