"""Two switches of the loopback device, which let in what programs send to it.

A packet that a program redirects to the loopback device comes in there as if from a wire. It is routed anew, and IPv4
refuses one whose source is an address of the node's own (`accept_local`) or 127.0.0.1 (`route_localnet`). Ordinary
packets keep the route that they left by and are not asked; and nothing comes in by this device from elsewhere.

A switch that we turned on is turned off again when the programs go: a directory among our pins says that it was us,
written before it is done. The kernel is asked by rtnetlink: to a container that is not privileged, /proc/sys is
read-only.
"""

import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from handover_agent.rtnetlink import RouteSocket, attribute, attributes

LOOPBACK = 1
"""The number of the loopback device, in every network namespace."""
SWITCHES: Mapping[str, int] = {
    "accept_local": 23,
    "route_localnet": 26,
}  # enum IPV4_DEVCONF_* of <linux/ip.h>
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, hardware type, index, flags, change
_NEWLINK, _GETLINK, _SETLINK = 16, 18, 19
_AF_SPEC, _INET_CONF, _EXT_MASK, _SKIP_STATISTICS = 26, 1, 29, 8
_NESTED = 0x8000


def turn_on(directory: Path) -> None:
    """Have all of them on, and remember in `directory` which were not. Idempotent. Raises NetlinkError, OSError."""
    with RouteSocket() as kernel:
        values = _read(kernel)
        for name, number in SWITCHES.items():
            if not values[number - 1]:
                directory.mkdir(mode=0o700, exist_ok=True)
                _marker(directory, name).mkdir(mode=0o700, exist_ok=True)
                _write(kernel, name, 1)


def restore(directory: Path) -> None:
    """Turn off those that `turn_on` turned on. Idempotent. Raises NetlinkError, OSError."""
    ours = [name for name in SWITCHES if _marker(directory, name).is_dir()]
    if ours:
        with RouteSocket() as kernel:
            for name in ours:
                _write(kernel, name, 0)
                _marker(directory, name).rmdir()


def _marker(directory: Path, name: str) -> Path:
    return directory / f"lo-{name}"


def _read(kernel: RouteSocket) -> tuple[int, ...]:
    """The IPv4 configuration of the loopback device: switch 1, 2, ..."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(
        _EXT_MASK, struct.pack("=I", _SKIP_STATISTICS)
    )
    for message in kernel.dump(_GETLINK, body, "read the switches of the loopback device"):
        if message.kind == _NEWLINK and _LINK.unpack_from(message.body)[2] == LOOPBACK:
            families = attributes(attributes(message.body[_LINK.size :])[_AF_SPEC])
            raw = attributes(families[socket.AF_INET])[_INET_CONF]
            return struct.unpack(f"={len(raw) // 4}I", raw)
    raise OSError(f"there is no loopback device with the number {LOOPBACK} in this network namespace")


def _write(kernel: RouteSocket, name: str, value: int) -> None:
    switch = attribute(SWITCHES[name], struct.pack("=I", value))
    family = attribute(socket.AF_INET, attribute(_INET_CONF | _NESTED, switch))
    body = _LINK.pack(socket.AF_UNSPEC, 0, LOOPBACK, 0, 0) + attribute(_AF_SPEC | _NESTED, family)
    kernel.request(_SETLINK, 0, body, f"set net.ipv4.conf.lo.{name} to {value}")
