"""The API servers' own addresses: the operator must not depend on the datapath that it judges.

In a pod, an API server is reached by the ClusterIP of `default/kubernetes`, which on a node that was handed over is
translated by the very programs whose failure the operator has to see, and to take back. So it asks for the endpoints
of that Service and connects to them; the ClusterIP comes last, for when there is nothing better.
"""

import json
import logging
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

log = logging.getLogger(__name__)

NAME = "kubernetes.default.svc"
"""What every API server's certificate is valid for, whatever its addresses."""

Address = tuple[str, int]


def read(item: Mapping[str, Any]) -> frozenset[Address]:
    """The addresses in that Service's EndpointSlice."""
    ports = [port["port"] for port in item.get("ports") or [] if port.get("port")]
    hosts = [host for endpoint in item.get("endpoints") or [] for host in endpoint.get("addresses") or []]
    return frozenset((host, port) for host in hosts for port in ports)


class Servers(AbstractResolver):
    """Where connections to `NAME` go: the servers' own addresses, then the bootstrap address.

    aiohttp tries them in this order, the next one a quarter of a second after one that has not answered.
    """

    def __init__(self, bootstrap: Address, memory: Path | None = None) -> None:
        """`memory`: a file that outlives this process, for a start while the ClusterIP leads nowhere."""
        self._bootstrap, self._memory = bootstrap, memory
        self._own: tuple[Address, ...] = self._recall()

    @property
    def known(self) -> tuple[Address, ...]:
        """The servers' own addresses, as last learnt or remembered."""
        return self._own

    def learn(self, addresses: Iterable[Address]) -> None:
        """Take over what the EndpointSlices say; that there is no server teaches nothing."""
        fresh = tuple(sorted(set(addresses)))
        if not fresh or fresh == self._own:
            return
        self._own = fresh
        log.info("API servers learnt", extra={"servers": ", ".join(f"{h} port {p}" for h, p in fresh)})
        self._remember()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """aiohttp's question; what it asks for does not matter, as it is asked for nothing else."""
        own = [address for address in self._own if address != self._bootstrap]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=number,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address, number in (*own, self._bootstrap)
        ]

    async def close(self) -> None:
        """There is nothing to close."""

    def _recall(self) -> tuple[Address, ...]:
        if self._memory is None:
            return ()
        try:
            return tuple((str(host), int(port)) for host, port in json.loads(self._memory.read_text()))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError) as error:
            log.warning("remembered API servers are unreadable and will be learnt again: %s", error)
            return ()

    def _remember(self) -> None:
        if self._memory is None:
            return
        try:
            fresh = self._memory.with_suffix(".new")
            fresh.write_text(json.dumps(self._own))
            fresh.replace(self._memory)
        except OSError as error:
            log.warning("API servers are not remembered over a restart: %s", error)
