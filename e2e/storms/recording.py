"""What the nodes' devices see of connections that begin and of datagrams: so that one that was lost among thousands
tells how far it came, and what came back.
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

_MOST = 1_000_000
_ALL = 0x0003  # ETH_P_ALL
_ATTACH_FILTER, _RCVBUFFORCE = 26, 33
_BYTES = 96  # of a packet: its headers, and the beginning of what it says
_ROOM = 64 << 20
_OUTGOING = 4  # PACKET_OUTGOING
_TCP, _UDP = 6, 17
_READ = {_TCP: 14, _UDP: 8}  # bytes of their headers that are looked at
_FLAGS = {0x01: "FIN", 0x02: "SYN", 0x04: "RST", 0x10: "ACK"}
_PORT = re.compile(r"from port (\d+)")


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet at a device of a node; `at` in seconds of the wall clock."""

    at: float
    node: str
    device: str
    leaving: bool
    source: str
    source_port: int
    target: str
    port: int
    said: str
    """TCP's flags and sequence number, or what a datagram says."""

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at, UTC).strftime("%H:%M:%S.%f")
        way = "out by" if self.leaving else "in by"
        ends = f"{self.source} {self.source_port} → {self.target} {self.port}"
        return f"{when} {self.node} {way} {self.device}: {ends} {self.said}"


def parse(packet: bytes) -> tuple[str, int, str, int, str] | None:
    """Source and its port, target and its port, and what is said; None if it is cut off, or neither TCP nor UDP."""
    version = packet[0] >> 4
    at, protocol = ((packet[0] & 15) * 4, packet[9]) if version == 4 else (40, packet[6])
    if protocol not in _READ or len(packet) < at + _READ[protocol]:
        return None
    family, first, size = (socket.AF_INET, 12, 4) if version == 4 else (socket.AF_INET6, 8, 16)
    source, target = (socket.inet_ntop(family, packet[n : n + size]) for n in (first, first + size))
    source_port, port, sequence = struct.unpack_from(">HHI", packet, at)
    if protocol == _UDP:
        said = f"UDP {packet[at + 8 :]!r}"
    else:
        said = f"{'+'.join(name for bit, name in _FLAGS.items() if packet[at + 13] & bit)} {sequence}"
    return source, source_port, target, port, said


def ports_of(failures: Iterable[object]) -> set[int]:
    """The clients' ports of what failed, by what the traffic says of it."""
    return {int(found) for failure in failures for found in _PORT.findall(str(failure))}


class Recording:
    """Goes on while it is entered, and keeps the last packets: TCP's with SYN or RST, and datagrams from or to a port."""

    def __init__(self, netns: Sequence[tuple[str, str]], datagrams: tuple[int, int]) -> None:
        """Of nodes by their names, with the names of their network namespaces. `datagrams`: a Service's port and its pods'."""
        self._netns = netns
        self._filter = _accepting(*datagrams)
        self._seen: deque[tuple[float, str, str, bool, bytes]] = deque(maxlen=_MOST)
        self._ending = threading.Event()
        self._sockets: dict[socket.socket, str] = {}
        self._thread = threading.Thread(target=self._read, name="recording")

    def __enter__(self) -> Self:
        for node, netns in self._netns:
            with Inside(netns, threads=1) as inside:
                self._sockets[inside.call(_listening, self._filter)] = node
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def of(self, ports: Collection[int]) -> list[Packet]:
        """Those from and to some ports, in order."""
        found = []
        for at, node, device, leaving, packet in tuple(self._seen):
            said = parse(packet)
            if said and (said[1] in ports or said[3] in ports):
                found.append(Packet(at, node, device, leaving, *said))
        return sorted(found, key=lambda packet: packet.at)

    def _read(self) -> None:
        while not self._ending.is_set():
            for each in select.select(list(self._sockets), [], [], 0.2)[0]:
                packet, (device, _, kind, *_) = each.recvfrom(_BYTES)
                self._seen.append((time.time(), self._sockets[each], device, kind == _OUTGOING, packet))


def _accepting(*ports: int) -> bytes:
    """A classic BPF program for what begins with an IP header: (code, jump if true, jump if false, k)."""
    one, other = ports
    program = (
        (0x30, 0, 0, 0),  # A = version and length
        (0x54, 0, 0, 0xF0),
        (0x15, 0, 3, 0x40),
        (0xB1, 0, 0, 0),  # X = the length of an IPv4 header
        (0x30, 0, 0, 9),  # A = the protocol
        (0x05, 0, 0, 3),
        (0x15, 0, 13, 0x60),
        (0x01, 0, 0, 40),
        (0x30, 0, 0, 6),
        (0x15, 0, 2, _TCP),
        (0x50, 0, 0, 13),
        (0x45, 7, 8, 0x06),  # SYN or RST
        (0x15, 0, 7, _UDP),
        (0x48, 0, 0, 0),
        (0x15, 4, 0, one),
        (0x15, 3, 0, other),
        (0x48, 0, 0, 2),
        (0x15, 1, 0, one),
        (0x15, 0, 1, other),
        (0x06, 0, 0, _BYTES),
        (0x06, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def _listening(accepting: bytes) -> socket.socket:
    """A socket for packets of all devices of this network namespace, from their IP header on."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
    code = ctypes.create_string_buffer(accepting)
    program = struct.pack("@HP", len(accepting) // 8, ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
    with suppress(BlockingIOError):  # what it heard before it had its filter
        while True:
            made.recv(_BYTES, socket.MSG_DONTWAIT)
    return made
