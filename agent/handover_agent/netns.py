"""The network namespace that the agent is in, which is the node's own."""

import socket
import sys

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h


def own_cookie() -> int | None:
    """Its number, as programs know it; None where the kernel does not tell (before Linux 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return None
    return int.from_bytes(raw, sys.byteorder)
