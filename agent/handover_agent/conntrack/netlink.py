"""The edge to the kernel's conntrack table: list flows, delete one.

Raw netlink, because the tool conntrack(8) would have to be started once for each deletion and a node may
have a million entries: the kernel is asked to filter, and only what passes is decoded. Older kernels ignore
the filter, so callers check again.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator

from handover_agent.conntrack.entries import (
    CTA_FILTER,
    CTA_PROTO_NUM,
    CTA_STATUS,
    CTA_STATUS_MASK,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    FAMILY,
    IPS_DST_NAT,
    MESSAGE,
    Destination,
    Flow,
    Tuple,
    attribute,
    destination_of,
    parse,
    peek,
)
from handover_agent.conntrack.moving import Moving, replacement, request

_NETLINK_NETFILTER = 12
_CTNETLINK = 1 << 8
_NEW, _GET, _DELETE = 0, 1, 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_EXCLUSIVE, _CREATE = 0x200, 0x400
_ERROR, _DONE = 2, 3
_CTA_FILTER_ORIG_FLAGS = 1
_FLAG_PROTO_NUM = 1 << 3
_BUFFER_BYTES = 1 << 20
_DEADLINE_S = 60
_MOST_TRIES = 5
FAMILIES = (socket.AF_INET, socket.AF_INET6)


class ConntrackError(Exception):
    """The kernel refused a request about conntrack's table; says which, and what to do."""

    def __init__(self, request: str, code: int) -> None:
        reason = os.strerror(code)
        hint = "; the agent needs CAP_NET_ADMIN" if code == errno.EPERM else ""
        super().__init__(f"conntrack: cannot {request}: {reason}{hint}")
        self.code = code


def translated_flows(to: Collection[Destination]) -> Iterator[Flow]:
    """Flows to these destinations that were rewritten to others. Raises ConntrackError."""
    status = struct.pack(">I", IPS_DST_NAT)
    wanted = attribute(CTA_STATUS, status) + attribute(CTA_STATUS_MASK, status)
    for family in FAMILIES:
        for flow in _dump(family, wanted, to):
            if flow.translated:
                yield flow


def udp_flows(to: Collection[Destination], family: int) -> Iterator[Flow]:
    """UDP flows of a family to these destinations, rewritten or not. Raises ConntrackError."""
    protocol = attribute(CTA_PROTO_NUM, bytes((socket.IPPROTO_UDP,)))
    wanted = attribute(CTA_TUPLE_ORIG, attribute(CTA_TUPLE_PROTO, protocol, nested=True), nested=True)
    flags = attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _FLAG_PROTO_NUM))
    wanted += attribute(CTA_FILTER, flags, nested=True)
    for flow in _dump(family, wanted, to) if to else ():
        if flow.original.protocol == socket.IPPROTO_UDP:
            yield flow


class Deleter:
    """Deletes flows, each exactly: an entry that took its place in the meantime is not touched."""

    def __enter__(self) -> "Deleter":
        self._socket = _open()
        self._number = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def delete(self, flow: Flow) -> bool:
        """Delete a flow; False if it was gone already. Raises ConntrackError."""
        self._number += 1
        head = _header(_DELETE, _REQUEST | _ACK, self._number, len(flow.identity))
        self._socket.send(head + FAMILY.pack(flow.family, 0, 0) + flow.identity)
        answer = self._socket.recv(_BUFFER_BYTES)
        code = -struct.unpack_from("=i", answer, MESSAGE.size)[0]
        if code not in {0, errno.ENOENT}:
            raise ConntrackError("delete an entry", code)
        return bool(code == 0)


class Mover:
    """Replaces entries of connections that conntrack did not translate by entries with which it does."""

    def __enter__(self) -> "Mover":
        self._socket = _open()
        self._number = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def move(self, moving: Moving) -> bool:
        """Delete the old entry and create the new one in one system call; False if there is no old one.

        What started anew in between is in the way, and is replaced in turn. Raises ConntrackError.
        """
        tries = 0
        while True:
            found = self.find(moving.seen)
            if found is None:
                return False
            self.send(self.prepare(moving, found))
            error = self.outcome()
            if error is None:
                return True
            tries += 1
            if error.code != errno.EEXIST or tries == _MOST_TRIES:
                raise error

    def prepare(self, moving: Moving, found: bytes) -> bytes:
        """What to `send`, to have the new entry in the place of the one that was found."""
        old, created = replacement(found, moving)
        delete = self._message(_DELETE, 0, FAMILY.pack(old.family, 0, 0) + old.identity)
        return delete + self._message(_NEW, _CREATE | _EXCLUSIVE, created)

    def send(self, prepared: bytes) -> None:
        """Replace entries, several if they are prepared one behind the other; when this returns, it was tried."""
        self._socket.send(prepared)

    def outcome(self) -> ConntrackError | None:
        """What was wrong with the next of those that were sent; EEXIST: with another try it may succeed."""
        deleted, created = self._code(), self._code()
        if deleted not in {0, errno.ENOENT}:
            return ConntrackError("delete an entry without translation", deleted)
        return ConntrackError("create an entry with translation", created) if created else None

    def find(self, about: Tuple) -> bytes | None:
        """Conntrack's message about a connection, by either of its directions. Raises ConntrackError."""
        self._socket.send(self._message(_GET, 0, request(about)))
        payload = None
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            length, kind, *_ = MESSAGE.unpack_from(data)
            if kind == _ERROR:
                code = -int(struct.unpack_from("=i", data, MESSAGE.size)[0])
                if code not in {0, errno.ENOENT}:
                    raise ConntrackError("look up an entry", code)
                return payload
            payload = data[MESSAGE.size : length]

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._number += 1
        head = _header(kind, _REQUEST | _ACK | flags, self._number, len(body) - FAMILY.size)
        return head + body

    def _code(self) -> int:
        answer = self._socket.recv(_BUFFER_BYTES)
        return -int(struct.unpack_from("=i", answer, MESSAGE.size)[0])


def _dump(family: int, wanted: bytes, to: Collection[Destination]) -> Iterator[Flow]:
    """Entries of one family to some destinations. While the table changes, one may come twice, or not at all."""
    with _open() as netlink:
        netlink.send(_header(_GET, _REQUEST | _DUMP, 1, len(wanted)) + FAMILY.pack(family, 0, 0) + wanted)
        while True:
            data = netlink.recv(_BUFFER_BYTES)
            start = 0
            while start < len(data):
                length, kind, _flags, _, _ = MESSAGE.unpack_from(data, start)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise ConntrackError(
                        "list entries", -struct.unpack_from("=i", data, start + MESSAGE.size)[0]
                    )
                quick = peek(data, start + MESSAGE.size)
                if quick is None or quick in to:
                    flow = parse(data[start + MESSAGE.size : start + length])
                    if flow is not None and destination_of(flow) in to:
                        yield flow
                start += (length + 3) & ~3


def _open() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    netlink.settimeout(_DEADLINE_S)
    netlink.bind((0, 0))
    return netlink


def _header(kind: int, flags: int, number: int, body: int) -> bytes:
    return MESSAGE.pack(MESSAGE.size + FAMILY.size + body, _CTNETLINK | kind, flags, number, 0)
