"""Listening sockets as kube-proxy binds them: without sharing, so that a second proxy on a node is noticed."""

import errno
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from itertools import islice
from pathlib import Path

_BACKLOG = 128
_LISTEN = "0A"
"""The state in /proc/net/tcp: TCP_LISTEN."""


class NotListening(Exception):
    """A port cannot be listened on: which, where, and the kernel's reason."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(f"cannot listen on {where}: {error.strerror}")
        self.taken = error.errno == errno.EADDRINUSE


def listen_everywhere(port: int) -> socket.socket:
    """One socket for every address of both families; of IPv4 alone where there is no IPv6. Raises NotListening."""
    if socket.has_ipv6:
        try:
            return _listening(socket.AF_INET6, "::", port, both=True)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise NotListening(f"port {port}", error) from error
    try:
        return _listening(socket.AF_INET, "0.0.0.0", port)
    except OSError as error:
        raise NotListening(f"port {port}", error) from error


def listen_at(address: str, port: int) -> socket.socket:
    """A socket for one address, or with `0.0.0.0` or `::` for every one of that family. Raises NotListening."""
    v6 = isinstance(ip_address(address), IPv6Address)
    try:
        return _listening(socket.AF_INET6 if v6 else socket.AF_INET, address, port)
    except OSError as error:
        raise NotListening(f"[{address}]:{port}" if v6 else f"{address}:{port}", error) from error


def listeners(port: int, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> frozenset[str]:
    """The addresses at which sockets of this network namespace listen on a TCP port; without touching the port."""
    found: set[str] = set()
    for table in tables:
        with suppress(FileNotFoundError), Path(table).open(encoding="ascii") as lines:
            found.update(listening_in(lines, port))
    return frozenset(found)


def listening_in(table: Iterable[str], port: int) -> Iterator[str]:
    """The same, of the lines of /proc/net/tcp: there, an address is words of 32 bits in the machine's byte order.

    The kernel goes through those who listen first (tcp_get_idx in net/ipv4/tcp_ipv4.c). What comes after them, on a busy
    node a hundred thousand connections which it formats as they are read, is not read.
    """
    for line in islice(table, 1, None):
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTEN:
            return
        address, _, number = fields[1].rpartition(":")
        if int(number, 16) == port:
            words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
            yield str(ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))


def _listening(family: int, address: str, port: int, *, both: bool = False) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        made.bind((address, port))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
