"""The addresses on this node's interfaces, asked of the kernel by rtnetlink: no tool, no library, a
millisecond.
"""

import socket
import struct
from collections.abc import Sequence

from handover_agent.rtnetlink import Message, RouteSocket, attributes
from handover_agent.table import ip_bytes

_IPVS_DEVICE = "kube-ipvs0"  # where kube-proxy parks ClusterIPs in IPVS mode
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def local_addresses() -> frozenset[bytes]:
    """Every address on an interface of this network namespace, except kube-proxy's IPVS device. Raises
    OSError.
    """
    with RouteSocket() as kernel:
        answers = kernel.dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list addresses")
    return frozenset(packed for index, packed in parse(answers) if _name(index) != _IPVS_DEVICE)


def parse(answers: Sequence[Message]) -> list[tuple[int, bytes]]:
    """Interface index and address of each message of a dump."""
    found: list[tuple[int, bytes]] = []
    for message in answers:
        if message.kind == _RTM_NEWADDR:
            family, _, _, _, index = _IFADDR.unpack_from(message.body)
            values = attributes(message.body[_IFADDR.size :])
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw and family in (socket.AF_INET, socket.AF_INET6):
                found.append((index, ip_bytes(socket.inet_ntop(family, raw))))
    return found


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""  # it went away in between
