"""Conntrack's table: what in it leads nowhere, and who still lives on kube-proxy's entries."""

import logging
from collections.abc import Callable, Collection, Iterable

from handover_agent.conntrack import Pass, Serving, old_flows, reconcile_udp
from handover_agent.model import NotListed
from handover_agent.table import FrontendKey
from handover_agent.thread import Thread

log = logging.getLogger(__name__)


class KernelConntrack:
    """`ports.Conntrack`."""

    def __init__(self, serving: Callable[[], Serving], told: Callable[[Iterable[Pass]], None]) -> None:
        """`told` hears of each pass, for the metrics."""
        self._serving, self._told = serving, told
        self._thread = Thread("conntrack")

    async def reconcile_udp(self) -> int:
        return await self._reconcile(untranslated=False)

    async def forget_untranslated_udp(self) -> int:
        try:
            return await self._reconcile(untranslated=True)
        except NotListed as error:  # without the API server: kube-proxy looks for them itself when it starts
            log.warning("UDP conntrack entries were not looked through", extra={"error": str(error)})
            return 0

    async def _reconcile(self, *, untranslated: bool) -> int:
        passes = await self._thread(reconcile_udp, self._serving(), untranslated=untranslated)
        self._told(passes)
        deleted = sum(each.deleted for each in passes)
        if deleted:
            log.info("stale UDP conntrack entries removed", extra={"entries": deleted})
        return deleted

    async def old_flows(self, frontends: Collection[FrontendKey]) -> int:
        """Connections to these frontends that live on kube-proxy's entries."""
        return await self._thread(old_flows, list(frontends))
