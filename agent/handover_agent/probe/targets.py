"""Which addresses are worth a probe: the ClusterIPs that should answer. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from handover_agent.objects import Service
from handover_agent.table import Entry, FrontendKey, Protocol, Scope, ip_text

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


def targets(table: Mapping[FrontendKey, Entry], services: Iterable[Service]) -> list[Target]:
    """ClusterIPs with at least one backend: all of TCP, and UDP where a DNS server answers. In stable order.

    NodePorts and external addresses are left out: they lead to the same backends by the same way. So is other
    UDP, since nobody knows what would be answered there.
    """
    cluster_ips = {address for service in services if not service.skipped for address in service.cluster_ips}
    return [
        Target(entry.service, ip_text(key.address), key.port, key.protocol)
        for key, entry in sorted(table.items())
        if entry.backends
        and key.scope is Scope.INTERNAL
        and key.address in cluster_ips
        and (key.protocol is Protocol.TCP or (key.protocol is Protocol.UDP and _is_dns(key, entry)))
    ]


def choose(all_targets: Collection[Target], count: int, start: int) -> list[Target]:
    """`count` of them, one after the other from `start` on, around and around."""
    ordered = list(all_targets)
    return [ordered[(start + index) % len(ordered)] for index in range(count)] if ordered else []


def _is_dns(key: FrontendKey, entry: Entry) -> bool:
    name = entry.service.rpartition(":")[2].partition("/")[0]
    return key.port == _DNS_PORT or name == "dns"
