"""One size's measurement: who serves now, and turns that are taken round by round, so that noise hits all alike."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.bench import crowd
from e2e.bench.asking import Address, Client
from e2e.bench.ground import DATA_IP, Ground
from e2e.bench.processes import Running
from e2e.bench.proxies import Proxy
from e2e.bench.results import OURS, PACKET, UNPROXIED, Sample

NOT_SERVED = "not measured: this way does not serve it"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done of everything."""

    rounds: int = 45
    """Of short turns: many of them, since what disturbs the machine lasts longer than one."""
    stream_rounds: int = 9
    connects: int = 500
    stream_s: float = 1.0
    datagrams_s: float = 0.1
    rate_s: float = 0.2
    changes: int = 21
    slow_changes: int = 5
    """Of a proxy that takes seconds for each."""
    cpu_s: float = 20.0
    patience_s: float = 900.0
    """How long a proxy may take for all Services."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one way is asked in every round."""

    client: Client
    fields: Mapping[str, Any]


@dataclass(slots=True)
class Bench:
    """All that the steps work with. `running` has the proxies that serve now, by their ways."""

    ground: Ground
    proxies: Mapping[str, Proxy]
    effort: Effort
    running: dict[str, Running] = field(default_factory=dict)

    def say(self, message: str) -> None:
        """Tell who waits."""
        self.ground.lab.progress.say(message)

    def client(self, way: str) -> Client:
        """The client of a way, or of a place."""
        return self.ground.clients[way]

    def ways(self, packet: Address | None = None) -> list[str]:
        """No proxy twice, those that serve, and our packet path if that serves an address."""
        found = [*UNPROXIED, *self.running]
        return [*found, PACKET] if OURS in found and packet and self.client(PACKET).serves(packet) else found

    def crowd_targets(self, way: str, services: int) -> list[Address]:
        """A sample of the crowd's ClusterIPs; without a proxy, its servers."""
        if way in UNPROXIED:
            return [(server, crowd.BACKEND_PORT) for server in self.ground.servers]
        return [(crowd.cluster_ip(index), crowd.PORT) for index in crowd.sample(services)]

    def data_target(self, way: str, port: int) -> Address:
        """Where streams and datagrams are answered."""
        return (self.ground.servers[0] if way in UNPROXIED else DATA_IP, port)

    def rounds(self, do: str, turns: Mapping[str, Turn], name: str) -> dict[str, tuple[float, ...]]:
        """Ask every way in every round, beginning with another one each time. Raises BenchError."""
        found: dict[str, list[float]] = {way: [] for way in turns}
        for number in range(self.effort.stream_rounds if do == "stream" else self.effort.rounds):
            for way in rotated(list(turns), number):
                answer = turns[way].client.ask(do, **turns[way].fields)
                found[way].append(float(answer[name]))
        return {way: tuple(values) for way, values in found.items()}

    @contextmanager
    def alone(self, way: str) -> Iterator[Running]:
        """Inside, the other proxies are held still, and this one has done its work."""
        others = [running for other, running in self.running.items() if other != way]
        for other in others:
            other.pause()
        try:
            self.running[way].calm()
            yield self.running[way]
        finally:
            for other in others:
                other.resume()

    def stop(self) -> None:
        """Kill and clean up after every proxy that runs."""
        for way in list(self.running):
            self.running.pop(way).kill()
            self.proxies[way].clean()


def rotated(ways: Sequence[str], number: int) -> list[str]:
    """The ways in the order of a round: each is the first one in its turn. Pure."""
    at = number % len(ways) if ways else 0
    return [*ways[at:], *ways[:at]]


def samples(measure: str, services: int, found: Mapping[str, tuple[float, ...]]) -> Iterator[Sample]:
    """One of each way."""
    for way, values in found.items():
        yield Sample(measure, services, way, values)


def missing(measure: str, services: int, wanted: str, ways: Sequence[str]) -> Iterator[Sample]:
    """What tells that a way does not serve this, beside a proxy that might."""
    if OURS in ways and wanted not in ways:
        yield Sample(measure, services, wanted, note=NOT_SERVED)
