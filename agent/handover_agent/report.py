"""The facts of this node, and their way into the NodeMigration's status.

Whoever observes something sets it here; one task writes. News are written at once, numbers that never stand
still (probes, flows, counters) ride along with the heartbeat, so that a quiet node costs the API server one
small write every few seconds and no more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from handover_api.base import API_VERSION
from handover_api.nodemigration import NodeMigrationStatus

from handover_agent.apierrors import ApiError, Conflict, NotFound, Unreachable
from handover_agent.apiserver import NODE_MIGRATIONS, Client

log = logging.getLogger(__name__)

VOLATILE = frozenset(
    {"heartbeat", "old_flows", "translated", "datapath_errors", "probes", "kube_proxy", "parity", "step"}
)
"""Facts that change all the time. What is news in them (see `news`) is looked for more closely."""

_SOONEST_S = 0.2


def news(status: NodeMigrationStatus) -> dict[str, Any]:
    """The part of a status whose change is worth a write at once."""
    facts = status.model_dump(exclude=set(VOLATILE))
    facts["running"] = status.kube_proxy.running
    facts["mode"] = status.kube_proxy.mode
    facts["in_sync"] = status.parity.in_sync
    facts["differences"] = len(status.parity.differences)
    facts["errors"] = status.datapath_errors > 0
    probes = status.probes
    facts["probes"] = [(r.path, r.failures) if r else None for r in (probes.baseline, probes.latest)]
    return facts


class Report:
    """The status as it is known now."""

    def __init__(self, status: NodeMigrationStatus) -> None:
        self._status = status
        self.changed = asyncio.Event()
        self.settled = False
        """Whether the node has been looked at. Before that the rung is a guess, which must not replace the one that was
        written before this start: the operator would take the node for one that fell.
        """

    @property
    def status(self) -> NodeMigrationStatus:
        return self._status

    def settle(self) -> None:
        """The node has been looked at, or why that cannot be is among the facts."""
        if not self.settled:
            self.settled = True
            self.changed.set()

    def set(self, **facts: object) -> None:
        """Take over facts by the model's field names; wakes the writer when they are news."""
        fresh = self._status.model_copy(update=facts)
        if fresh == self._status:
            return
        worth = news(fresh) != news(self._status)
        self._status = fresh
        if worth:
            self.changed.set()


Apply = Callable[[NodeMigrationStatus], Awaitable[None]]


class Writer:
    """Writes the report: at once when there is news, else every heartbeat."""

    def __init__(
        self,
        report: Report,
        apply: Apply,
        *,
        heartbeat_s: float,
        soonest_s: float = _SOONEST_S,
    ) -> None:
        self._report, self._apply = report, apply
        self._heartbeat_s, self._soonest_s = heartbeat_s, soonest_s
        self._failing = ""

    @property
    def unreachable(self) -> bool:
        """Whether the last write found no API server that answers."""
        return self._failing == Unreachable.__name__

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._report.changed.wait()
            except TimeoutError:
                pass
            await self.write()
            await asyncio.sleep(self._soonest_s)  # a burst of news becomes one write

    async def write(self) -> None:
        """Write now. Failures are logged once; the next heartbeat tries again."""
        self._report.changed.clear()
        if not self._report.settled:
            return
        status = self._report.status.model_copy(update={"heartbeat": datetime.now(UTC)})
        try:
            await self._apply(status)
        except NotFound:
            return  # nobody wants anything of this node (any more): there is no status to write
        except ApiError as error:
            if type(error).__name__ != self._failing:
                log.warning("status not written, it is tried again", extra={"error": str(error)})
            self._failing = type(error).__name__
            return
        if self._failing:
            log.info("status written again")
        self._failing = ""


def applying(client: Client, name: str, uid: Callable[[], str]) -> Apply:
    """Writes a status by server-side apply on the NodeMigration of this name, while there is one.

    The uid keeps an apply to an object that was deleted and made anew from writing old facts there.
    """

    async def apply(status: NodeMigrationStatus) -> None:
        known = uid()
        if not known:
            return
        try:
            await client.apply(
                NODE_MIGRATIONS,
                name,
                {
                    "apiVersion": API_VERSION,
                    "kind": "NodeMigration",
                    "metadata": {"name": name, "uid": known},
                    "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
                },
                subresource="status",
            )
        except Conflict:
            log.info("the NodeMigration was replaced; its new one is written next")

    return apply
