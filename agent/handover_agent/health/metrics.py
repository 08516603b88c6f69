"""kube-proxy's metrics address: who scrapes it goes on finding the same series there.

kube-proxy listens on 127.0.0.1:10249 unless its configuration says otherwise; whoever changed that to scrape it from
elsewhere says the same to the agent. Besides the metrics it answers `/healthz` and `/proxyMode`, which tools look at.
"""

import logging

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from handover_agent.health.listening import NotListening, listen_at, listen_everywhere

log = logging.getLogger(__name__)

MODE = "ebpf"
"""What `/proxyMode` says; kube-proxy says iptables, ipvs or nftables."""


class MetricsPort:
    """The address, while it is ours."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """`host` as kube-proxy's metricsBindAddress has it; with `none`, nothing is served."""
        self._host, self._port, self._registry = host, port, registry
        self._runner: web.AppRunner | None = None
        self._failing = False

    @property
    def serving(self) -> bool:
        return self._runner is not None

    async def open(self) -> None:
        """Idempotent. An address that cannot be had is logged, and tried again by the next call."""
        if self._runner is not None or self._host == "none":
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
        # Go listens on both families when it is told either family's wildcard.
        every = self._host in ("0.0.0.0", "::")
        listening = listen_everywhere(self._port) if every else listen_at(self._host, self._port)
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", _healthz)
        application.router.add_get("/proxyMode", _mode)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        try:
            await runner.setup()
            await web.SockSite(runner, listening).start()
        except BaseException:
            listening.close()
            await runner.cleanup()
            raise
        self._runner = runner
        log.info("metrics address taken over", extra={"address": self._host, "port": self._port})

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _mode(_: web.Request) -> web.Response:
    return web.Response(text=MODE, headers={"X-Content-Type-Options": "nosniff"})
