"""The running operator: what is made of what, and that the end of any part is the end of the process."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import start_http_server

from handover_operator import places, servers
from handover_operator.access import Access
from handover_operator.act import Actor
from handover_operator.api import Api
from handover_operator.cluster import AgentPods, Cluster
from handover_operator.events import Reporter
from handover_operator.loop import Loop
from handover_operator.metrics import Metrics
from handover_operator.servers import Address, Servers
from handover_operator.status import StatusWriter
from handover_operator.watch import Collection, Watched

log = logging.getLogger(__name__)

_API_SERVERS = Collection(places.ENDPOINT_SLICE, "default", fields="metadata.name=kubernetes")
"""By its name, so that a Role can be for this one alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    access: Access
    agents: AgentPods
    metrics_port: int = 0  # 0: none
    servers_file: Path | None = None  # remembers the API servers' own addresses


class Runtime:
    """The loop and the copies that it reads, from start to stop."""

    def __init__(self, settings: Settings, ended: asyncio.Event) -> None:
        self._settings = settings
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self.loop: Loop | None = None
        self.failure: BaseException | None = None

    @property
    def access(self) -> Access:
        """The way to the API server, for kopf's connections too."""
        return self._settings.access

    async def start(self) -> None:
        """Begin; `ended` is set should it ever end by itself, with `failure` saying why."""
        self._task = asyncio.create_task(self._run(), name="handover")
        self._task.add_done_callback(self._done)

    async def stop(self) -> None:
        """End, and wait until it has ended. Nothing has to be brought to an end in the cluster."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """Something has changed."""
        if self.loop is not None:
            self.loop.wake()

    async def _run(self) -> None:
        metrics = Metrics()
        server = None
        if self._settings.metrics_port:
            server, _ = start_http_server(self._settings.metrics_port, registry=metrics.registry)
        access, found = self._settings.access, None
        if access.cluster_ip is not None:
            found = Servers(access.cluster_ip, self._settings.servers_file)
        try:
            async with Api(access, found) as api:
                cluster = Cluster(api, self._settings.agents, self.wake)
                self.loop = Loop(
                    cluster=cluster,
                    actor=Actor(api, cluster),
                    status=StatusWriter(api, cluster),
                    reporter=Reporter(api),
                    metrics=metrics,
                )
                log.info("the operator runs", extra={"server": access.server})
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(cluster.run(), name="cluster")
                    tasks.create_task(self.loop.run(), name="loop")
                    if found is not None:
                        tasks.create_task(_follow(found, api), name="servers")
        finally:
            if server is not None:
                server.shutdown()
                server.server_close()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.failure = task.exception()
        self._ended.set()


async def _follow(known: Servers, api: Api) -> None:
    """Keep up the API servers' own addresses. Where that is not allowed, the ClusterIP has to do."""
    slices: Watched[frozenset[Address]]

    def learn() -> None:
        known.learn(address for addresses in slices.objects.values() for address in addresses)

    slices = Watched(api, _API_SERVERS, servers.read, learn)
    await slices.run()
