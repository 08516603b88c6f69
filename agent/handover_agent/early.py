"""A new agent's table goes into the maps that the one before has left, before its own programs are loaded.

Loading takes seconds on a busy node, and a kernel may refuse them; the older programs go on serving, and what they
serve is what the cluster wants.
"""

import logging
from typing import Protocol as Interface

from handover_api.base import Rung

from handover_agent.bpfsys import DatapathError
from handover_agent.ladder.journal import Record
from handover_agent.ladder.ports import Waiting

log = logging.getLogger(__name__)


class Pinned(Interface):
    """The datapath's side."""

    @property
    def unsettled(self) -> bool: ...


class Filling(Interface):
    """The table's side."""

    async def fill(self) -> None: ...


async def fill(record: Record, datapath: Pinned, table: Filling) -> None:
    """Fill what is pinned, if that is for this agent to fill. What fails here is tried again by whoever keeps the rung,
    who also reports it.
    """
    if record.lowest is Rung.STANDBY or datapath.unsettled:
        return  # nothing is to be there; or the maps have another layout
    try:
        await table.fill()
    except (Waiting, DatapathError, OSError) as error:
        log.info("the maps are filled once the programs are loaded", extra={"error": str(error)})
