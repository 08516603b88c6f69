"""Waits until packets have been handled, where nobody answers who could tell.

What goes through a veth or the loopback device waits in a queue of the CPU that sent it. Mostly it is handled before
send(2) returns; on a busy machine it is handled later, by another process. All these devices share the queue, in
whatever network namespaces they are, and what came first leaves first. So when a datagram to ourselves arrives, all
that this CPU had in its queue before has been handled.
"""

import os
import socket
from collections.abc import Callable

from tests.node.netns import Namespace

_HOPS = 16
"""How often a packet, and what it brings about, is put into a queue again: one pod finds its gateway, that finds
another pod or node, whose answer comes back, each with a question and an answer of neighbour discovery before.
"""
_DEADLINE_S = 20


class Settling:
    """Returns, when called, as soon as all that was sent before has come to its end.

    What a process has yet to answer, or a timer to send again, is not waited for: there, wait for the answer.
    """

    def __init__(self) -> None:
        self.carriers: list[Callable[[], None]] = []
        """What has packets in its hands besides the kernel; each returns when it has handed them on."""
        namespace = Namespace()  # nobody filters on its loopback device
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self._socket.connect(self._socket.getsockname())
        namespace.close()
        self._socket.settimeout(_DEADLINE_S)

    def close(self) -> None:
        self._socket.close()

    def __call__(self) -> None:
        for _ in range(_HOPS):
            for carried in self.carriers:
                carried()
            self._empty_queues()

    def _empty_queues(self) -> None:
        """Of every CPU that senders could have been on: they may use those that we may use."""
        cpus = os.sched_getaffinity(0)
        try:
            for cpu in cpus:
                os.sched_setaffinity(0, {cpu})
                self._socket.send(b"?")
                self._socket.recv(1)
        finally:
            os.sched_setaffinity(0, cpus)
