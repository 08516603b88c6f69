"""All of kube-proxy's ports together: who holds `:10256` holds the others too.

kube-proxy also answers at every Service's healthCheckNodePort and at its metrics' address. They follow the health
port, which is the interlock: opened behind it, closed before it, so that a kube-proxy which returns finds all of
them free. That one of those cannot be bound is told, and tried again, and stops no step of the ladder.
"""

import asyncio
from collections.abc import Callable

from handover_agent.health.local import LocalPolicies
from handover_agent.health.metrics import MetricsPort
from handover_agent.health.proxy import ProxyPort
from handover_agent.health.services import Places, ServicePorts


class Takeover:
    """`ladder.ports.HealthPort`, with the other ports behind it."""

    def __init__(
        self,
        proxy: ProxyPort,
        services: ServicePorts,
        metrics: MetricsPort,
        policies: LocalPolicies,
        places: Callable[[], Places],
    ) -> None:
        self._proxy, self._services, self._metrics = proxy, services, metrics
        self._policies, self._places = policies, places
        self._lock = asyncio.Lock()
        self.changed = asyncio.Event()
        """To be set when Services, endpoints or the node's addresses have changed: `follow` is due."""

    @property
    def held(self) -> bool:
        """Whether the health port is ours."""
        return self._proxy.held

    async def bind(self) -> None:
        """Take the health port over; the others follow. Raises Blocked when another process has it."""
        if not self._proxy.held:
            await self._proxy.bind()
            self.changed.set()

    async def release(self) -> None:
        """Close them all. Idempotent."""
        async with self._lock:
            await self._services.close()
            await self._metrics.close()
            await self._proxy.release()

    async def foreign(self) -> bool:
        """Whether another process holds the health port."""
        foreign = await self._proxy.foreign()
        if foreign:
            await asyncio.to_thread(self._metrics.look)
        return foreign

    async def follow(self) -> None:
        """Make the other ports what they should be now."""
        if self._policies.complete:  # else a port could deny endpoints that are not listed yet
            self._policies.refresh()
        async with self._lock:
            if not self._proxy.held:
                return
            await self._metrics.open()
            await self._services.follow(self._policies.checks, self._places())
