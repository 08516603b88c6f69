"""By which device the packets of an address on this node come in: a pod's port, also behind a bridge.

The kernel's neighbours know each pod that was ever spoken to. On a bridge they name the bridge, and the bridge's
own table says behind which of its ports a hardware address is. Routes know the pods of CNI plug-ins without one.
"""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from handover_agent.devices.reading import name_of
from handover_agent.rtnetlink import Message, RouteSocket, attributes
from handover_agent.table import ip_bytes

_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, device, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEWNEIGH, _GETNEIGH, _NEWROUTE, _GETROUTE = 28, 30, 24, 26
_DST, _LLADDR = 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_UNICAST = 1
_FAMILIES = {socket.AF_INET: 32, socket.AF_INET6: 128}


class Ports(dict[bytes, str]):
    """Address (16 bytes) → device."""

    @classmethod
    def look(cls) -> Self:
        """Read the kernel's tables. Raises NetlinkError, OSError."""
        with RouteSocket() as kernel:
            near = kernel.dump(_GETNEIGH, _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list neighbours")
            bridged = kernel.dump(
                _GETNEIGH, _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, 0, 0, 0), "list bridge ports"
            )
            routes = [
                message
                for family in _FAMILIES
                for message in kernel.dump(_GETROUTE, _ROUTE.pack(family, *[0] * 8), "list routes")
            ]
        found = ports(near, bridged, routes)
        return cls({address: name for address, index in found.items() if (name := name_of(index))})


def ports(
    near: Iterable[Message], bridged: Iterable[Message], routes: Iterable[Message]
) -> Mapping[bytes, int]:
    """Address → device by number, from the answers to the dumps: pure."""
    behind = {hardware: index for index, _, hardware in _neighbours(bridged) if hardware}
    found = dict(_host_routes(routes))
    for index, address, hardware in _neighbours(near):
        if address and hardware:
            found[address] = behind.get(hardware, index)
    return found


def _neighbours(messages: Iterable[Message]) -> Iterator[tuple[int, bytes, bytes]]:
    """Device, address (empty in a bridge's table), hardware address."""
    for message in messages:
        if message.kind != _NEWNEIGH:
            continue
        family, index, *_ = _NEIGHBOUR.unpack_from(message.body)
        values = attributes(message.body[_NEIGHBOUR.size :])
        raw = values.get(_DST, b"")
        address = ip_bytes(socket.inet_ntop(family, raw)) if raw and family in _FAMILIES else b""
        yield index, address, values.get(_LLADDR, b"")


def _host_routes(messages: Iterable[Message]) -> Iterator[tuple[bytes, int]]:
    """Routes to one address alone; a node may have hundreds of thousands of other routes."""
    for message in messages:
        if message.kind != _NEWROUTE:
            continue
        family, bits = message.body[0], message.body[1]
        if (socket.AF_INET, 32) != (family, bits) != (socket.AF_INET6, 128) or message.body[7] != _UNICAST:
            continue
        values = attributes(message.body[_ROUTE.size :])
        if _RTA_DST in values and _RTA_OIF in values:
            yield (
                ip_bytes(socket.inet_ntop(family, values[_RTA_DST])),
                struct.unpack("=I", values[_RTA_OIF])[0],
            )
