"""kube-proxy's health port, `:10256`: what it answers, and taking it over.

Cloud load balancers decide by it whether a node gets traffic, and it is the interlock between two proxies:
only who holds it is the node's proxy.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from handover_agent.health.answering import answer_at
from handover_agent.health.listening import NotListening, listen_everywhere, listeners
from handover_agent.health.local import IPV4, IPV6
from handover_agent.ladder.ports import Blocked

log = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 60.0
"""A change that waits longer than this to be in the maps makes the proxy unhealthy; kube-proxy's value."""


@dataclass(frozen=True, slots=True)
class ProxyHealth:
    """What the answer is made from."""

    last_synced: datetime
    """When the maps last held all that was wanted."""
    waiting_since: datetime | None
    """Since when a change waits to be written; None when none does."""
    node_eligible: bool

    def healthy(self, now: datetime) -> bool:
        """As `/livez` says it."""
        since = self.waiting_since
        return since is None or (now - since).total_seconds() < HEALTH_TIMEOUT_S


def body(health: ProxyHealth, now: datetime, *, with_node: bool) -> tuple[int, dict[str, object]]:
    """The HTTP status and the JSON of an answer, in kube-proxy's form (its proxy_health.go).

    Of the node only `/healthz` speaks. A good answer says that it is up to date now, as kube-proxy has said since the
    days when it wrote its rules every few seconds. Both families are written together, so they stand alike.
    """
    healthy = health.healthy(now)
    good = healthy and (health.node_eligible or not with_node)
    family = {"lastUpdated": _go_time(health.last_synced), "healthy": healthy}
    answer: dict[str, object] = {
        "lastUpdated": _go_time(now if good else health.last_synced),
        "currentTime": _go_time(now),
        **({"nodeEligible": health.node_eligible} if with_node else {}),
        "healthy": healthy,
        "status": {IPV4: family, IPV6: family},
    }
    return (200 if good else 503), answer


class ProxyPort:
    """The port, while it is ours."""

    def __init__(self, port: int, health: Callable[[], ProxyHealth]) -> None:
        self._port, self._health = port, health
        self._runner: web.AppRunner | None = None
        self.answers: dict[tuple[str, int], int] = {}
        """(path, status) → how often, for the metrics that kube-proxy had."""

    @property
    def held(self) -> bool:
        return self._runner is not None

    async def bind(self) -> None:
        """Idempotent. Raises Blocked when another process has the port."""
        if self._runner is not None:
            return
        try:
            listening = listen_everywhere(self._port)
        except NotListening as error:
            if not error.taken:
                raise
            raise Blocked(
                "HealthPortInUse",
                f"port {self._port} is held by another process, so a kube-proxy may still run on this node; it "
                "is tried again",
            ) from error
        application = web.Application()
        application.router.add_route("*", "/healthz", self._healthz)
        application.router.add_route("*", "/livez", self._livez)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await answer_at(listening, runner)
        self._runner = runner
        log.info("health port taken over", extra={"port": self._port})

    async def release(self) -> None:
        """Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            log.info("health port released", extra={"port": self._port})

    async def foreign(self) -> bool:
        """Whether somebody else listens on it."""
        return not self.held and bool(await asyncio.to_thread(listeners, self._port))

    async def _healthz(self, request: web.Request) -> web.Response:
        return self._answer("/healthz", with_node=True)

    async def _livez(self, request: web.Request) -> web.Response:
        return self._answer("/livez", with_node=False)

    def _answer(self, path: str, *, with_node: bool) -> web.Response:
        status, answer = body(self._health(), datetime.now(UTC), with_node=with_node)
        self.answers[path, status] = self.answers.get((path, status), 0) + 1
        return web.Response(
            status=status,
            body=json.dumps(answer, separators=(",", ":")).encode(),
            headers={"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"},
        )


def _go_time(moment: datetime) -> str:
    """As Go marshals a time: RFC 3339 with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
