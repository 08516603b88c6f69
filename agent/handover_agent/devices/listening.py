"""Hears that devices or addresses have changed: a new pod's port must have its programs at once.

What the kernel tells is not believed in detail, messages may be lost when there are many. It only wakes whoever
then reads everything anew; so one burst of changes is one look, and a periodic look is the same work.
"""

import asyncio
from types import TracebackType
from typing import Self

from handover_agent.rtnetlink import RouteSocket

_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS = 0x1, 0x10, 0x100  # RTMGRP_*
_RECEIVE_BYTES = 1 << 20


class Listener:
    """Sets `changed` whenever devices or addresses have changed. For a running event loop."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._socket = RouteSocket(_LINK | _IPV4_ADDRESS | _IPV6_ADDRESS, _RECEIVE_BYTES)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        if self._socket.heard():
            self.changed.set()
