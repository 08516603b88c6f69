"""The programs go, and what they translated goes on without them as far as it can: its flows become conntrack's, and
answers that are under way still arrive.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from handover_agent import layout, layouts, links, pinnedsettings, takeover
from handover_agent.bpffs import Pins
from handover_agent.entries import unpack_flow
from handover_agent.hooks import OUTWARD
from handover_agent.packetpath import attaching, handing
from handover_agent.packetpath.points import Direction
from handover_agent.remembered import Remembered
from handover_agent.table import Protocol

log = logging.getLogger(__name__)

_ANSWERS_S = 3.0
"""Answers that take longer are rare, and lost only to sockets that are not connected."""


def time_for_answers() -> None:
    """As long as most answers take."""
    time.sleep(_ANSWERS_S)


def leave(pins: Pins, remembered: Remembered, answers: Callable[[], None]) -> None:
    """Take the programs off in the order in which nobody gets an answer from whom it did not ask. Idempotent."""
    pinnedsettings.accept(pins, False)
    for found, maps in pins.layouts.items():
        _hand_over(found, maps)
    takeover.undo(pins)  # the second row of programs, if that is there
    if links.read_links(pins.links):
        links.detach(pins.links, OUTWARD)
        attaching.detach(pins.devices, (Direction.INGRESS,))
        if remembered.translated(Protocol.UDP):
            answers()
    links.detach(pins.links)
    attaching.detach(pins.devices)
    for directory in (pins.links, pins.devices):
        pins.remove(directory)
    remembered.forget()


def _hand_over(found: str, maps: Path) -> None:
    """Give the flows in maps of a layout to conntrack, if we can read them."""
    try:
        route = None if found == str(layout.LAYOUT) else layouts.way(found, str(layout.LAYOUT))
    except layouts.NoWay as error:
        log.warning("flows are not handed over to conntrack", extra={"reason": str(error)})
        return
    try:
        handing.to_conntrack(maps / "flows", route.read_flow if route else unpack_flow)
    except layouts.CannotConvert as error:
        log.warning("flows are not handed over to conntrack", extra={"reason": str(error)})
