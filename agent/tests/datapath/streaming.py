"""Runs inside a namespace: datagrams without pause on many sockets, each numbered, or a server that answers them.

    streaming.py serve ADDRESS PORT                # answers with whom it sees, who it is, and what it was sent
    streaming.py ask ADDRESS PORT SOCKETS PAUSE_S  # until told to end; then says what became of each datagram

Started by path, with nothing but the standard library. One line in: enough; one line out: a JSON object.
"""

import json
import select
import socket
import sys
import time
from typing import Any

_BUFFER_BYTES = 1 << 24
_OPEN, _LATE_S = 3, 0.5
"""Questions without an answer on one socket, unless none came for so long."""
_LAST_S = 3.0
"""An answer that has not come this long after the last question is lost."""


def text(end: tuple[Any, ...]) -> str:
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(address: str) -> socket.socket:
    made = socket.socket(family_of(address), socket.SOCK_DGRAM)
    for option in (33, 32):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE
        made.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return made


def serve(address: str, port: int) -> None:
    server = opened(address)
    server.bind((address, port))
    print("ready", flush=True)
    me = text((address, port))
    while True:
        said, client = server.recvfrom(100)
        server.sendto(f"{text(client)} {me} ".encode() + said, client)


def ask(address: str, port: int, count: int, pause_s: float) -> dict[str, Any]:
    """Sent and received datagrams by number, and every pair of ends that the server saw, in their order."""
    sockets = [opened(address) for _ in range(count)]
    poll = select.epoll()
    streams: dict[int, dict[str, Any]] = {}
    for each in sockets:
        each.connect((address, port))
        each.setblocking(False)
        poll.register(each, select.EPOLLIN)
        streams[each.fileno()] = {
            "port": each.getsockname()[1],
            "sent": 0,
            "got": [],
            "ends": [],
            "errors": 0,
        }
    poll.register(sys.stdin, select.EPOLLIN)
    print("ready", flush=True)
    ended = 0.0

    def listen(timeout_s: float) -> None:
        nonlocal ended
        for fd, _ in poll.poll(timeout_s):
            if fd == sys.stdin.fileno():
                poll.unregister(fd)
                ended = time.monotonic()
                continue
            stream, each = streams[fd], by_fd[fd]
            try:
                while True:
                    client, server, number = each.recv(100).decode().split()
                    stream["got"].append(int(number))
                    if not stream["ends"] or stream["ends"][-1] != [client, server]:
                        stream["ends"].append([client, server])
            except BlockingIOError:
                pass
            except ConnectionRefusedError:
                stream["errors"] += 1

    asked = dict.fromkeys(streams, 0.0)
    by_fd = {each.fileno(): each for each in sockets}
    while not ended:
        for fd, each in by_fd.items():
            if (
                streams[fd]["sent"] - len(streams[fd]["got"]) >= _OPEN
                and time.monotonic() - asked[fd] < _LATE_S
            ):
                continue
            try:
                asked[fd] = time.monotonic()
                each.send(str(streams[fd]["sent"]).encode())
                streams[fd]["sent"] += 1
            except ConnectionRefusedError:
                streams[fd]["errors"] += 1
            listen(0)
        listen(pause_s)
    while time.monotonic() - ended < _LAST_S and any(s["sent"] > len(s["got"]) for s in streams.values()):
        listen(0.05)
    return {"streams": list(streams.values())}


mode, at, number, *more = sys.argv[1:]
if mode == "serve":
    serve(at, int(number))
print(json.dumps(ask(at, int(number), int(more[0]), float(more[1]))), flush=True)
