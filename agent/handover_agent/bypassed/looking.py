"""Looks for such rules again and again, and says what is found.

Rules are read after each inspection of kube-proxy's; the look is taken when they or the Services have changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from handover_agent.bypassed.destinations import outside
from handover_agent.bypassed.walk import Found, Hooked, bypassed
from handover_agent.compile import NodeInfo
from handover_agent.kept import KeptTable
from handover_agent.model import Model


class Looking:
    """`early` gives the rules, or None before they were read; `told` hears of every look."""

    def __init__(
        self,
        early: Callable[[], Awaitable[tuple[Hooked, ...] | None]],
        model: Model,
        table: KeptTable,
        told: Callable[[Sequence[Found]], None],
    ) -> None:
        self._early, self._model, self._table, self._told = early, model, table, told
        self._seen: tuple[tuple[Hooked, ...], int, NodeInfo] | None = None
        self.found: Sequence[Found] = ()

    async def look(self) -> None:
        """Nothing is said before Services are listed and the Node is known: nobody may take that for a node without
        such rules. Raises ToolFailed.
        """
        early = await self._early()
        if early is None or not self._table.listed.is_set():
            return
        seen = (early, self._model.revision, self._table.node)
        if self._seen is not None and self._seen[0] is early and self._seen[1:] == seen[1:]:
            return
        decides = any(each.decides for each in early)
        spans = outside(self._model.services.values(), self._table.node) if decides else []
        self.found = await asyncio.to_thread(bypassed, early, spans)
        self._seen = seen
        self._told(self.found)
