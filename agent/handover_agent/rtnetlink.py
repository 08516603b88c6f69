"""rtnetlink, as thin as it can be: dumps, requests that are acknowledged, and what the kernel tells unasked.

Three things of a node are read and written this way: addresses, devices, and traffic control. None of them
needs a tool in the image or a library in the agent's memory. Nothing here knows what the messages mean.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_KIND = 0x3FFF  # without the flags for nesting and byte order
REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_DUMP, _DUMP_INTERRUPTED = 0x300, 0x10
_ERROR, _DONE = 2, 3
_BUFFER_BYTES = 1 << 18
_DEADLINE_S = 10
_MOST_DUMPS = 5


class NetlinkError(OSError):
    """The kernel refused a request: what was asked, of what, and its reason."""

    def __init__(self, number: int, asked: str) -> None:
        advice = "; the agent needs CAP_NET_ADMIN" if number == errno.EPERM else ""
        super().__init__(number, f"{asked}: {os.strerror(number)}{advice}")

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel's: its type, and what follows the header."""

    kind: int
    body: bytes


class RouteSocket:
    """A connection to rtnetlink in the network namespace of the thread that makes it."""

    def __init__(self, groups: int = 0, receive_bytes: int = 0) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.bind((0, groups))
        self._socket.settimeout(_DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def dump(self, kind: int, body: bytes, asked: str) -> list[Message]:
        """All answers to a dump, whole: when the kernel's table changed meanwhile, it is asked again."""
        for _ in range(_MOST_DUMPS):
            self._send(kind, REQUEST | _DUMP, body)
            found, torn = self._answers(asked)
            if not torn:
                break
        return found  # a table that never stands still: what was seen last; who reads it will look again

    def request(self, kind: int, flags: int, body: bytes, asked: str) -> None:
        """Ask for something to be done; returns when it is. Raises NetlinkError."""
        self._send(kind, REQUEST | ACK | flags, body)
        self._answers(asked)

    def heard(self) -> bool:
        """Take what the kernel has told unasked; whether there was anything, or something was missed.

        Does not wait; this socket never will again. What it was is not looked at: who listens reads everything anew.
        """
        anything = False
        self._socket.setblocking(False)
        while True:
            try:
                self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return anything
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # the kernel could not keep all of it for us
                    raise
            anything = True

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _answers(self, asked: str) -> tuple[list[Message], bool]:
        found: list[Message] = []
        torn = False
        while True:
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except TimeoutError:
                raise NetlinkError(errno.ETIMEDOUT, asked) from None
            for kind, flags, sequence, body in messages(data):
                if sequence != self._sequence:
                    continue  # left over from a request that was given up
                torn = torn or bool(flags & _DUMP_INTERRUPTED)
                if kind == _DONE:
                    return found, torn
                if kind == _ERROR:
                    number = -int(struct.unpack_from("=i", body)[0])
                    if number:
                        raise NetlinkError(number, asked)
                    return found, torn
                found.append(Message(kind, body))


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence and body of each message in what was received."""
    start = 0
    while start + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
        if length < HEADER.size:
            return
        yield kind, flags, sequence, data[start + HEADER.size : start + length]
        start += aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """Type → value of each attribute; of those that come several times, the last."""
    found: dict[int, bytes] = {}
    start = 0
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = data[start + _ATTRIBUTE.size : start + length]
        start += aligned(length)
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text(value: bytes) -> str:
    """A string attribute without its terminating zero."""
    return value.rstrip(b"\0").decode(errors="replace")


def aligned(length: int) -> int:
    """The next multiple of 4."""
    return (length + 3) & ~3
