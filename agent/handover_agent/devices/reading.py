"""Devices, their addresses and the default routes, read from the kernel by rtnetlink."""

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from handover_agent.devices.classify import Address, Device, Header, Place, classify
from handover_agent.rtnetlink import Message, RouteSocket, attribute, attributes, text
from handover_agent.table import ip_bytes

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, hardware type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, prefix, ..., type, flags
_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_IFNAME, _MASTER, _LINKINFO, _EXT_MASK, _LINK_NETNSID = 3, 10, 18, 29, 37
_INFO_KIND = 1
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_OIF, _MULTIPATH = 4, 9
_UNICAST = 1
_HEADERS = dict.fromkeys((1, 772), Header.ETHERNET) | dict.fromkeys(  # ARPHRD_ETHER, ARPHRD_LOOPBACK
    # ARPHRD_PPP, _RAWIP, _TUNNEL, _TUNNEL6, _SIT, _NONE: where the kernel takes packets without a link header, but
    # for GRE, whose devices have one on the way out if they have no peer. Source: dev_is_mac_header_xmit().
    (512, 519, 768, 769, 776, 0xFFFE),
    Header.NONE,
)
_IFF_LOOPBACK = 0x8


def look() -> list[Place]:
    """Every device of this network namespace with its role. Raises NetlinkError, OSError."""
    with RouteSocket() as kernel:
        links = kernel.dump(
            _GETLINK,
            _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            + attribute(_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS)),
            "list devices",
        )
        addresses = dump_addresses(kernel)
        routes = [
            message
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in kernel.dump(_GETROUTE, _ROUTE.pack(family, *[0] * 8), "list routes")
        ]
    return [classify(device) for device in parse(links, addresses, routes)]


def dump_addresses(kernel: RouteSocket) -> list[Message]:
    """Every address on every device, as `addresses_in` reads it."""
    return kernel.dump(_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list addresses")


def addresses_in(messages: Iterable[Message]) -> Iterator[tuple[int, Address]]:
    """A device's index and an address of its own, for each message of the dump: pure."""
    for message in messages:
        if message.kind == _NEWADDR:
            family, bits, _, _, index = _ADDRESS.unpack_from(message.body)
            values = attributes(message.body[_ADDRESS.size :])
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw and family in (socket.AF_INET, socket.AF_INET6):
                yield index, Address(ip_bytes(socket.inet_ntop(family, raw)), bits)


def name_of(index: int) -> str:
    """What a device is called; empty when it went away in between."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def parse(links: Sequence[Message], addresses: Sequence[Message], routes: Sequence[Message]) -> list[Device]:
    """Devices by the answers to three dumps: pure."""
    carried: dict[int, list[Address]] = {}
    for index, address in addresses_in(addresses):
        carried.setdefault(index, []).append(address)
    leaving = {index for message in routes for index in _default_route(message)}
    found, masters = [], dict[int, int]()
    for message in links:
        if message.kind != _NEWLINK:
            continue
        _, hardware, index, flags, _ = _LINK.unpack_from(message.body)
        values = attributes(message.body[_LINK.size :])
        info = attributes(values.get(_LINKINFO, b""))
        masters[index] = _number(values.get(_MASTER))
        found.append(
            Device(
                index=index,
                name=text(values.get(_IFNAME, b"")),
                kind=text(info.get(_INFO_KIND, b"")),
                header=_HEADERS.get(hardware, Header.OTHER),
                loopback=bool(flags & _IFF_LOOPBACK),
                peer_elsewhere=_LINK_NETNSID in values,
                addresses=tuple(carried.get(index, ())),
                default_route=index in leaving,
            )
        )
    kinds = {device.index: device.kind for device in found}
    return [replace(device, member_of=kinds.get(masters[device.index], "")) for device in found]


def _default_route(message: Message) -> Iterator[int]:
    """The devices by which a default route leaves; a node may have hundreds of thousands of other routes."""
    if message.kind != _NEWROUTE or message.body[1] or message.body[7] != _UNICAST:
        return
    values = attributes(message.body[_ROUTE.size :])
    if _OIF in values:
        yield _number(values[_OIF])
    hops = values.get(_MULTIPATH, b"")
    while len(hops) >= _HOP.size:
        length, _, _, index = _HOP.unpack_from(hops)
        if length < _HOP.size:
            return
        yield index
        hops = hops[(length + 3) & ~3 :]


def _number(raw: bytes | None) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw else 0
