"""One probe: a TCP connection, or a DNS question over UDP, timed; never longer than its time-out."""

import asyncio
import os
import socket
import struct
import time
from dataclasses import dataclass

from handover_agent.probe.targets import Target
from handover_agent.table import Protocol

QUESTION = "kubernetes.default.svc.cluster.local"
_HEADER = struct.Struct("!HHHHHH")
_RECURSION_DESIRED, _TYPE_A, _CLASS_IN = 0x0100, 1, 1


class ProbeFailed(Exception):
    """The probe did not succeed: in words, why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one probe found; `error` is empty when it succeeded."""

    target: Target
    microseconds: int
    error: str = ""


async def attempt(target: Target, timeout_s: float) -> Outcome:
    """Probe once; failures are outcomes, not exceptions."""
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    kind = socket.SOCK_STREAM if target.protocol is Protocol.TCP else socket.SOCK_DGRAM
    started = time.perf_counter()
    error = ""
    try:
        with socket.socket(family, kind) as sock:
            sock.setblocking(False)
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (target.host, target.port))
                if target.protocol is Protocol.UDP:
                    await _ask(loop, sock, timeout_s / 2)
    except TimeoutError:
        error = f"no answer within {timeout_s:g} s"
    except OSError as problem:
        error = os.strerror(problem.errno) if problem.errno else str(problem)
    except ProbeFailed as problem:
        error = str(problem)
    return Outcome(target, round((time.perf_counter() - started) * 1_000_000), error)


def question(identity: int, name: str = QUESTION) -> bytes:
    """A DNS query for an A record."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    header = _HEADER.pack(identity, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!HH", _TYPE_A, _CLASS_IN)


def check_answer(data: bytes, identity: int) -> None:
    """Whatever a DNS server answers (no such name included) shows that it was reached. Raises ProbeFailed."""
    if len(data) < _HEADER.size:
        raise ProbeFailed(f"answer of {len(data)} bytes is no DNS message")
    found, flags = _HEADER.unpack_from(data)[:2]
    if found != identity or not flags & 0x8000:
        raise ProbeFailed("the answer is to another question")


async def _ask(loop: asyncio.AbstractEventLoop, sock: socket.socket, patience_s: float) -> None:
    """Ask, and once more after a while, as resolvers do: one lost datagram says nothing about the datapath."""
    identity = int.from_bytes(os.urandom(2), "big")
    await loop.sock_sendall(sock, question(identity))
    try:
        async with asyncio.timeout(patience_s):
            answer = await loop.sock_recv(sock, 4096)
    except TimeoutError:
        await loop.sock_sendall(sock, question(identity))
        answer = await loop.sock_recv(sock, 4096)
    check_answer(answer, identity)
