"""Answers the clients of the benchmark: connections that carry nothing, streams, and datagrams.

Where a thread runs decides more than what is measured (another core has to be woken), so each has its core: datagrams
the client's, where the two take turns, streams another one. It goes into pods as it is: only the standard library,
and Python 3.11.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
import time

_CHUNK = bytes(256 * 1024)
_BACKLOG, _NOW_AND_THEN_S = 4096, 0.01


def accept_only(port: int) -> None:
    """Take connections now and then, so that nobody is woken by one, when their clients have long closed them."""
    with socket.create_server(("", port), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        while True:
            time.sleep(_NOW_AND_THEN_S)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()


def on_core(core: int) -> None:
    """Keep the calling thread on one core."""
    os.sched_setaffinity(0, {core})


def serve_streams(port: int) -> None:
    """One thread for each connection."""
    on_core(min(os.sched_getaffinity(0)))
    with socket.create_server(("", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_stream, args=(connection,), daemon=True).start()


def serve_stream(connection: socket.socket) -> None:
    """Take in what is put and tell how much it was, or give for as long as was asked."""
    with connection, contextlib.suppress(ConnectionError):
        header = connection.recv(9, socket.MSG_WAITALL)
        if len(header) < 9:
            return
        direction, seconds = struct.unpack("=cd", header)
        if direction == b"g":
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                connection.sendall(_CHUNK)
            return
        total, buffer = 0, bytearray(len(_CHUNK))
        while received := connection.recv_into(buffer):
            total += received
        connection.sendall(struct.pack("=Q", total))


def echo(port: int) -> None:
    """Datagrams go back to where they come from."""
    on_core(max(os.sched_getaffinity(0)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", port))
        while True:
            with contextlib.suppress(ConnectionError):
                data, sender = listener.recvfrom(2048)
                listener.sendto(data, sender)


def main(accepting: int, streams: int, datagrams: int) -> None:
    """All three, until killed."""
    threading.Thread(target=serve_streams, args=(streams,), daemon=True).start()
    threading.Thread(target=echo, args=(datagrams,), daemon=True).start()
    accept_only(accepting)


if __name__ == "__main__":
    main(*(int(port) for port in sys.argv[1:4]))
