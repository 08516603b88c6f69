"""What the cluster's DNS answers, asked as a pod would: one datagram, one answer, no resolver of the node's.

The node's own resolver knows nothing of the cluster, so the question goes to the DNS Service's address, by the
way that is being traced; and to one of its backends directly when nobody answers there, which tells a broken
way from a broken server.
"""

import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handover_agent.table import Backend, ip_bytes, ip_text

_HEADER = struct.Struct("!HHHHHH")
_RECURSE = 0x0100
_RESPONSE, _CODE = 0x8000, 0x000F
_IN, _A, _AAAA, _CNAME = 1, 1, 28, 5
_POINTER = 0xC0
_CODES = {1: "malformed question", 2: "server failure", 3: "no such name", 5: "refused"}
_PATIENCE_S = 1.5
_MOST_BYTES = 4096


class BadAnswer(Exception):
    """What came is no answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said about a name."""

    server: Backend
    name: str
    addresses: tuple[bytes, ...] = ()
    alias: str = ""
    """The name that it is an alias of (CNAME), if it is one."""
    problem: str = ""
    """Why there are no addresses."""

    @property
    def answered(self) -> bool:
        """Whether the server said anything."""
        return not self.problem.startswith("no answer")


Exchange = Callable[[Backend, bytes], bytes]
"""Sends a datagram and returns the answer. Raises OSError."""


def exchange(server: Backend, question: bytes) -> bytes:
    """Over UDP from this node. Raises OSError."""
    host = ip_text(server.address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(_PATIENCE_S)
        datagrams.connect((host, server.port))
        datagrams.send(question)
        return datagrams.recv(_MOST_BYTES)


def candidates(name: str, namespace: str, domain: str) -> list[str]:
    """The names that a pod's resolver tries in turn (search list, ndots:5)."""
    if name.endswith("."):
        return [name.rstrip(".")]
    searched = [f"{name}.{suffix}" for suffix in (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)]
    return [name, *searched] if name.count(".") >= 5 else [*searched, name]


def resolve(server: Backend, names: Sequence[str], ask: Exchange = exchange) -> Answer:
    """The first of the names that has addresses; else what was said of the first, which is most often meant."""
    first: Answer | None = None
    for name in names:
        answer = lookup(server, name, ask)
        if answer.addresses or not answer.answered:
            return answer
        first = first or answer
    return first or Answer(server, "", problem="no answer: no name was asked for")


def lookup(server: Backend, name: str, ask: Exchange = exchange) -> Answer:
    """IPv4 and IPv6 addresses of one name."""
    found: list[bytes] = []
    alias = problem = ""
    for kind in (_A, _AAAA):
        number = secrets.randbelow(1 << 16)
        try:
            code, addresses, via = parse(ask(server, question(number, name, kind)), number)
        except OSError as error:
            return Answer(server, name, problem=f"no answer from {server}: {error}")
        except BadAnswer as error:
            return Answer(server, name, problem=f"{server} answers what cannot be read: {error}")
        found += addresses
        alias = alias or via
        if code:
            problem = _CODES.get(code, f"code {code}")
    return Answer(server, name, tuple(found), alias, "" if found else problem or "no addresses")


def question(number: int, name: str, kind: int) -> bytes:
    """A query as it is on the wire."""
    labels = b"".join(bytes((len(part),)) + part.encode("ascii") for part in name.split("."))
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, _IN)


def parse(raw: bytes, number: int) -> tuple[int, list[bytes], str]:
    """Code, addresses and last alias of an answer. Raises BadAnswer."""
    try:
        got, flags, questions, answers, _, _ = _HEADER.unpack_from(raw)
        if got != number or not flags & _RESPONSE:
            raise BadAnswer("it belongs to another question")
        at = _HEADER.size
        for _ in range(questions):
            at = _skip_name(raw, at) + 4
        found: list[bytes] = []
        alias = ""
        for _ in range(answers):
            at = _skip_name(raw, at)
            kind, _, _, length = struct.unpack_from("!HHIH", raw, at)
            at += 10
            data = raw[at : at + length]
            if len(data) < length:
                raise BadAnswer("cut off within a record")
            if kind in (_A, _AAAA) and len(data) == (4 if kind == _A else 16):
                family = socket.AF_INET if kind == _A else socket.AF_INET6
                found.append(ip_bytes(socket.inet_ntop(family, data)))
            elif kind == _CNAME:
                alias = _read_name(raw, at)
            at += length
    except (struct.error, IndexError) as error:
        raise BadAnswer(f"cut off: {error}") from error
    return flags & _CODE, found, alias


def _skip_name(raw: bytes, at: int) -> int:
    while raw[at]:
        if raw[at] & _POINTER == _POINTER:
            return at + 2
        at += raw[at] + 1
    return at + 1


def _read_name(raw: bytes, at: int) -> str:
    parts: list[str] = []
    for _ in range(128):  # a name has fewer labels; a pointer that leads round ends here
        length = raw[at]
        if not length:
            return ".".join(parts)
        if length & _POINTER == _POINTER:
            at = int.from_bytes(raw[at : at + 2], "big") & 0x3FFF
            continue
        parts.append(raw[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += length + 1
    raise BadAnswer("a name without an end")
