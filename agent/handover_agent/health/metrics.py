"""kube-proxy's metrics address: who scrapes it goes on finding the same series there.

kube-proxy listens on 127.0.0.1:10249 unless its configuration says otherwise. The agent cannot read that, but sees
where kube-proxy listens while it runs, and remembers it on disk, since it may be started anew when kube-proxy has gone.
Besides the metrics it answers `/healthz` and `/proxyMode`, which tools look at.
"""

import logging
import time
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from handover_agent.durable import write_durably
from handover_agent.health.answering import answer_at
from handover_agent.health.listening import NotListening, listen_at, listen_everywhere, listeners

log = logging.getLogger(__name__)

AS_FOUND, NONE, DEFAULT = "as-found", "none", "127.0.0.1"
EVERY = ("::", "0.0.0.0")
"""Go listens on both families when it is told either family's wildcard."""

_LOOK_S = 60.0
MODE = "ebpf"
"""What `/proxyMode` says; kube-proxy says iptables, ipvs or nftables."""


class MetricsPort:
    """The address, while it is ours."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, memory: Path) -> None:
        """`host`: an address, or AS_FOUND, or NONE: nothing is served. `memory`: where to remember what was found."""
        self._host, self._port, self._registry, self._memory = host, port, registry, memory
        self._runner: web.AppRunner | None = None
        self._failing = self._forgetful = False
        self._look_from = 0.0

    @property
    def serving(self) -> bool:
        return self._runner is not None

    def look(self) -> None:
        """See where kube-proxy listens, from time to time; to be called while it runs. That it could not be remembered
        is logged: the default will be served after a restart. Raises OSError where the kernel does not tell.
        """
        if self._host != AS_FOUND or self._runner is not None or time.monotonic() < self._look_from:
            return
        found = listeners(self._port)
        if found:
            self._look_from = time.monotonic() + _LOOK_S
        at = next((any_ for any_ in EVERY if any_ in found), min(found, default=""))
        if at and at != self._remembered():
            self._remember(at)

    def _remember(self, at: str) -> None:
        try:
            write_durably(self._memory, at)  # a disk that is full must not take what was remembered before
            self._forgetful = False
        except OSError as error:
            if not self._forgetful:
                log.error(
                    "kube-proxy's metrics address could not be remembered",
                    extra={"address": at, "file": str(self._memory), "error": str(error)},
                )
            self._forgetful = True

    def _remembered(self) -> str:
        try:
            return str(ip_address(self._memory.read_text(encoding="ascii").strip()))
        except (OSError, ValueError):
            return ""

    async def open(self) -> None:
        """Idempotent. An address that cannot be had is logged, and tried again by the next call."""
        if self._runner is not None or self._host == NONE:
            return
        try:
            await self._serve()
        except NotListening as error:
            if not self._failing:
                log.warning("kube-proxy's metrics address is not served", extra={"error": str(error)})
            self._failing = True
        else:
            self._failing = False

    async def close(self) -> None:
        """Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve(self) -> None:
        at = (self._remembered() or DEFAULT) if self._host == AS_FOUND else self._host
        listening = listen_everywhere(self._port) if at in EVERY else listen_at(at, self._port)
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", _healthz)
        application.router.add_get("/proxyMode", _mode)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await answer_at(listening, runner)
        self._runner = runner
        log.info("metrics address taken over", extra={"address": at, "port": self._port})

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _mode(_: web.Request) -> web.Response:
    return web.Response(text=MODE, headers={"X-Content-Type-Options": "nosniff"})
