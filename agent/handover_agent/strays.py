"""UDP clients that lead to an endpoint which is gone: found by whatever holds them there, and set free.

TCP notices by itself. UDP is held by conntrack's entries (kube-proxy's, or the node's own), by flows of the packet
path, and by connected sockets, which remember where they were sent. In each case the rule is kube-proxy's: whoever still
serves keeps its clients, and nothing is done while nobody serves.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from handover_agent.conntrack import Serving
from handover_agent.footing import KernelConntrack, KernelDatapath

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Strayed:
    """How many there have been."""

    entries: int = 0
    flows: int = 0
    sockets: int = 0


class Strays:
    """Looks for them when asked to."""

    def __init__(
        self, conntrack: KernelConntrack, datapath: KernelDatapath, serving: Callable[[], Serving]
    ) -> None:
        self._conntrack, self._datapath, self._serving = conntrack, datapath, serving
        self.found = Strayed()
        self.watching = False
        """Whether there may be connected sockets to tell, which are found when they send."""

    def refresh(self) -> None:
        """Keep up with what changes while nothing is to be looked for. Raises NotListed."""
        self._serving()

    async def look(self, *, conntrack: bool) -> None:
        """Once. `conntrack`: also through its table, which kube-proxy does where it runs.

        Raises ConntrackError, OSError.
        """
        serving, found = self._serving(), self.found
        flows = await self._datapath.forget_udp_flows(serving)  # first: nothing is left to an entry that goes
        entries = await self._conntrack.reconcile_udp() if conntrack else 0
        await self._datapath.keep_left(serving)
        self.found = replace(found, entries=found.entries + entries, flows=found.flows + flows)
        if flows:
            log.info("UDP flows of gone endpoints set free", extra={"flows": flows})
        self.watching = await self._datapath.watch_stranded(serving)

    async def tell(self) -> None:
        """Tell the connected sockets that have sent to an endpoint which is gone. Raises NotListed, BpfError, OSError."""
        if not self.watching:
            return
        sockets = await self._datapath.tell_stranded(self._serving())
        if sockets:
            self.found = replace(self.found, sockets=self.found.sockets + sockets)
            log.info("UDP sockets of gone endpoints told", extra={"sockets": sockets})
