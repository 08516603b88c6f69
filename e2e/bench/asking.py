"""The other end of `inside/client.py`: asks one client, from this machine, past every Service."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from e2e.netns import Inside
from e2e.trial import until

Address = tuple[str, int]

_ANSWER_S = 300.0
"""kube-proxy's first transaction for 10,000 Services holds a core in the kernel for a minute, which may be the client's."""


class BenchError(Exception):
    """Something could not be measured: says what was asked of whom, and what came instead."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client that runs, by the address of its control port."""

    name: str
    host: str
    port: int
    fabric: Inside

    def wait(self) -> None:
        """Return when it answers. Raises TrialError."""
        until(f"{self.name} can be asked", self._reached, 60)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """One question and its last answer. Raises BenchError."""
        with self.asked(do, **fields) as answers:
            *_, last = answers
            return last

    @contextmanager
    def asked(self, do: str, **fields: Any) -> Iterator[Iterator[dict[str, Any]]]:
        """Inside, the question has been asked; the iterator gives answers as they come. Raises BenchError."""
        question = f"{self.name}: {do} {fields}"[:300]
        try:
            with self._connected() as connection:
                connection.settimeout(_ANSWER_S)
                connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
                connection.shutdown(socket.SHUT_WR)  # no further question: the answers end by themselves
                yield _checked(connection, question)
        except OSError as error:
            raise BenchError(f"{question}: {type(error).__name__}: {error}") from error

    def serves(self, target: Address) -> bool:
        """Whether the target answers this client at all."""
        try:
            self.ask("until", targets=[target], wanted=True, limit_s=1.5, pause_s=0.01)
        except BenchError:
            return False
        return True

    def _connected(self) -> socket.socket:
        return self.fabric.call(socket.create_connection, (self.host, self.port), 5)

    def _reached(self) -> bool:
        try:
            self._connected().close()
        except OSError:
            return False
        return True


def _checked(connection: socket.socket, question: str) -> Iterator[dict[str, Any]]:
    for line in connection.makefile("rb"):
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{question}: {answer['error']}")
        if "end" in answer:
            return
        yield answer
    raise BenchError(f"{question}: it ended without an answer")
