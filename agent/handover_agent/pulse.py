"""The event loop's own heartbeat, for /livez; and with each beat, the cheap facts that nobody tells us."""

import asyncio
import logging
import time

from handover_agent.apiserver import Client
from handover_agent.facts import Facts

log = logging.getLogger(__name__)

_BEAT_S, _STUCK_S = 2.0, 60.0


class Pulse:
    """Of the loop that runs it."""

    def __init__(self, facts: Facts, client: Client) -> None:
        self._facts, self._client = facts, client
        self._beat_at = time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        blind = False
        while True:
            self._beat_at = time.monotonic()
            self._facts.api_server(self._client)
            try:
                await self._facts.look_at_port()
                blind = False
            except Exception as error:  # what was seen last holds until it can be seen again
                if not blind:
                    log.exception("who has kube-proxy's ports is not known", extra={"error": str(error)})
                blind = True
            self._facts.look_at_refusal()
            await asyncio.sleep(_BEAT_S)

    def stuck(self) -> str:
        """What is wrong with the loop; nothing means well."""
        silent_s = time.monotonic() - self._beat_at
        return f"the event loop has been stuck for {silent_s:.0f} s" if silent_s > _STUCK_S else ""
