"""Which addresses are worth a probe: the ClusterIPs that should answer."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from handover_agent.objects import Service
from handover_agent.table import Entry, FrontendKey, Protocol, ip_text

_DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Target:
    """A Service port at one of its ClusterIPs."""

    service: str  # "namespace/name:portName/PROTOCOL"
    host: str
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol.name}/{host}:{self.port}"


class Targets:
    """ClusterIPs with at least one backend: all of TCP, and UDP where a DNS server answers.

    NodePorts and external addresses are left out: they lead to the same backends by the same way. So is other
    UDP, since nobody knows what would be answered there.
    """

    def __init__(
        self, table: Callable[[], Mapping[FrontendKey, Entry]], services: Callable[[], Mapping[str, Service]]
    ) -> None:
        self._table, self._services = table, services
        self._last = FrontendKey(b"", 0, Protocol.ANY)  # before all others

    def following(self, count: int) -> list[Target]:
        """`count` of them in the order of their addresses, from where the last call ended, around and around.

        By address, so that any few in a row are of many namespaces. It is asked for on the event loop every few seconds:
        only as many are looked up in the table as are wanted.
        """
        found = list(islice(self._around(), count))
        if not found:
            return []
        chosen = [found[index % len(found)] for index in range(count)]
        self._last = chosen[-1][0]
        return [Target(entry.service, ip_text(key.address), key.port, key.protocol) for key, entry in chosen]

    def _around(self) -> Iterator[tuple[FrontendKey, Entry]]:
        """Each one once, what comes after the last chosen one first."""
        owners = {
            address: service
            for service in self._services().values()
            if not service.skipped
            for address in service.cluster_ips
        }
        order, last, table = sorted(owners), self._last, self._table()
        begin = bisect_left(order, last.address)
        # The last one's Service comes twice, since it may have ports on both sides of it.
        for addresses, behind in ((order[begin:], True), (order[: begin + 1], False)):
            for address in addresses:
                for key in _frontends(address, owners[address]):
                    entry = table.get(key) if (key > last) is behind else None
                    if entry is not None and entry.backends and _answers(key, entry):
                        yield key, entry


def _frontends(address: bytes, service: Service) -> list[FrontendKey]:
    return sorted(
        FrontendKey(address, port.port, port.protocol) for port in service.ports if port.protocol is not None
    )


def _answers(key: FrontendKey, entry: Entry) -> bool:
    """Whether it is known what a backend says."""
    return key.protocol is Protocol.TCP or (key.protocol is Protocol.UDP and _is_dns(key, entry))


def _is_dns(key: FrontendKey, entry: Entry) -> bool:
    name = entry.service.rpartition(":")[2].partition("/")[0]
    return key.port == _DNS_PORT or name == "dns"
