"""The addresses on this node's interfaces, asked of the kernel by rtnetlink: no tool, no library, a
millisecond.
"""

import socket
import struct
from collections.abc import Iterator

from handover_agent.table import ip_bytes

_IPVS_DEVICE = "kube-ipvs0"  # where kube-proxy parks ClusterIPs in IPVS mode
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_BUFFER_BYTES = 1 << 18


def local_addresses() -> frozenset[bytes]:
    """Every address on an interface of this network namespace, except kube-proxy's IPVS device. Raises
    OSError.
    """
    found: set[bytes] = set()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5)
        length = _HEADER.size + _IFADDR.size
        netlink.send(
            _HEADER.pack(length, _RTM_GETADDR, _REQUEST_DUMP, 1, 0)
            + _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        )
        finished = False
        while not finished:
            addresses, finished = parse(netlink.recv(_BUFFER_BYTES))
            found |= {packed for index, packed in addresses if _name(index) != _IPVS_DEVICE}
    return frozenset(found)


def parse(data: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Interface index and address of each message of a dump, and whether it was the last. Raises OSError."""
    found: list[tuple[int, bytes]] = []
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            number = -struct.unpack_from("=i", data, _HEADER.size)[0]
            raise OSError(number, "the kernel does not list addresses")
        if kind == _RTM_NEWADDR:
            family, _, _, _, index = _IFADDR.unpack_from(data, _HEADER.size)
            values = dict(_attributes(data[_HEADER.size + _IFADDR.size : length]))
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw and family in (socket.AF_INET, socket.AF_INET6):
                found.append((index, ip_bytes(socket.inet_ntop(family, raw))))
        data = data[_aligned(length) :]
    return found, False


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""  # it went away in between
