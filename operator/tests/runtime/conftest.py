"""A running operator on an API server in a dictionary, one pass at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from handover_operator import places
from handover_operator.act import Actor
from handover_operator.api import Api, Object
from handover_operator.cluster import AgentPods, Cluster
from handover_operator.events import Reporter
from handover_operator.loop import Loop
from handover_operator.metrics import Metrics
from handover_operator.status import StatusWriter

from e2e.fakeapi import FakeApi

from .objects import cluster_of

NOW = datetime(2026, 1, 1, 1, 0, tzinfo=UTC)
PATIENCE_S = 10.0


class Bench:
    """The operator's parts on a fake API; `pass_over` is one pass on what the copies then have."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self._news = asyncio.Event()
        real = cast(Api, api)
        self.cluster = Cluster(real, AgentPods(), self._news.set)
        self.actor = Actor(real, self.cluster)
        self.metrics = Metrics()
        self.loop = Loop(
            cluster=self.cluster,
            actor=self.actor,
            status=StatusWriter(real, self.cluster),
            reporter=Reporter(real),
            metrics=self.metrics,
            clock=lambda: NOW,
        )

    async def pass_over(self, times: int = 1) -> str:
        """Passes, each when the copies have what the API has."""
        said = ""
        for _ in range(times):
            said = await self.loop.once()
            await self.settled()
        return said

    async def settled(self) -> None:
        """Wait until the copies are live and have come as far as the API."""
        async with asyncio.timeout(PATIENCE_S):
            while self.cluster.troubles():
                if self.cluster.errors():
                    return
                await self._news.wait()
                self._news.clear()
        for _ in range(20):
            await asyncio.sleep(0)  # lets the watches hand over what is there

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to be true that the copies bring."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await self._news.wait()
                self._news.clear()

    def migration(self, name: str = "cluster") -> Object:
        return self.api.objects["proxymigrations", "", name]

    def status(self, name: str = "cluster") -> dict[str, Any]:
        found: dict[str, Any] = self.migration(name).get("status", {})
        return found

    def events(self) -> list[Object]:
        return [item for (kind, _, _), item in self.api.objects.items() if kind == places.EVENT.plural]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Three nodes with kube-proxy and agents, and nothing wished for."""
    made = Bench(cluster_of("n1", "n2", "n3"))
    task = asyncio.create_task(made.cluster.run())
    await asyncio.sleep(0)
    await made.settled()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
