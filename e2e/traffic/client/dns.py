"""Look-ups by name, as datagrams: questions for A and AAAA in turn, and what a right answer to them is.

The resolver of the C library would hide what is to be seen here: it tries again by itself.
"""

import ipaddress
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from .udp import Exchange

A, AAAA = 1, 28
_RESPONSE, _RECURSION_DESIRED, _CODE = 0x8000, 0x0100, 0x000F


class MalformedAnswerError(ValueError):
    """A datagram is no DNS answer that this client can read."""


class NoAnswerError(Exception):
    """A name could not be looked up in time: says why."""


def question(serial: int, name: str, record: int) -> bytes:
    """A DNS question for a name (absolute, with or without the last dot)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split("."))
    header = struct.pack("!6H", serial & 0xFFFF, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!2H", record, 1)


def serial_of(datagram: bytes) -> int | None:
    """The serial number that an answer carries; None when it is no answer."""
    if len(datagram) < 12 or not int.from_bytes(datagram[2:4]) & _RESPONSE:
        return None
    return int.from_bytes(datagram[:2])


def addresses(datagram: bytes) -> frozenset[str]:
    """The addresses in an answer. Raises MalformedAnswerError, also for an error that the server returned."""
    try:
        _, flags, questions, answers, _, _ = struct.unpack("!6H", datagram[:12])
        if flags & _CODE:
            raise MalformedAnswerError(f"the server answered with code {flags & _CODE}")
        at = 12
        for _ in range(questions):
            at = _skip_name(datagram, at) + 4
        found: set[str] = set()
        for _ in range(answers):
            at = _skip_name(datagram, at)
            record, _, _, length = struct.unpack("!2HIH", datagram[at : at + 10])
            at += 10
            if record in (A, AAAA):
                found.add(str(ipaddress.ip_address(datagram[at : at + length])))
            at += length
    except (struct.error, IndexError) as error:
        raise MalformedAnswerError(f"cut short: {datagram[:40]!r}") from error
    return frozenset(found)


def _skip_name(datagram: bytes, at: int) -> int:
    while datagram[at]:
        if datagram[at] >= 0xC0:  # a pointer to an earlier name ends it
            return at + 2
        at += 1 + datagram[at]
    return at + 1


def lookups(name: str, expected: frozenset[str]) -> Exchange:
    """Look-ups of a Service's name, whose right answer is its addresses of the family that was asked for."""
    by_record = {
        A: frozenset(address for address in expected if ":" not in address),
        AAAA: frozenset(address for address in expected if ":" in address),
    }
    records = [record for record, wanted in by_record.items() if wanted]

    def record_of(serial: int) -> int:
        return records[serial % len(records)]

    def right(serial: int, datagram: bytes) -> str:
        try:
            found = addresses(datagram)
        except MalformedAnswerError as error:
            return str(error)
        return "" if found == by_record[record_of(serial)] else f"{name} is {sorted(found)}"

    return Exchange("dns", lambda serial: question(serial, name, record_of(serial)), serial_of, right)


def servers() -> Iterable[str]:
    """The DNS servers that this container was given."""
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "nameserver":
            yield words[1]


def look_up(server: str, port: int, name: str, within_s: float) -> frozenset[str]:
    """The IPv4 and IPv6 addresses of a name, asked for until there are some. Raises NoAnswerError."""
    deadline = time.monotonic() + within_s
    serial, trouble = 0, "no records"
    while time.monotonic() < deadline:
        found: set[str] = set()
        try:
            for record in (A, AAAA):
                serial += 1
                with socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
                    sock.settimeout(1.0)
                    sock.connect((server, port))
                    sock.send(question(serial, name, record))
                    found |= addresses(sock.recv(4096))
            if found:
                return frozenset(found)
        except (OSError, MalformedAnswerError) as error:
            trouble = str(error)
        time.sleep(0.5)
    raise NoAnswerError(f"{server}:{port} gave no address for {name} in {within_s:.0f} s: {trouble}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
