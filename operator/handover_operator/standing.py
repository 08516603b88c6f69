"""Where one node stands, derived from its facts: the words that all decisions are made in."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus

from handover_operator.facts import NodeFacts

STALE_AFTER_S = 30.0
"""A heartbeat older than this says nothing about now. Agents beat every five seconds."""
LOST_AFTER_S = 120.0
"""After so long a silence a person should look at the agent."""

_NO_SPEC = NodeMigrationSpec(node_name="-")
_NO_STATUS = NodeMigrationStatus()


@dataclass(frozen=True, slots=True)
class Standing:
    """One node as the planner thinks of it."""

    node: NodeFacts
    name: str
    spec: NodeMigrationSpec
    status: NodeMigrationStatus
    known: bool  # a NodeMigration of this very Node is there and not being deleted
    reported: bool  # its agent has ever written a status
    silence_s: float  # since the agent's last word; meaningless when it never reported
    fresh: bool  # the facts are new enough to act on
    observed: bool  # the agent has seen the spec as it is now
    wanted: Rung
    reached: Rung
    resting: bool  # on its rung with a passed soak
    in_flight: bool  # between Shadow and a passed soak, in either direction

    @property
    def lost(self) -> bool:
        """Its agent has reported once, and not been heard of for so long that a person should look."""
        return self.known and self.reported and self.silence_s > LOST_AFTER_S

    @property
    def settled(self) -> bool:
        """The agent has said, about the spec as it is now, that the wanted rung is reached."""
        return self.observed and self.wanted is self.reached

    @property
    def migrated(self) -> bool:
        """On Sole with a passed soak."""
        return self.resting and self.wanted is Rung.SOLE

    @property
    def fell(self) -> bool:
        """It had passed its soak, and now its agent says that it stands lower."""
        return self.spec.soak_passed is not None and self.reached.height < self.wanted.height

    def overdue(self, now: datetime) -> bool:
        """The wanted rung's deadline has passed."""
        return self.spec.deadline is not None and now > self.spec.deadline


def replaced(node: NodeFacts) -> bool:
    """The NodeMigration is about an earlier Node of this name."""
    uid = node.migration.spec.node_uid if node.migration is not None else ""
    return bool(uid and node.uid) and uid != node.uid


def stand(node: NodeFacts, now: datetime) -> Standing:
    """Where a node stands now."""
    migration = node.migration
    known = migration is not None and not migration.deleting and not replaced(node)
    spec, status = (migration.spec, migration.status) if migration is not None else (_NO_SPEC, _NO_STATUS)
    reported = status.heartbeat is not None
    silence_s = (now - status.heartbeat).total_seconds() if status.heartbeat is not None else 0.0
    resting = (
        spec.soak_passed is not None
        and spec.rung is status.rung
        and (spec.rung is Rung.SOLE or (spec.rung is Rung.SERVING and not node.drained))
    )
    off_ground = spec.rung is not Rung.STANDBY or status.rung is not Rung.STANDBY or node.drained
    return Standing(
        node=node,
        name=node.name,
        spec=spec,
        status=status,
        known=known,
        reported=reported,
        silence_s=silence_s,
        fresh=known and reported and silence_s <= STALE_AFTER_S,
        observed=migration is not None and status.observed_generation >= migration.generation,
        wanted=spec.rung,
        reached=status.rung,
        resting=resting,
        in_flight=off_ground and not resting,
    )


def soak_ends(standing: Standing, soak_s: float, now: datetime) -> datetime:
    """When the soak on the rung that a node stands on will be over; from now on when nobody said since when it stands."""
    return (standing.status.rung_since or now) + timedelta(seconds=soak_s)
