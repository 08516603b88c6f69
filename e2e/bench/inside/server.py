"""Answers the clients of the benchmark: connections that carry nothing, streams, and datagrams.

It goes into pods as it is: only the standard library, and Python 3.11.
"""

import contextlib
import socket
import struct
import sys
import threading
import time
from collections import deque

_CHUNK = bytes(256 * 1024)
_KEPT = 256


def accept_only(port: int) -> None:
    """Take connections and let go of them later, when the client has long closed: an answer would cost packets."""
    kept: deque[socket.socket] = deque(maxlen=_KEPT)
    with socket.create_server(("", port), backlog=4096) as listener:
        while True:
            with contextlib.suppress(ConnectionError):
                kept.append(listener.accept()[0])


def serve_streams(port: int) -> None:
    """One thread for each connection."""
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
