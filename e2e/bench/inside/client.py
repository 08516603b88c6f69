"""Measures what it is told, where it runs: in a pod, beside a pod in its network, or outside of the cluster.

It is asked over a TCP port, one JSON line for each question, so that the next turn of an interleaved run costs
nothing but a line. It goes into pods as it is: only the standard library, and Python 3.11.
"""

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Address = tuple[str, int]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, so that no port is left waiting
_LIMIT = struct.pack("ll", 5, 0)  # SO_SNDTIMEO, SO_RCVTIMEO: what hangs is an error, and costs no poll()
_CHUNK = bytes(256 * 1024)
_ATTEMPT_MS = 5
_FAILED_AT_MOST = 0.01


def connect_us(address: Address) -> float:
    """How long one connect() takes, in µs. Raises OSError when it fails."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _LIMIT)
        began = time.perf_counter_ns()
        stream.connect(address)
        return (time.perf_counter_ns() - began) / 1000


def connect(targets: list[Address], count: int) -> dict[str, float]:
    """Connects to the targets in turn; the first tenth only makes neighbours, routes and caches warm.

    A few may fail (`failed`): "network is unreachable" was seen once in a long run, for a moment, at a node of
    kube-proxy's. More raise OSError.
    """
    taken, failed, warming = [], 0, count // 10
    for index in range(warming + count):
        try:
            taken.append(connect_us(targets[index % len(targets)]))
        except OSError:
            failed += 1
            if failed > count * _FAILED_AT_MOST:
                raise
    measured = sorted(taken[warming:])
    return {
        "p50": measured[len(measured) // 2],
        "p99": measured[len(measured) * 99 // 100],
        "failed": failed,
    }


def rate(targets: list[Address], seconds: float) -> dict[str, float]:
    """Connections per second, opened and closed one after the other."""
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        connect_us(targets[count % len(targets)])
        count += 1
    return {"per_s": count / (time.monotonic() - began)}


def stream(target: Address, seconds: float, direction: str) -> dict[str, float]:
    """Bytes per second of one established connection, `put` to the server or `get` from it."""
    with socket.create_connection(target, 5) as connection:
        connection.settimeout(30)
        connection.sendall(struct.pack("=cd", direction[:1].encode(), seconds))
        began = time.monotonic()
        if direction == "get":
            total, buffer = 0, bytearray(len(_CHUNK))
            while received := connection.recv_into(buffer):
                total += received
        else:
            while time.monotonic() - began < seconds:
                connection.sendall(_CHUNK)
            connection.shutdown(socket.SHUT_WR)
            (total,) = struct.unpack("=Q", connection.recv(8, socket.MSG_WAITALL))
        return {"bytes_per_s": total / (time.monotonic() - began)}


def udp(target: Address, seconds: float, connected: bool) -> dict[str, float]:
    """Requests and replies per second, one after the other. Raises OSError when an answer is lost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LIMIT)
        count, began = 0, time.monotonic()
        if connected:
            sender.connect(target)
            while time.monotonic() - began < seconds:
                sender.send(b"x")
                sender.recv(16)
                count += 1
        else:
            while time.monotonic() - began < seconds:
                sender.sendto(b"x", target)
                sender.recvfrom(16)
                count += 1
        return {"per_s": count / (time.monotonic() - began)}


def served(target: Address) -> bool:
    """Whether a connection is answered now, within a few milliseconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        attempt.setblocking(False)
        code = attempt.connect_ex(target)
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(attempt, select.POLLOUT)
            if not poll.poll(_ATTEMPT_MS):
                return False
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code == 0


def until(targets: list[Address], wanted: bool, limit_s: float, pause_s: float) -> Iterator[dict[str, Any]]:
    """Says at once that it looks, then when all of the targets were as wanted, by the machine's clock.

    Meanwhile it says every second that it goes on, and ends when nobody listens any more.
    """
    began = told = at = time.monotonic()
    looked = False
    for target in targets:
        while (found := served(target)) is not wanted or not looked:
            if not looked or time.monotonic() - told > 1:
                told, looked = time.monotonic(), True
                yield {"looking": not found}
            if time.monotonic() - began > limit_s:
                raise TimeoutError(errno.ETIMEDOUT, f"{target} within {limit_s:.0f} s")
            time.sleep(pause_s)
        at = time.monotonic()
    yield {"at": at}


QUESTIONS: dict[str, Callable[..., Any]] = {
    "connect": connect,
    "rate": rate,
    "stream": stream,
    "udp": udp,
    "until": until,
}


def _tuples(value: Any) -> Any:
    """JSON has no tuples, and addresses are."""
    if not isinstance(value, list):
        return value
    return [tuple(item) if isinstance(item, list) else item for item in value]


def answer(line: bytes) -> Iterator[dict[str, Any]]:
    """The answers to one question; an error is one too."""
    question = json.loads(line)
    fields = {name: _tuples(value) for name, value in question.items() if name != "do"}
    if "target" in fields:
        fields["target"] = tuple(question["target"])
    try:
        found = QUESTIONS[question["do"]](**fields)
        yield from [found] if isinstance(found, dict) else found
        yield {"end": True}
    except OSError as error:
        yield {"error": f"{type(error).__name__}: {error}"}


def main(port: int) -> None:
    """Answers one asker after the other, for ever; on one core, so that no round depends on where it was put."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with socket.create_server(("", port)) as listener:
        while True:
            asker, _ = listener.accept()
            asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with asker, contextlib.suppress(ConnectionError):
                for line in asker.makefile("rb"):
                    for found in answer(line):
                        asker.sendall(json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
