"""Tells every client which phase it is, asks every client what it saw, and makes one report of it, live.

Clients are asked by their own addresses from the fabric, past every Service. A client that restarts has
forgotten what it saw, and one that does not answer may be losing everything: both are losses of their own
kind.
"""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from e2e.netns import Inside
from e2e.traffic.client.ledger import FIRST_PHASE
from e2e.traffic.report import Failure, Report, Stream, merge

_ANSWER_WITHIN_S = 5.0
_GONE_AFTER_S = 15.0
_SETTLED_WITHIN_S = 20.0


class CollectorError(Exception):
    """A client cannot be asked or told something: names the client, what was tried, and what came."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client's control port is."""

    name: str
    host: str
    port: int


@dataclass(slots=True)
class _Client:
    """What is known of one client."""

    address: Address
    latest: dict[str, Any] = field(default_factory=dict)
    stretches: dict[int, dict[str, Any]] = field(default_factory=dict)  # by number
    heard: float = field(default_factory=time.monotonic)
    trouble: str = ""
    gone: bool = False

    def first_unsettled(self) -> int:
        """The first stretch that may still change."""
        for number, stretch in sorted(self.stretches.items()):
            if stretch["ended"] is None or _under_way(stretch):
                return number
        return 0

    def take(self, data: dict[str, Any]) -> None:
        """Remember a report, which holds the stretches from the first unsettled one on."""
        self.latest, self.heard, self.trouble = data, time.monotonic(), ""
        for stretch in data["phases"]:
            self.stretches[stretch["number"]] = stretch

    def whole(self) -> dict[str, Any]:
        """The latest report with all stretches."""
        return {**self.latest, "phases": [self.stretches[number] for number in sorted(self.stretches)]}


def _under_way(stretch: dict[str, Any]) -> int:
    return sum(Stream.of(stream).under_way for stream in stretch["streams"].values())


def _phase_path(name: str) -> str:
    return f"/phase/{quote(name, safe='')}"


def ask(address: Address, method: str, path: str, body: object = None) -> Any:
    """One request to a client's control port. Raises CollectorError."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_ANSWER_WITHIN_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CollectorError(
            f"{address.name}: {method} {path} at {address.host} port {address.port}: {error}"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise CollectorError(f"{address.name}: {method} {path}: {answer.get('error', answer)}")
    return answer


class Collector:
    """Asks all clients once a second from its own thread; `report` is the latest that is known."""

    def __init__(self, fabric: Inside, clients: Sequence[Address], every_s: float = 1.0) -> None:
        self._fabric = fabric
        self._clients = [_Client(address) for address in clients]
        self._phase = FIRST_PHASE
        self._gone: list[tuple[str, Failure]] = []
        self._lock = threading.Lock()
        self._polling = threading.Lock()  # or an older report could come after a newer one
        self._stop = threading.Event()
        self._every_s = every_s
        self._thread = threading.Thread(target=self._run, name="traffic collector", daemon=True)

    def start(self) -> None:
        """Ask every client once, which must succeed, and go on asking."""
        self.poll()
        for client in self._clients:
            if client.trouble:
                raise CollectorError(client.trouble)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def phase(self, name: str) -> None:
        """Begin a phase at all clients. Raises CollectorError when one cannot be told."""
        self._tell("POST", _phase_path(name))
        self._phase = name

    def targets(self, targets: Sequence[dict[str, Any]]) -> None:
        """Set the Services that come and go: name, address, port, expect."""
        self._tell("PUT", "/targets", list(targets))

    def patience(self, seconds: float) -> None:
        """From now on, so long an answer may take before it counts as lost."""
        self._tell("PUT", "/patience", seconds)

    def report(self) -> Report:
        """What was seen so far, at most some seconds old."""
        with self._lock:
            return merge([client.whole() for client in self._clients if client.latest], self._gone)

    def settled(self, name: str) -> Report:
        """A report in which every attempt of a phase that is over has ended. Raises CollectorError."""
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while True:
            self.poll()
            report = self.report()
            if not report.phase(name).total.under_way:
                return report
            if time.monotonic() > deadline:
                left = {n: s.under_way for n, s in report.phase(name).streams.items() if s.under_way}
                raise CollectorError(f"attempts of phase {name!r} do not end: {left}; is it over?")
            self._stop.wait(0.3)

    def met(self) -> bool:
        """Whether every client has seen every Service that comes and goes behave as it should now."""
        self.poll()
        return all(target["met"] for client in self.report().clients for target in client.targets)

    def poll(self) -> None:
        """Ask every client now."""
        with self._polling:
            asked = [
                (c, self._fabric.start(ask, c.address, "GET", f"/report?from={c.first_unsettled()}"))
                for c in self._clients
            ]
            for client, answer in asked:
                self._take(client, answer)

    def _take(self, client: _Client, answer: "Future[Any]") -> None:
        try:
            data = answer.result()
        except CollectorError as error:
            client.trouble = str(error)
            if not client.gone and time.monotonic() - client.heard > _GONE_AFTER_S:
                client.gone = True
                self._lost(client, "client-gone", client.trouble)
            return
        with self._lock:
            if client.latest and client.latest["id"] != data["id"]:
                client.stretches.clear()
                self._lost(client, "client-restarted", "what it had seen is lost")
                self._fabric.start(ask, client.address, "POST", _phase_path(self._phase))
            client.gone = False
            client.take(data)

    def _lost(self, client: _Client, kind: str, detail: str) -> None:
        failure = Failure(time.time(), client.address.name, "client", kind, client.address.host, detail)
        self._gone.append((self._phase, failure))

    def _tell(self, method: str, path: str, body: object = None) -> None:
        for answer in [self._fabric.start(ask, c.address, method, path, body) for c in self._clients]:
            answer.result()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.poll()
