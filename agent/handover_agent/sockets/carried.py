"""What connected UDP sockets carry: which backend they got for which frontend, and their own address.

The Python side of bpf/connected.h. The kernel's own part of a record is the beginning of its struct sock_common, whose
members the loader looks up before it loads the iterator.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6

from handover_agent import layout
from handover_agent.bpfiter import iterate
from handover_agent.bpfsys import obj_get
from handover_agent.hooks import ITERATOR
from handover_agent.objects import V4_PREFIX
from handover_agent.table import Backend, FrontendKey, Protocol

OFFSETS = {
    "skc_daddr": 0,
    "skc_rcv_saddr": 4,
    "skc_dport": 12,
    "skc_num": 14,
    "skc_family": 16,
    "skc_state": 18,
    "skc_v6_daddr": 56,
    "skc_v6_rcv_saddr": 72,
}
_CARRIED = struct.Struct("=Q20s20s")
_COMMON = struct.Struct("=4s4s4x2sHHB37x16s16s")
_RECORD_BYTES = _CARRIED.size + _COMMON.size
_CONNECTED = 1  # TCP_ESTABLISHED, for UDP too
_PORT = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Carried:
    """A connected UDP socket. Ports and addresses of the socket itself are as bind(2) and connect(2) left them."""

    cookie: int
    frontend: FrontendKey
    backend: Backend
    client: Backend  # the socket's own address and port


def read(maps: Path, programs: Path) -> list[Carried]:
    """The sockets that are connected to a backend of ours now, in every network namespace.

    Empty where the kernel cannot show them. Raises BpfError, OSError.
    """
    try:
        with obj_get(programs / ITERATOR) as program, obj_get(maps / "connected") as carried:
            return decode(iterate(program.fd, carried.fd, f"iterator {ITERATOR}"))
    except FileNotFoundError:
        return []


def decode(raw: bytes) -> list[Carried]:
    """The records of the iterator, without the sockets that are not connected there any more."""
    found = []
    for start in range(0, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES):
        cookie, frontend, backend = _CARRIED.unpack_from(raw, start)
        wanted = layout.unpack_backend(backend)
        client, peer = _ends(raw, start + _CARRIED.size)
        if client is not None and peer == wanted:
            to = layout.unpack_backend(frontend)
            found.append(Carried(cookie, FrontendKey(to.address, to.port, Protocol.UDP), wanted, client))
    return found


def _ends(raw: bytes, start: int) -> tuple[Backend | None, Backend | None]:
    """The socket's own end and its peer's; None for both when it is not connected."""
    to4, from4, to_port, from_port, family, state, to6, from6 = _COMMON.unpack_from(raw, start)
    if state != _CONNECTED or not from_port:
        return None, None
    if family == AF_INET:
        to6, from6 = V4_PREFIX + to4, V4_PREFIX + from4
    elif family != AF_INET6:
        return None, None
    return Backend(from6, from_port), Backend(to6, _PORT.unpack(to_port)[0])
