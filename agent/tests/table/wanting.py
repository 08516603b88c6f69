"""Short ways to say frontends and entries in the tests of the maps' side."""

from collections.abc import Iterable

from handover_agent.table import Backend, Entry, FrontendFlags, FrontendKey, Protocol, ip_bytes


def key(address: str = "10.96.0.1", port: int = 80, protocol: Protocol = Protocol.TCP) -> FrontendKey:
    return FrontendKey(ip_bytes(address), port, protocol)


def backend(text: str) -> Backend:
    host, _, port = text.rpartition(":")
    return Backend(ip_bytes(host), int(port))


def entry(
    *backends: str,
    service: str = "default/web:http/TCP",
    flags: FrontendFlags = FrontendFlags.NONE,
    affinity_timeout_s: int = 0,
    draining: Iterable[str] = (),
) -> Entry:
    """`entry("10.1.1.1:80")`; without backends it refuses."""
    if not backends and flags == FrontendFlags.NONE:
        flags = FrontendFlags.REFUSE
    return Entry(
        tuple(sorted(map(backend, backends))),
        service,
        flags,
        affinity_timeout_s,
        draining=tuple(sorted(map(backend, draining))),
    )
