"""The steps of the measurement at one size, each of which gives samples of all ways."""

import statistics
import time
from collections.abc import Callable, Iterator

from e2e.bench import crowd
from e2e.bench.asking import Address, BenchError
from e2e.bench.bulk import Write
from e2e.bench.ground import DATAGRAMS, NODE_PORT, OUTSIDE, PROBE_IP, SERVERS, STREAMS
from e2e.bench.results import NONE, PACKET, Sample
from e2e.bench.turns import NOT_SERVED, Bench, Turn, missing, samples
from e2e.bench.watching import Watching
from e2e.kube import path_of

CHANGES_PER_S = 100.0
_SLOW_MS = 1000.0
_APART_S = 1.2
"""Between two changes: kube-proxy lets a second pass after one (minSyncPeriod), which a single change does not meet."""


def start(bench: Bench, services: int) -> Iterator[Sample]:
    """One proxy after the other, from nothing until all of a sample of Services is served, and what it takes then."""
    targets = [(crowd.cluster_ip(index), crowd.PORT) for index in reversed(crowd.sample(services))]
    limit = bench.effort.patience_s
    for way, proxy in bench.proxies.items():
        bench.say(f"starting {way} with {services:,} Services")
        proxy.clean()
        running = proxy.start()
        try:
            question = {"targets": targets, "wanted": True, "pause_s": 0.02}
            answer = bench.client(way).ask("until", limit_s=limit, **question)
        except BenchError as error:
            running.kill()
            proxy.clean()
            bench.say(f"{way} is left out: {error}\n{running.said()}")
            yield Sample("start", services, way, note=f"did not serve all of them within {limit:.0f} s")
            continue
        bench.running[way] = running
        took = answer["at"] - running.started
        note = "" if running.calm() else "it was still at work two minutes after its start"
        resident = running.resident_bytes() / 1e6
        bench.say(f"{way} serves after {took:.1f} s, and has {resident:.0f} MB")
        yield Sample("start", services, way, (took,))
        yield Sample("memory", services, way, (resident,), note)
        for measure, value in proxy.details(running).items():
            yield Sample(measure, services, way, (value,))


def connect(bench: Bench, services: int) -> Iterator[Sample]:
    """TCP connect to a sample of the crowd's ClusterIPs; without a proxy, to its servers."""
    ways = bench.ways(packet=(crowd.cluster_ip(0), crowd.PORT))
    turns = {
        way: Turn(
            bench.client(way),
            {"targets": bench.crowd_targets(way, services), "count": bench.effort.connects},
        )
        for way in ways
    }
    yield from samples("connect", services, bench.rounds("connect", turns, "p50"))
    yield from missing("connect", services, PACKET, ways)


def streams(bench: Bench, services: int) -> Iterator[Sample]:
    """Bytes per second of one established connection, to the server and from it."""
    ways = bench.ways(packet=bench.data_target(PACKET, STREAMS))
    for direction in ("put", "get"):
        measure = f"stream-{direction}"
        fields = {"seconds": bench.effort.stream_s, "direction": direction}
        turns = {
            way: Turn(bench.client(way), {"target": bench.data_target(way, STREAMS), **fields})
            for way in ways
        }
        yield from samples(measure, services, bench.rounds("stream", turns, "bytes_per_s"))
        yield from missing(measure, services, PACKET, ways)


def datagrams(bench: Bench, services: int) -> Iterator[Sample]:
    """UDP requests and replies per second, of a socket that is connected and of one that is not."""
    for measure, connected in (("udp-connected", True), ("udp-unconnected", False)):
        fields = {"seconds": bench.effort.datagrams_s, "connected": connected}
        turns = {
            way: Turn(bench.client(way), {"target": bench.data_target(way, DATAGRAMS), **fields})
            for way in bench.ways()
        }
        yield from samples(measure, services, bench.rounds("udp", turns, "per_s"))


def node_port(bench: Bench, services: int) -> Iterator[Sample]:
    """TCP from outside of the cluster to a NodePort, whose endpoints are elsewhere; without a proxy, to the pods."""
    outside = bench.client(OUTSIDE)
    targets: dict[str, list[Address]] = {NONE: [(s, crowd.BACKEND_PORT) for s in bench.ground.servers]}
    for way in bench.running:
        address = (bench.ground.node(way).ipv4, NODE_PORT)
        if outside.serves(address):
            targets[way] = [address]
        else:
            yield Sample("node-port", services, way, note=NOT_SERVED)
    effort = bench.effort
    turns = {
        way: Turn(outside, {"targets": found, "seconds": effort.rate_s}) for way, found in targets.items()
    }
    yield from samples("node-port", services, bench.rounds("rate", turns, "per_s"))
    turns = {
        way: Turn(outside, {"targets": found, "count": effort.connects}) for way, found in targets.items()
    }
    yield from samples("node-port-connect", services, bench.rounds("connect", turns, "p50"))


def change(bench: Bench, services: int) -> Iterator[Sample]:
    """A Service without endpoints gets one: until a client is served, from the watch's event and from the write."""
    bulk, item = bench.ground.bulk, bench.ground.probe(0)
    with bulk.kept() as writer, bulk.kept() as watcher:
        watching = Watching.of(item, writer, watcher)
        for way in bench.running:
            after_event: list[float] = []
            after_write: list[float] = []
            with bench.alone(way):
                wanted = bench.effort.changes
                while len(after_event) < wanted:
                    written, seen, at = _changed_once(bench, way, watching)
                    after_event.append((at - seen) * 1000)
                    after_write.append((at - written) * 1000)
                    if after_event[-1] > _SLOW_MS:
                        wanted = bench.effort.slow_changes
                watching.put(item)
            bench.say(f"{way}: one change is usable after {statistics.median(after_event):.1f} ms")
            yield Sample("change", services, way, tuple(after_event))
            yield Sample("change-write", services, way, tuple(after_write))


def _changed_once(bench: Bench, way: str, watching: Watching) -> tuple[float, float, float]:
    """When the endpoint was written, when the event came, and when a client was served, by the machine's clock."""
    question = {"targets": [(PROBE_IP, crowd.PORT)], "limit_s": bench.effort.patience_s}
    watching.put(bench.ground.probe(0))
    bench.client(way).ask("until", wanted=False, pause_s=0.01, **question)
    time.sleep(_APART_S)
    with bench.client(way).asked("until", wanted=True, pause_s=0.0005, **question) as answers:
        next(answers)
        written = time.monotonic()
        version = watching.put(bench.ground.probe(1))
        at = next(float(answer["at"]) for answer in answers if "at" in answer)
    return written, watching.seen(version), at


def cpu(bench: Bench, services: int) -> Iterator[Sample]:
    """Share of a core that a proxy takes while endpoints change a hundred times per second."""
    bulk, seconds = bench.ground.bulk, bench.effort.cpu_s
    flapping = crowd.flapping(services, bench.ground.servers, SERVERS)
    writes = (Write("PUT", path_of(item), item) for item in flapping)
    for way in bench.running:
        with bench.alone(way) as running:
            bulk.paced(writes, CHANGES_PER_S, 3.0)
            before, began = running.cpu_s(), time.monotonic()
            rate = bulk.paced(writes, CHANGES_PER_S, seconds)
            share = (running.cpu_s() - before) / (time.monotonic() - began)
        bench.say(f"{way}: {100 * share:.0f} % of a core at {rate:.0f} changes/s")
        note = "" if rate > 0.95 * CHANGES_PER_S else f"the API server took only {rate:.0f} changes/s"
        yield Sample("cpu", services, way, (100 * share,), note)
        yield Sample("memory-after", services, way, (running.resident_bytes() / 1e6,))


STEPS: dict[str, Callable[[Bench, int], Iterator[Sample]]] = {
    "start": start,
    "connect": connect,
    "streams": streams,
    "datagrams": datagrams,
    "node-port": node_port,
    "change": change,
    "cpu": cpu,
}
