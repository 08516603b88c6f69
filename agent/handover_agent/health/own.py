"""The agent's own port: whether kubelet should let it live, whether it is ready, and its metrics."""

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from handover_agent.health.answering import answer_at
from handover_agent.health.listening import NotListening, listen_everywhere

log = logging.getLogger(__name__)


class OwnPortInUse(Exception):
    """The agent's own health port cannot be bound."""


class OwnPort:
    """Serves `/livez`, `/readyz` and `/metrics`. The two functions tell what is wrong; nothing means well."""

    def __init__(
        self,
        port: int,
        *,
        unlively: Callable[[], str],
        unready: Callable[[], str],
        registry: CollectorRegistry,
    ) -> None:
        self._port, self._unlively, self._unready, self._registry = port, unlively, unready, registry
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OwnPortInUse."""
        try:
            listening = listen_everywhere(self._port)
        except NotListening as error:
            raise OwnPortInUse(f"{error}: choose another port with --health-port") from error
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await answer_at(listening, runner)
        self._runner = runner

    async def stop(self) -> None:
        """Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return _text(self._unlively())

    async def _readyz(self, request: web.Request) -> web.Response:
        return _text(self._unready())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _text(problem: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")
