"""The only place that writes a ProxyMigration's status.

By server-side apply on the subresource, the whole of it each time, and not at all when it says what is there
already: so a quiet migration causes no traffic, no event and no drift.
"""

from dataclasses import replace

from handover_api.proxymigration import Phase, ProxyMigrationStatus

from handover_operator import places
from handover_operator.api import Api, ConflictError, NotFoundError
from handover_operator.cluster import Cluster
from handover_operator.facts import MigrationFacts
from handover_operator.plan import Plan
from handover_operator.reasons import Reason
from handover_operator.verdict import Verdict


class StatusWriter:
    """Writes statuses, each only when it differs from the one that stands there."""

    def __init__(self, api: Api, cluster: Cluster) -> None:
        self._api = api
        self._cluster = cluster

    async def write(self, migration: MigrationFacts, status: ProxyMigrationStatus) -> bool:
        """Write it if it is news; whether it was. Raises ApiError, but not when the object is gone."""
        if says_the_same(migration.status, status):
            return False
        body = {
            "metadata": {"name": migration.name, "uid": migration.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            place = places.PROXY_MIGRATION.at(migration.name)
            self._cluster.learn(await self._api.apply(place, body, subresource="status"))
        except (NotFoundError, ConflictError):
            return False  # deleted, or replaced by another of its name
        return True


def says_the_same(there: ProxyMigrationStatus, wanted: ProxyMigrationStatus) -> bool:
    """Whether writing would change nothing. Conditions have no order, and others may keep some of their own there."""
    ours = {condition.type: condition for condition in wanted.conditions}
    found = {condition.type: condition for condition in there.conditions if condition.type in ours}
    return ours == found and there.model_copy(update={"conditions": wanted.conditions}) == wanted


def refused(plan: Plan, message: str) -> Plan:
    """The same plan, told as what it is when one of its actions is refused: a person is needed."""
    text = f"{message}. It is tried again and again. {plan.verdict.message}"[:4096]
    return replace(plan, verdict=Verdict(Phase.STALLED, Reason.ACTION_REFUSED, text, stalled=True))


def blind(migration: MigrationFacts, message: str) -> Plan:
    """No plan, because something may not be looked at: what was known stays, and the message says why."""
    old = migration.status
    text = f"{message}. Nothing is planned until then."[:4096]
    return Plan(
        Verdict(Phase.STALLED, Reason.NOT_ALLOWED_TO_SEE, text, stalled=True),
        counts=old.nodes,
        current_nodes=tuple(old.current_nodes),
        failed_nodes=tuple(old.failed_nodes),
        failures=tuple(old.failures),
        reverted_generation=old.reverted_generation,
        begun=old.begun,
    )
