"""Looks whether the maps are still large enough for the cluster, and has them replaced by larger ones in time.

At three quarters, so that there is time, and at once when one is full. Nobody notices but the log: see `enlarging`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol as Interface

from handover_agent.layout import Sizes
from handover_agent.maps import PinnedMaps
from handover_agent.sizing import GROW_AT, Need, grown
from handover_agent.sync import Sync
from handover_agent.table import Table

log = logging.getLogger(__name__)

_AGAIN_S = 60.0
"""So long after an attempt that failed, the next one."""


class Enlarging(Interface):
    """The datapath's side."""

    async def sizes(self) -> Sizes: ...
    async def make_larger(self, sizes: Sizes) -> PinnedMaps: ...
    async def take_larger(self) -> None: ...


class Filling(Interface):
    """The table's side."""

    @property
    def table(self) -> Table: ...
    @property
    def sync(self) -> Sync: ...
    @property
    def fill_ratios(self) -> Mapping[str, float]: ...
    async def move(self, maps: PinnedMaps, take: Callable[[], Awaitable[None]]) -> None: ...


class Growth:
    """For one event loop. `steps` is held by whoever loads, attaches or unloads."""

    def __init__(
        self,
        datapath: Enlarging,
        table: Filling,
        steps: asyncio.Lock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._datapath, self._table, self._steps, self._clock = datapath, table, steps, clock
        self._not_before = 0.0

    async def look(self) -> None:
        """Replace maps that are too small. Raises what that raises, and tries again a minute later."""
        if not self._pressed() or self._clock() < self._not_before:
            return
        async with self._steps:
            if not self._pressed():
                return
            have = await self._datapath.sizes()
            wanted = grown(Need.of(self._table.table), have, self._table.sync.full)
            self._not_before = self._clock() + _AGAIN_S
            if wanted == have:
                return  # as large as they get, or only fragmented; `MapFull` tells where it hurts
            began = time.monotonic()
            await self._table.move(await self._datapath.make_larger(wanted), self._datapath.take_larger)
            self._not_before = 0.0
            log.info(
                "maps made larger",
                extra={
                    "frontends": wanted.frontends,
                    "backends": wanted.backends,
                    "sources": wanted.sources,
                    "seconds": round(time.monotonic() - began, 3),
                },
            )

    def _pressed(self) -> bool:
        table = self._table
        return table.sync.open and (
            bool(table.sync.full) or any(ratio > GROW_AT for ratio in table.fill_ratios.values())
        )
