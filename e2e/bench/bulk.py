"""Thousands of writes through the API, over connections that stay open; and as many per second as asked.

A Service costs the API server some milliseconds of work; a connection and a handshake for each would double that.
"""

import contextlib
import http.client
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.kube import KubeError
from e2e.lab.control import ETCD_AT
from e2e.netns import Inside

_JSON = "application/json"
_NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PORT = 6443
_TIMEOUT_S = 60.0
_TRIES = 5
_AGAIN = (0, 429, 500, 503, 504)  # 0: no answer
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Write:
    """One call."""

    method: str
    path: str
    body: Any


Connect = Callable[[], http.client.HTTPConnection]


def api_server(address: str, pki: Path) -> Connect:
    """How the API server is reached, as an administrator."""
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    return lambda: http.client.HTTPSConnection(address, _PORT, timeout=_TIMEOUT_S, context=tls)


def etcd() -> http.client.HTTPConnection:
    """How etcd's JSON gateway is reached, from the control plane's namespace."""
    return http.client.HTTPConnection(ETCD_AT, timeout=_TIMEOUT_S)


class Bulk:
    """Writes of some threads of a namespace that reaches who takes them."""

    def __init__(self, inside: Inside, connect: Connect, threads: int = 6) -> None:
        self._inside, self._connect, self._threads = inside, connect, threads

    def names(self, path: str) -> set[str]:
        """The names of all objects of a list. Raises KubeError."""
        with self.kept() as kept:
            found = self._inside.call(kept.call, "GET", path, accept=_NAMES)
        return {item["metadata"]["name"] for item in found["items"] or ()}

    @contextmanager
    def kept(self) -> Iterator["Kept"]:
        """A connection of one's own, open inside. It may be used from any thread, by one at a time. Raises KubeError."""
        kept = Kept(self._connect())
        try:
            self._inside.call(kept.connect)
            yield kept
        finally:
            kept.close()

    def write(self, writes: Iterable[Write], done: Callable[[int], None] = lambda _: None) -> None:
        """Carry out all of them, in about this order; `done` hears how many. Raises KubeError of the first failure."""
        self._run(((0.0, write) for write in writes), done)

    def paced(self, writes: Iterable[Write], per_s: float, seconds: float) -> float:
        """Begin so many per second for a while; returns how many per second it really was. Raises KubeError."""
        began, count = time.monotonic() + 0.05, int(per_s * seconds)
        due = (began + number / per_s for number in range(count))
        self._run(zip(due, writes, strict=False), lambda _: None)
        return count / (time.monotonic() - began)

    def _run(self, writes: Iterable[tuple[float, Write]], done: Callable[[int], None]) -> None:
        left, lock, counter = iter(writes), threading.Lock(), itertools.count(1)
        failed = threading.Event()

        def work() -> None:
            kept = Kept(self._connect())
            try:
                while not failed.is_set():
                    with lock:
                        due, write = next(left, (0.0, None))
                    if write is None:
                        return
                    time.sleep(max(0.0, due - time.monotonic()))
                    kept.carry_out(write)
                    done(next(counter))
            except BaseException:
                failed.set()
                raise
            finally:
                kept.close()

        started = [self._inside.start(work) for _ in range(self._threads)]
        try:
            for future in started:
                future.result()
        finally:
            failed.set()


class Kept:
    """One connection, made again when it breaks by whoever uses it then."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def connect(self) -> None:
        """Connect now. Raises KubeError."""
        try:
            self._connection.connect()
        except OSError as error:
            raise KubeError("connecting", 0, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Let go; an answer that is still being read ends."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def carry_out(self, write: Write) -> None:
        """Try some times; after a try whose answer was lost, "exists already" is success."""
        for tries in range(_TRIES):
            try:
                self.call(write.method, write.path, write.body)
                return
            except KubeError as error:
                if error.status == _CONFLICT and tries:
                    return
                if error.status not in _AGAIN or tries == _TRIES - 1:
                    raise
            time.sleep(0.5 * 2**tries)

    def call(self, method: str, path: str, body: object = None, accept: str = _JSON) -> Any:
        """One request and its whole answer, parsed. Raises KubeError."""
        response = self.open(method, path, body, accept)
        try:
            return json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise KubeError(f"{method} {path}", 0, f"{type(error).__name__}: {error}") from error

    def open(
        self, method: str, path: str, body: object = None, accept: str = _JSON
    ) -> http.client.HTTPResponse:
        """One request and the answer's beginning; the rest is the caller's to read. Raises KubeError."""
        payload = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, payload, {"Content-Type": _JSON, "Accept": accept})
            response = self._connection.getresponse()
            if response.status < 300:
                return response
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise KubeError(f"{method} {path}", 0, f"{type(error).__name__}: {error}") from error
        raise KubeError(f"{method} {path}", response.status, data.decode(errors="replace")[:500])
