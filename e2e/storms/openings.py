"""Who opens TCP connections, and who resets them, as the nodes' devices see it: a connection that was lost among a
thousand others then tells how far it came.
"""

import ctypes
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from e2e.netns import Inside

_MOST = 400_000
_ALL = 0x0003  # ETH_P_ALL
_ATTACH_FILTER, _RCVBUFFORCE = 26, 33
_BYTES = 96  # of a packet: IP header, and as much of TCP's as is looked at
_ROOM = 16 << 20
_OUTGOING = 4  # PACKET_OUTGOING
_FLAGS = {0x01: "FIN", 0x02: "SYN", 0x04: "RST", 0x10: "ACK"}
_PORT = re.compile(r"from port (\d+)")

# Accepts TCP with SYN or RST, of either family, without options between the headers of IPv6: (code, jt, jf, k).
_FILTER = (
    (0x30, 0, 0, 0),  # A = the first byte
    (0x54, 0, 0, 0xF0),
    (0x15, 0, 5, 0x40),  # IPv4
    (0x30, 0, 0, 9),
    (0x15, 0, 9, 6),
    (0xB1, 0, 0, 0),  # X = the header's length
    (0x50, 0, 0, 13),
    (0x05, 0, 0, 4),
    (0x15, 0, 5, 0x60),  # IPv6
    (0x30, 0, 0, 6),
    (0x15, 0, 3, 6),
    (0x30, 0, 0, 53),
    (0x45, 0, 1, 0x06),  # SYN or RST
    (0x06, 0, 0, _BYTES),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Opening:
    """A packet with SYN or RST at a device of a node; `at` in seconds of the wall clock."""

    at: float
    node: str
    device: str
    leaving: bool
    source: str
    source_port: int
    target: str
    port: int
    flags: str
    sequence: int

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at, UTC).strftime("%H:%M:%S.%f")
        way = "out by" if self.leaving else "in by"
        ends = f"{self.source} {self.source_port} → {self.target} {self.port}"
        return f"{when} {self.node} {way} {self.device}: {ends} {self.flags} {self.sequence}"


def parse(packet: bytes) -> tuple[str, int, str, int, str, int] | None:
    """Source and its port, target and its port, flags, sequence number; None if it is cut off."""
    version = packet[0] >> 4
    at = (packet[0] & 15) * 4 if version == 4 else 40
    if len(packet) < at + 14:
        return None
    family, first, size = (socket.AF_INET, 12, 4) if version == 4 else (socket.AF_INET6, 8, 16)
    source, target = (socket.inet_ntop(family, packet[n : n + size]) for n in (first, first + size))
    source_port, port, sequence = struct.unpack_from(">HHI", packet, at)
    flags = "+".join(name for bit, name in _FLAGS.items() if packet[at + 13] & bit)
    return source, source_port, target, port, flags, sequence


def ports_of(failures: Iterable[object]) -> set[int]:
    """The clients' ports of connections that failed, by what the traffic says of them."""
    return {int(found) for failure in failures for found in _PORT.findall(str(failure))}


class Openings:
    """Records while it is entered: the last of them, of all nodes."""

    def __init__(self, netns: Sequence[tuple[str, str]]) -> None:
        """Of nodes by their names, with the names of their network namespaces."""
        self._netns = netns
        self._seen: deque[tuple[float, str, str, bool, bytes]] = deque(maxlen=_MOST)
        self._ending = threading.Event()
        self._sockets: dict[socket.socket, str] = {}
        self._thread = threading.Thread(target=self._read, name="openings")

    def __enter__(self) -> Self:
        for node, netns in self._netns:
            with Inside(netns, threads=1) as inside:
                self._sockets[inside.call(_listening)] = node
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def of(self, ports: Collection[int]) -> list[Opening]:
        """Those from and to some ports, in order."""
        found = []
        for at, node, device, leaving, packet in tuple(self._seen):
            said = parse(packet)
            if said and (said[1] in ports or said[3] in ports):
                found.append(Opening(at, node, device, leaving, *said))
        return sorted(found, key=lambda opening: opening.at)

    def _read(self) -> None:
        while not self._ending.is_set():
            for each in select.select(list(self._sockets), [], [], 0.2)[0]:
                packet, (device, _, kind, *_) = each.recvfrom(_BYTES)
                self._seen.append((time.time(), self._sockets[each], device, kind == _OUTGOING, packet))


def _listening() -> socket.socket:
    """A socket for packets of all devices of this network namespace, from their IP header on."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _FILTER))
    program = struct.pack("@HP", len(_FILTER), ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
    with suppress(BlockingIOError):  # what it heard before it had its filter
        while True:
            made.recv(_BYTES, socket.MSG_DONTWAIT)
    return made
