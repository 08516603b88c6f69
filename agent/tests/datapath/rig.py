"""Writes a datapath's tables for a test, and tells what was counted since."""

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self

from handover_agent import bpfbatch, bpfmap
from handover_agent.bpfsys import obj_get
from handover_agent.datapath import Datapath
from handover_agent.entries import (
    NS_PER_S,
    Affinity,
    Direction,
    Flow,
    pack_held,
    unpack_affinity,
    unpack_flow,
    unpack_netns_cookie,
)
from handover_agent.layout import Sizes, pack_index, pack_settings
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Prefix,
    Protocol,
    Scope,
    Source,
    ip_bytes,
)
from tests.datapath.pods import TCP, UDP, frontend

SIZES = Sizes(
    frontends=64, backends=256, sockets=4096, affinity=1024, flows=131_072, fragments=64, sources=64
)
"""Room enough for most tests, and made in no time, where a node's maps take tens of megabytes."""
_SERVICE_IDS = count(1 << 20)


class Rig:
    """A datapath's tables. Every service gets a region of its own, never one that was used before."""

    def __init__(self, datapath: Datapath, maps: Path | None = None) -> None:
        self.datapath = datapath
        self._maps = datapath.maps()
        self._directory = maps or Path()
        self._offset = 1
        self._service_ids = _SERVICE_IDS
        self._before = datapath.counters()
        self.settle: Callable[[], None] = lambda: None
        """Waits for packets that are under way; there are none where sockets' calls, or trials, are counted."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.close()

    def serve(
        self,
        address: str,
        backends: Sequence[Backend],
        flags: FrontendFlags = FrontendFlags.NONE,
        timeout_s: int = 0,
        service_id: int = 0,
        draining: Sequence[Backend] = (),
    ) -> int:
        """A Service of TCP and UDP at `address`; its region's offset."""
        offset, serving = self._write(backends, draining)
        service_id = service_id or next(self._service_ids)
        value = FrontendValue(offset, len(backends), service_id, flags, timeout_s, serving)
        self._maps.write_frontends({frontend(address, TCP): value, frontend(address, UDP): value})
        return offset

    def expose(
        self,
        address: str,
        port: int,
        backends: Sequence[Backend],
        flags: FrontendFlags = FrontendFlags.NONE,
        scope: Scope = Scope.INTERNAL,
        protocols: Sequence[Protocol] = (Protocol.TCP, Protocol.UDP, Protocol.SCTP),
        timeout_s: int = 0,
        service_id: int = 0,
        draining: Sequence[Backend] = (),
    ) -> int:
        """A Service at a port of an address, in one scope; its number."""
        offset, serving = self._write(backends, draining)
        service_id = service_id or next(self._service_ids)
        value = FrontendValue(offset, len(backends), service_id, flags, timeout_s, serving)
        keys = [FrontendKey(ip_bytes(address), port, protocol, scope) for protocol in protocols]
        self._maps.write_frontends(dict.fromkeys(keys, value))
        return service_id

    def admit(self, service_id: int, address: str, bits: int) -> None:
        """Let sources use a Service's load balancer; `bits` of 128."""
        self._maps.write_sources([Source(service_id, Prefix(ip_bytes(address), bits))])

    def be_known_as(self, ipv4: str) -> None:
        """The node's address for what it sends from 127.0.0.1."""
        with obj_get(self._directory / "settings") as settings:
            raw = pack_settings(accepting=True, own_ipv4=socket.inet_aton(ipv4))
            bpfmap.update(settings.fd, pack_index(0), raw)

    def flows(self) -> list[Flow]:
        """What the packet path remembers."""
        return [unpack_flow(key, value) for key, value in self._flows()]

    def age_flows(self, seconds: float) -> None:
        """Let time go by without a packet."""
        with obj_get(self._directory / "flows") as flows:
            for key, value in self._flows():
                bpfmap.update(flows.fd, key, _aged(value, slice(24, 32), seconds))

    @contextmanager
    def standing_by(self) -> Iterator[None]:
        """New connections are left alone meanwhile."""
        with obj_get(self._directory / "settings") as settings:
            bpfmap.update(settings.fd, pack_index(0), pack_settings(accepting=False))
            yield
            bpfmap.update(settings.fd, pack_index(0), pack_settings(accepting=True))

    def hold_flows(self) -> None:
        """Have their datagrams wait from now on."""
        with obj_get(self._directory / "flows") as flows:
            for key, value in self._flows():
                bpfmap.update(flows.fd, key, pack_held(value, time.monotonic_ns()))

    def age_fragments(self, seconds: float) -> None:
        """The same for the first pieces of datagrams."""
        with obj_get(self._directory / "fragments") as fragments:
            for key, value in self._entries("fragments"):
                bpfmap.update(fragments.fd, key, _aged(value, slice(16, 24), seconds))

    def stays(self, service_id: int) -> list[Affinity]:
        """Who stays with a backend of a Service."""
        found = [unpack_affinity(key, value) for key, value in self._entries("affinity")]
        return [entry for entry in found if entry.service_id == service_id]

    def age_affinity(self, seconds: float) -> None:
        """Let time go by without a connection."""
        with obj_get(self._directory / "affinity") as affinity:
            for key, value in self._entries("affinity"):
                bpfmap.update(affinity.fd, key, _aged(value, slice(0, 8), seconds))

    def addresses(self) -> dict[bytes, int]:
        """Whose addresses were noted: the cookies of the network namespaces."""
        return {key: unpack_netns_cookie(value) for key, value in self._entries("clients")}

    def note_addresses(self, cookies: Mapping[bytes, int]) -> None:
        """Have addresses noted."""
        with obj_get(self._directory / "clients") as clients:
            entries = [(address, cookie.to_bytes(8, sys.byteorder)) for address, cookie in cookies.items()]
            bpfbatch.write(clients.fd, entries)

    def forget_addresses(self) -> None:
        """Whose addresses were noted, all of them."""
        self._clear("clients")

    def forget_packets(self) -> None:
        """What the packet path remembers, all of it."""
        self.lose_flows()
        self._clear("fragments")

    def lose_flows(self, direction: Direction | None = None) -> None:
        """Remove entries, as a full map does."""
        lost = [k for k, v in self._flows() if direction in (None, unpack_flow(k, v).direction)]
        with obj_get(self._directory / "flows") as flows:
            bpfbatch.delete(flows.fd, lost)

    def forget_places(self) -> None:
        """Let no frontend's address have its place any more, as after a table that has none of them."""
        self._maps.keep_addresses([])

    def lose_sockets(self) -> None:
        """Forget what the socket path knows of open sockets."""
        for name in ("reverse", "forward", "sockets"):
            self._clear(name)

    def occupy(self, client: str, backend: str, port: int, ports: range) -> None:
        """Have flows of somebody else at all of a client's ports."""
        with obj_get(self._directory / "flows") as flows:
            key, value = next((k, v) for k, v in self._flows() if unpack_flow(k, v).direction == 1)
            ends = ip_bytes(backend) + ip_bytes(client) + port.to_bytes(2, "big")
            taken = [(ends + number.to_bytes(2, "big") + key[36:], value) for number in ports]
            bpfbatch.write(flows.fd, taken)

    def withdraw(self, address: str, port: int) -> None:
        """Take a Service away that was exposed."""
        protocols = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
        self.remove(*(FrontendKey(ip_bytes(address), port, protocol) for protocol in protocols))

    def refuse_other_ports(self, address: str) -> None:
        """What every ClusterIP has besides its ports."""
        key = FrontendKey(ip_bytes(address), 0, Protocol.ANY)
        self._maps.write_frontends({key: FrontendValue(0, 0, 0, FrontendFlags.REFUSE)})

    def point(self, address: str, value: FrontendValue) -> None:
        """Frontends with a value as given, be it sound or not."""
        self._maps.write_frontends({frontend(address, TCP): value, frontend(address, UDP): value})

    def remove(self, *keys: FrontendKey) -> None:
        self._maps.delete_frontends(keys)

    def _clear(self, name: str) -> None:
        with obj_get(self._directory / name) as opened:
            info = bpfmap.map_info(opened.fd)
            entries = bpfbatch.read_hash(opened.fd, info.key_bytes, info.value_bytes)
            bpfbatch.delete(opened.fd, [key for key, _ in entries])

    def _flows(self) -> list[tuple[bytes, bytes]]:
        return self._entries("flows")

    def _entries(self, name: str) -> list[tuple[bytes, bytes]]:
        with obj_get(self._directory / name) as opened:
            info = bpfmap.map_info(opened.fd)
            return list(bpfbatch.read_hash(opened.fd, info.key_bytes, info.value_bytes))

    def _write(self, backends: Sequence[Backend], draining: Sequence[Backend]) -> tuple[int, int]:
        """Where a region begins, and how long its second part is."""
        offset, serving = self._offset, sorted([*backends, *draining]) if draining else []
        self._offset += len(backends) + len(serving) + 1
        self._maps.write_backends(offset, [*sorted(backends), *serving])
        return offset, len(serving)

    def counted(self) -> dict[str, int]:
        """What was counted since the last call (or the test's start), without zeros."""
        self.settle()
        before, self._before = self._before, self.datapath.counters()
        return {name: n - before[name] for name, n in self._before.items() if n != before[name]}


def _aged(value: bytes, seen: slice, seconds: float) -> bytes:
    """A value whose `last_seen_ns` is earlier; before the machine's start, too."""
    before = int.from_bytes(value[seen], sys.byteorder) - int(seconds * NS_PER_S)
    return value[: seen.start] + (before % 2**64).to_bytes(8, sys.byteorder) + value[seen.stop :]
