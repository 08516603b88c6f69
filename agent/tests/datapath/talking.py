"""Connections that are used without pause, and new ones without end, in threads of their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.datapath.node import Answer, Connection, Namespaces
from tests.datapath.pods import TCP, UDP


class Talk:
    """Questions without pause on a connection, each answered in order, until `end`."""

    def __init__(self, asking: Connection, answer: Answer, pool: ThreadPoolExecutor) -> None:
        self._socket, self._bytes = asking.socket, len(f"{answer.server} {answer.client}\n")
        self._socket.settimeout(30)
        self._ended, self._last, self._asked, self.answered = threading.Event(), False, 0, 0
        self._threads = [pool.submit(self._listen)]
        self._threads.append(pool.submit(self._ask))

    def end(self) -> None:
        """Returns when every question has its answer."""
        self._ended.set()
        for thread in self._threads:
            thread.result()
        assert self.answered == self._asked

    @property
    def broken(self) -> bool:
        """Whether it ended by itself."""
        return any(thread.done() for thread in self._threads)

    def _ask(self) -> None:
        while not (self._last or self._threads[0].done()):
            self._last = self._ended.is_set()  # before these are asked
            self._asked += 200
            self._socket.sendall(b"?\n" * 200)
            while self._asked - self.answered > 1000 and not self._threads[0].done():
                time.sleep(0.001)

    def _listen(self) -> None:
        received = 0
        while not (self._last and self.answered == self._asked):
            part = len(self._socket.recv(1 << 16))
            assert part, "closed too early"
            received += part
            self.answered = received // self._bytes


def until(talks: list[Talk], more: int) -> None:
    """Wait until each has so many more answers."""
    targets = [talk.answered + more for talk in talks]
    while any(talk.answered < target for talk, target in zip(talks, targets, strict=True)):
        assert not any(talk.broken for talk in talks)
        time.sleep(0.01)


class Asking:
    """New connections and datagrams of one socket, one after the other, until `end`; whatever fails is raised there."""

    def __init__(
        self, net: Namespaces, machine: str, address: str, port: int, pool: ThreadPoolExecutor
    ) -> None:
        self._net, self._way = net, (machine, address, port)
        self.answers: list[Answer] = []
        self.datagrams: list[Answer] = []
        self._ended = threading.Event()
        self._threads = [pool.submit(self._connect), pool.submit(self._send)]

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.result()

    def _connect(self) -> None:
        machine, address, port = self._way
        while not self._ended.is_set():
            self.answers.append(self._net.ask(machine, TCP, address, port))

    def _send(self) -> None:
        machine, address, port = self._way
        with self._net.connect(machine, UDP, address, port) as asking:
            while not self._ended.is_set():
                self.datagrams.append(asking.ask())


def grown(asking: list[Asking], more: int) -> None:
    """Wait until each has so many more answers of both kinds."""
    targets = [(len(each.answers) + more, len(each.datagrams) + more) for each in asking]
    deadline = time.monotonic() + 60
    for each, (answers, datagrams) in zip(asking, targets, strict=True):
        while len(each.answers) < answers or len(each.datagrams) < datagrams:
            assert time.monotonic() < deadline
            time.sleep(0.01)
