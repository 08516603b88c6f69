"""A number for each Service port that outlives the agent, because the kernel's affinity entries are keyed by
it.

The number is a hash of the identity, so that it is the same after a restart without being stored. With tens
of thousands of Service ports two hashes of 32 bits do meet; then the later one takes its next candidate, and
after a restart the kernel's own frontends tell who had which.
"""

from collections.abc import Collection, Iterator
from hashlib import blake2b

_CANDIDATES = 16  # 2**16 ports: that all of 16 are taken has a probability of 2**-256


class Identities:
    """Numbers of Service ports, given out so that no two ports share one. 0 is never given out."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self.revision = 0
        """Another number whenever `names` has other content."""

    def __len__(self) -> int:
        return len(self._numbers)

    def adopt(self, service: str, number: int) -> bool:
        """Keep a number that the kernel has for a port; False when it is not one of the port's own
        candidates.
        """
        if self._numbers.get(service) == number:
            return True
        if service in self._numbers or number in self._owners or number not in candidates(service):
            return False
        self._give(service, number)
        return True

    def number(self, service: str) -> int:
        """The port's number."""
        known = self._numbers.get(service)
        if known is not None:
            return known
        for number in candidates(service):
            if number not in self._owners:
                return self._give(service, number)
        raise RuntimeError(f"no free number for {service}: {len(self._numbers)} ports have one")

    def names(self) -> dict[int, str]:
        """The port of each number that is given out."""
        return dict(self._owners)

    def keep(self, services: Collection[str]) -> None:
        """Forget ports that are not wanted any more."""
        for service in [s for s in self._numbers if s not in services]:
            del self._owners[self._numbers.pop(service)]
            self.revision += 1

    def _give(self, service: str, number: int) -> int:
        self._numbers[service], self._owners[number] = number, service
        self.revision += 1
        return number


def candidates(service: str) -> Iterator[int]:
    """The numbers that a port may have, in the order in which they are tried."""
    for attempt in range(_CANDIDATES):
        text = f"{service}#{attempt}" if attempt else service
        number = int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")
        if number:
            yield number
