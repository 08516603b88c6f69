"""Telling a connected UDP socket that nobody is at its other end any more: by an ICMP error, port unreachable.

It is what the backend's own kernel says when a process ends: the socket's next call, or the one that waits, returns
ECONNREFUSED, and the application connects anew, to another backend. The kernel looks for the socket by the datagram
that the error quotes, so that exactly this one is told, in whatever network namespace it is. Why not otherwise:
docs/adr/0020.
"""

import logging
import socket
import struct
from collections.abc import Iterable

from handover_agent.entries import Note
from handover_agent.objects import V4_PREFIX, is_ipv4
from handover_agent.table import ip_text

log = logging.getLogger(__name__)

_PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # type and code of ICMP, of ICMPv6
_UDP, _HOPS = 17, 64
_UDP_HEADER = struct.Struct(">HHHH")


def refusal(note: Note) -> bytes:
    """The ICMP or ICMPv6 message for a socket. The kernel adds ICMPv6's checksum."""
    client, backend = note.source, note.destination
    udp = _UDP_HEADER.pack(client.port, backend.port, _UDP_HEADER.size, 0)
    if not is_ipv4(client.address):
        kind, code = _PORT_UNREACHABLE[6]
        quoted = struct.pack(">IHBB", 6 << 28, len(udp), _UDP, _HOPS) + client.address + backend.address + udp
        return struct.pack(">BBHI", kind, code, 0, 0) + quoted
    addresses = client.address.removeprefix(V4_PREFIX) + backend.address.removeprefix(V4_PREFIX)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, _HOPS, _UDP, 0) + addresses
    quoted = _summed(head, 10) + udp
    kind, code = _PORT_UNREACHABLE[4]
    return _summed(struct.pack(">BBHI", kind, code, 0, 0) + quoted, 2)


def refuse(notes: Iterable[Note]) -> int:
    """Tell these; how many were told. Raises OSError when the agent may not send at all."""
    told = 0
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as v4,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as v6,
    ):
        for each in notes:
            ipv4 = is_ipv4(each.source.address)
            to = ip_text(each.source.address)
            try:
                (v4 if ipv4 else v6).sendto(refusal(each), (to, 0))
                told += 1
            except OSError as error:  # its pod is going, or has lost its route: the others can be told
                log.warning("a socket could not be told", extra={"client": to, "error": str(error)})
    return told


def _summed(data: bytes, at: int) -> bytes:
    """The same with the Internet checksum of all of it at an offset."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack(">H", ~total & 0xFFFF) + data[at + 2 :]
