"""What Prometheus sees: collected when it asks, from facts that are known anyway.

These are the agent's own, handover_*; what kube-proxy told under its own names is in `proxymetrics`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationStatus
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from handover_agent.enlarging import AGENTS
from handover_agent.strays import Strayed
from handover_agent.sync import Sync


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the metrics are made of."""

    status: NodeMigrationStatus
    sync: Sync
    fill_ratios: Mapping[str, float] = field(default_factory=dict)
    repaired: int = 0
    strays: Strayed = field(default_factory=Strayed)
    counters: Mapping[str, int] = field(default_factory=dict)


class Exporter(Collector):
    """Makes metrics out of the figures of the moment."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        figures = self._figures()
        status, sync = figures.status, figures.sync
        yield _gauge("rung", "Rung of the ladder: 0 Standby, 1 Shadow, 2 Serving, 3 Sole", status.rung.height)
        yield _labelled("rung_info", "The rung by name", "rung", {r: float(r is status.rung) for r in Rung})
        yield _gauge("fault", "1 while the agent cannot go on", float(status.fault is not None))
        yield _gauge("frontends", "Frontends in the kernel's map", sync.frontends)
        yield _gauge("backends", "Slots of the backend array in use", sync.backends)
        yield _labelled(
            "map_pressure_ratio", "Share of a map's room that is used", "map", figures.fill_ratios
        )
        yield _labelled(
            "map_full",
            "Frontends that are not as wanted because the map has no room",
            "map",
            {name: float(sync.full.get(name, 0)) for name in AGENTS},
        )
        yield _gauge("frontends_failed", "Frontends that are not as wanted, for whatever reason", sync.failed)
        yield _gauge("in_sync", "1 while the maps hold all that is wanted", float(sync.in_sync))
        yield _counter("syncs", "Writes of changes into the maps", sync.syncs)
        yield _counter(
            "repaired", "Frontends that were found changed by others and repaired", figures.repaired
        )
        yield _gauge("old_flows", "Connections on kube-proxy's conntrack entries", status.old_flows)
        yield _gauge("translated_sockets", "Sockets that the datapath translates", status.translated)
        yield _counter("conntrack_udp_deleted", "Stale UDP entries removed", figures.strays.entries)
        yield _counter(
            "flows_udp_deleted", "Flows of the packet path removed with their backend", figures.strays.flows
        )
        yield _counter(
            "sockets_told", "Connected UDP sockets that were told of a gone backend", figures.strays.sockets
        )
        yield from _probes(status)
        counters = CounterMetricFamily("handover_datapath", "The datapath's own counters", labels=["counter"])
        for name, value in sorted(figures.counters.items()):
            counters.add_metric([name], value)
        yield counters


def registry(*collectors: Collector) -> CollectorRegistry:
    """A registry with these and nothing else."""
    made = CollectorRegistry()
    for collector in collectors:
        made.register(collector)
    return made


def _probes(status: NodeMigrationStatus) -> Iterable[Metric]:
    labels = ["round", "path"]
    attempts = GaugeMetricFamily("handover_probe_attempts", "Probes of a round", labels=labels)
    failures = GaugeMetricFamily("handover_probe_failures", "Failed probes of a round", labels=labels)
    latency = GaugeMetricFamily(
        "handover_probe_seconds", "Time of a round's probes", labels=[*labels, "quantile"]
    )
    for name, result in (("baseline", status.probes.baseline), ("latest", status.probes.latest)):
        if result is not None:
            attempts.add_metric([name, result.path], result.attempts)
            failures.add_metric([name, result.path], result.failures)
            latency.add_metric([name, result.path, "0.5"], result.p50_microseconds / 1e6)
            latency.add_metric([name, result.path, "0.99"], result.p99_microseconds / 1e6)
    yield from (attempts, failures, latency)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"handover_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"handover_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"handover_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
