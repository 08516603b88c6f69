"""Connects sockets as it is told, in a cgroup of the test's: a list as JSON per line, in and out.

A SYN's number is the kernel's to choose, and its port may be changed on the way: it is known by the largest segment
that it says its sender takes, `SEGMENT` and as many more as its port is beyond a multiple of `SEGMENTS`.

Started by path, with nothing but the standard library: a stand-in for any process of the node. For each order
(protocol, address, port, own port, number) it answers with the errno of connect(2); a datagram carries the number.
Sockets stay open until the next list.
"""

import errno
import json
import socket
import sys

SEGMENT, SEGMENTS = 500, 512
opened: list[socket.socket] = []


def connect(protocol: str, address: str, port: int, own_port: int, number: int) -> int:
    """The errno; 0: connected, or about to be."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.setblocking(False)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT + own_port % SEGMENTS)
    opened.append(made)
    made.bind(("::" if ":" in address else "0.0.0.0", own_port))
    code = made.connect_ex((address, port))
    if code not in (0, errno.EINPROGRESS):
        return code
    if kind == socket.SOCK_DGRAM:
        made.send(number.to_bytes(4, "big"))
    return 0


if __name__ == "__main__":
    for line in sys.stdin:
        orders = json.loads(line)
        for old in opened:
            old.close()
        opened.clear()
        print(json.dumps([connect(*order) for order in orders]), flush=True)
