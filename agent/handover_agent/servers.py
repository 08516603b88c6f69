"""Which API servers there are, which one is in use, and the memory of them on disk.

The agent must not depend on a ClusterIP that it serves itself. So it asks `default/kubernetes` for the
servers' own addresses, keeps them on disk for its next start, and goes to the bootstrap address (which
usually *is* that ClusterIP) only when no server of its own knowledge answers; `direct` says which of the two
is the case.
"""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from handover_agent.credentials import Address
from handover_agent.durable import write_durably

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """An address to try, and the name that its certificate must be valid for."""

    address: Address
    server_name: str


class Servers:
    """The known API servers in the order in which they should be tried."""

    def __init__(
        self, bootstrap: Candidate, server_name: str, clock: Callable[[], float], memory: Path | None = None
    ) -> None:
        self._bootstrap, self._server_name, self._clock, self._memory = bootstrap, server_name, clock, memory
        self._own: tuple[Address, ...] = self._recall()
        self._failed: dict[Address, float] = {}
        self._current: Address | None = None

    penalty_s = 10.0

    @property
    def known(self) -> tuple[Address, ...]:
        """The servers' own addresses, as last learnt or remembered."""
        return self._own

    @property
    def current(self) -> Address | None:
        """The server that answered last; None before any did, and after it has failed."""
        return self._current

    @property
    def direct(self) -> bool:
        """Whether the server in use is reached by its own address and not by the bootstrap one."""
        return self._current is not None and self._current in self._own

    def candidates(self) -> list[Candidate]:
        """What to try, best first: the one in use, others, those that failed lately, the bootstrap."""
        now = self._clock()

        def rank(address: Address) -> tuple[bool, bool, float]:
            failed_at = self._failed.get(address, float("-inf"))
            return (now - failed_at < self.penalty_s, address != self._current, failed_at)

        own = [Candidate(address, self._server_name) for address in sorted(self._own, key=rank)]
        return [c for c in own if c.address != self._bootstrap.address] + [self._bootstrap]

    def worked(self, candidate: Candidate) -> None:
        """Go on with this one."""
        self._failed.pop(candidate.address, None)
        if self._current != candidate.address:
            self._current = candidate.address
            log.info("API server in use", extra={"server": str(self._current), "direct": self.direct})

    def failed(self, candidate: Candidate) -> None:
        """Try others before this one for a while."""
        self._failed[candidate.address] = self._clock()
        if self._current == candidate.address:
            self._current = None

    def learn(self, addresses: Iterable[Address]) -> bool:
        """Take over what `default/kubernetes` says; an empty answer teaches nothing. True if it was news."""
        fresh = tuple(sorted(set(addresses)))
        if not fresh or fresh == self._own:
            return False
        self._own = fresh
        self._failed = {address: at for address, at in self._failed.items() if address in fresh}
        log.info("API servers learnt", extra={"servers": [str(address) for address in fresh]})
        self._remember()
        return True

    def _recall(self) -> tuple[Address, ...]:
        if self._memory is None or not self._memory.exists():
            return ()
        try:
            document = json.loads(self._memory.read_text(encoding="utf-8"))
            return tuple(sorted({Address.parse(text) for text in document["servers"]}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning(
                "remembered API servers are unreadable and will be learnt again",
                extra={"file": str(self._memory), "error": str(error)},
            )
            return ()

    def _remember(self) -> None:
        if self._memory is None:
            return
        try:
            write_durably(self._memory, json.dumps({"servers": [str(address) for address in self._own]}))
        except OSError as error:
            log.error(
                "API servers could not be remembered; a restart will need the bootstrap address",
                extra={"file": str(self._memory), "error": str(error)},
            )
