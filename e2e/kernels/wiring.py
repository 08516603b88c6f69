"""Machines inside of the machine: network namespaces, joined by veths, without any tool (the agent's image has none).

    client 198.51.100.2 ── 198.51.100.1 out0 [ this namespace: the node ] pod0 10.244.1.1 ── 10.244.1.2 pod

Runs in the machine. Sockets stay in the namespace where they were made.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from handover_agent.rtnetlink import CREATE, EXCLUSIVE, RouteSocket, attribute

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFF_UP = 1
_MAIN_TABLE, _BOOT, _UNICAST = 254, 3, 1
_UNIVERSE, _LINK = 0, 253  # a route's scope

NODE = {4: "198.51.100.1", 6: "2001:db8:100::1"}
CLIENT = {4: "198.51.100.2", 6: "2001:db8:100::2"}
POD = {4: "10.244.1.2", 6: "fd00:244:1::2"}
GATEWAY = {4: "10.244.1.1", 6: "fd00:244:1::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BITS = {4: 24, 6: 64}


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Descriptors of the three."""

    node: int
    client: int
    pod: int

    @contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """This thread is in one of them."""
        _setns(namespace)
        yield
        _setns(self.node)

    def open(self, namespace: int, family: int, kind: socket.SocketKind) -> socket.socket:
        """A socket in one of them."""
        with self.inside(namespace):
            opened = socket.socket(FAMILIES[family], kind)
        opened.settimeout(30)
        return opened


def wire() -> Namespaces:
    """Make the three of them."""
    here = _current()
    names = Namespaces(here, _another(here), _another(here))
    for device, namespace in (("out0", names.client), ("pod0", names.pod)):
        _pair(device, namespace)
    _address("out0", NODE)
    _route(via=CLIENT)
    _address("pod0", GATEWAY, alone=True)
    _route("pod0", to=POD)
    for namespace, addresses, via in ((names.client, CLIENT, NODE), (names.pod, POD, GATEWAY)):
        with names.inside(namespace):
            _up("lo")
            _address("eth0", addresses)
            _route(via=via)
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", switch).write_text("1")
    return names


def _pair(device: str, other: int) -> None:
    peer = _link() + attribute(_IFLA_IFNAME, b"eth0\0") + attribute(_IFLA_NET_NS_FD, struct.pack("=I", other))
    kind = attribute(_INFO_KIND, b"veth\0") + attribute(_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    named = attribute(_IFLA_IFNAME, device.encode() + b"\0")
    _ask(_NEWLINK, _link() + named + attribute(_IFLA_LINKINFO, kind), f"make {device}")


def _address(device: str, addresses: dict[int, str], alone: bool = False) -> None:
    """`alone`: without the network that it is in, as a ptp plug-in does: the device is a pod's port then."""
    _up(device)
    index = socket.if_nametoindex(device)
    for family, address in addresses.items():
        packed = ip_address(address).packed
        bits = 8 * len(packed) if alone else _BITS[family]
        head = struct.pack("=BBBBI", FAMILIES[family], bits, _IFA_F_NODAD, 0, index)
        body = head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        _ask(_NEWADDR, body, f"give {device} {address}")


def _route(device: str = "", to: dict[int, str] | None = None, via: dict[int, str] | None = None) -> None:
    """The way to a neighbour of a device's, or the default one by a gateway."""
    for family, name in FAMILIES.items():
        packed = ip_address((to or via or {})[family]).packed
        bits, scope = (8 * len(packed), _LINK) if to else (0, _UNIVERSE)
        head = struct.pack("=8BI", name, bits, 0, 0, _MAIN_TABLE, _BOOT, scope, _UNICAST, 0)
        if to:
            index = struct.pack("=I", socket.if_nametoindex(device))
            way = attribute(_RTA_DST, packed) + attribute(_RTA_OIF, index)
        else:
            way = attribute(_RTA_GATEWAY, packed)
        _ask(_NEWROUTE, head + way, f"a route to {to}" if to else f"a route by {via}")


def _up(device: str) -> None:
    with RouteSocket() as kernel:
        kernel.request(_NEWLINK, 0, _link(socket.if_nametoindex(device), _IFF_UP), f"have {device} up")


def _link(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)  # struct ifinfomsg


def _ask(kind: int, body: bytes, what: str) -> None:
    with RouteSocket() as kernel:  # of the namespace that this thread is in
        kernel.request(kind, CREATE | EXCLUSIVE, body, what)


def _another(here: int) -> int:
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    made = _current()
    _setns(here)
    return made


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _setns(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
