"""The datapath as the ladder has it: its calls in a thread, in turn; those that look through whole maps for strays in
another, so that none of the rest waits for them.
"""

import logging
import time
from collections.abc import Callable

from handover_agent import loader
from handover_agent.bpffs import LayoutMismatch
from handover_agent.conntrack import Serving
from handover_agent.datapath import Datapath
from handover_agent.features import Features
from handover_agent.ladder.ports import Blocked, Programs
from handover_agent.layout import Sizes, map_specs
from handover_agent.maps import PinnedMaps
from handover_agent.sockets.gone import stranded
from handover_agent.sockets.refusal import refuse
from handover_agent.table import Protocol
from handover_agent.thread import Thread

log = logging.getLogger(__name__)


class KernelDatapath:
    """`ports.Datapath`."""

    def __init__(self, datapath: Datapath, sizes: Callable[[], Sizes]) -> None:
        """`sizes` are asked for when the maps are about to be made."""
        self._datapath, self._sizes = datapath, sizes
        self._thread, self._strays = Thread("datapath"), Thread("strays")
        self.renewing = False
        """Whether programs of this version are being loaded, or could not be: whatever is there serves meanwhile."""

    @property
    def unsettled(self) -> bool:
        """As `Datapath.unsettled`."""
        return self._datapath.unsettled

    async def missing(self) -> list[str]:
        return (await self.features()).missing

    async def features(self) -> Features:
        """What the kernel can do, found by trying."""
        return await self._thread(self._datapath.probe_features)

    async def settle(self) -> None:
        if self._datapath.unsettled:
            await self.load()

    async def load(self) -> None:
        state = await self._thread(self._datapath.state)
        wanted = state.loaded and state.version == self._datapath.wanted_version()
        if not wanted or self._datapath.unsettled:
            began, self.renewing = time.monotonic(), True
            try:
                await self._thread(self._datapath.load_maps, map_specs(self._sizes()))
            except LayoutMismatch as error:
                raise Blocked("LayoutNotTakenOver", str(error)) from error
            took = round(time.monotonic() - began, 3)
            log.info("programs loaded", extra={"version": loader.version(), "seconds": took})
        self.renewing = False

    async def sizes(self) -> Sizes:
        """How large the maps are."""
        return await self._thread(self._datapath.sizes)

    async def make_larger(self, sizes: Sizes) -> PinnedMaps:
        """As `Datapath.make_larger`."""
        return await self._thread(self._datapath.make_larger, sizes)

    async def take_larger(self) -> None:
        """As `Datapath.take_larger`."""
        await self._thread(self._datapath.take_larger)

    async def attach(self, *, alone: bool) -> None:
        await self._thread(lambda: self._datapath.attach(alone=alone))

    async def follow(self) -> None:
        await self._thread(self._datapath.follow)

    async def set_accepting(self, accepting: bool) -> None:
        await self._thread(self._datapath.set_accepting, accepting)

    async def detach(self) -> None:
        await self._thread(self._datapath.detach)

    async def unload(self) -> None:
        await self._thread(self._datapath.unload)
        self.renewing = False

    async def programs(self) -> Programs:
        state = await self._thread(self._datapath.state)
        return Programs(state.loaded, state.attached, state.accepting)

    async def translated_udp(self) -> int:
        return await self._thread(self._datapath.remembered.translated, Protocol.UDP)

    async def translated(self) -> int:
        """All sockets that are translated, for the status."""
        return await self._thread(self._datapath.remembered.translated)

    async def pressure(self) -> dict[str, float]:
        """How full the maps are that programs write."""
        return await self._thread(self._datapath.remembered.pressure)

    async def forget_addresses(self) -> None:
        """As `Datapath.forget_addresses`."""
        await self._thread(self._datapath.remembered.forget_addresses)

    async def counters(self) -> dict[str, int]:
        return await self._thread(self._datapath.counters)

    async def forget_udp_flows(self, serving: Serving) -> int:
        """Remove the packet path's UDP flows to endpoints that are gone; how many."""
        return await self._strays(self._datapath.remembered.forget_udp_flows, serving)

    async def watch_stranded(self, serving: Serving) -> bool:
        """As `Datapath.watch_stranded`."""
        return await self._strays(self._datapath.remembered.watch_stranded, serving)

    async def keep_left(self, serving: Serving) -> int:
        """Leave to conntrack the UDP flows that it translates, as long as it does; how many."""
        return await self._strays(self._datapath.remembered.keep_left, serving)

    async def forget_left(self) -> None:
        """Leave none to it any more."""
        await self._strays(self._datapath.remembered.forget_left)

    async def tell_stranded(self, serving: Serving) -> int:
        """Tell connected UDP sockets that have sent to an endpoint which is gone; how many."""
        return await self._strays(
            lambda: refuse(stranded(self._datapath.remembered.noted_stranded(), serving))
        )
