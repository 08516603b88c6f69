"""kube-proxy's metrics, under its names: dashboards and alerts that were made for it go on meaning something.

Names, types, labels and buckets are those of kube-proxy 1.36 (pkg/proxy/metrics/metrics.go). A *sync* is a write of
changes into the maps; a *full* one compares the whole table with them, a *partial* one writes a difference. What
speaks of iptables, ipvs or nftables is left out: there is nothing of the kind here.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from handover_agent.conntrack import Pass
from handover_agent.health.local import IPV4, IPV6, LocalPolicies
from handover_agent.histogram import Histogram, exponential, linear
from handover_agent.model import Model, Trigger

FAMILIES = (IPV4, IPV6)
_PREFIX = "kubeproxy_"
_FAMILY = ("ip_family",)
_SYNC_S = exponential(0.001, 2, 15)
_PROGRAMMING_S = (*linear(0.25, 0.25, 2), *linear(1, 1, 59), *linear(60, 5, 12), *linear(120, 30, 7))


class AsKubeProxy(Collector):
    """Is told what happens, and makes kube-proxy's metrics of it while the node is ours."""

    def __init__(
        self,
        model: Model,
        policies: LocalPolicies,
        answers: Callable[[], Mapping[tuple[str, int], int]],
        ours: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`answers`: (path, HTTP status) → how often, of the health port."""
        self._model, self._policies, self._answers, self._ours = model, policies, answers, ours
        self._clock = clock
        self._sync = _seconds("sync_proxy_rules", "SyncProxyRules latency in seconds")
        self._full = _seconds("sync_full_proxy_rules", "SyncProxyRules latency in seconds for full resyncs")
        self._partial = _seconds(
            "sync_partial_proxy_rules", "SyncProxyRules latency in seconds for partial resyncs"
        )
        self._conntrack = _seconds(
            "conntrack_reconciler_sync", "ReconcileConntrackFlowsLatency latency in seconds"
        )
        self._programming = Histogram(
            f"{_PREFIX}network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            _FAMILY,
            _PROGRAMMING_S,
        )
        self._synced_at: dict[str, float] = {}
        self._deleted: dict[str, int] = {}
        self._under_way: list[Trigger] = []
        self._seen = self._written = (0, 0)  # changes of Services, of endpoints

    def begin(self) -> None:
        """What has changed up to now is about to be written."""
        self._under_way += self._model.triggers
        self._model.triggers = []
        self._seen = (self._model.service_changes, self._model.endpoint_changes)

    def synced(self, *, full: bool, seconds: float, families: Collection[str], in_sync: bool) -> None:
        """It was written, or (not `in_sync`) some of it could not be."""
        for family in families:
            self._sync.observe((family,), seconds)
            (self._full if full else self._partial).observe((family,), seconds)
        triggers, self._under_way = self._under_way, []
        if not in_sync:
            return  # as with kube-proxy, the time of a change that failed at first is not told
        now = self._clock()
        self._synced_at |= dict.fromkeys(FAMILIES, now)
        self._written = self._seen
        for trigger in triggers:
            self._programming.observe((IPV4 if trigger.ipv4 else IPV6,), max(now - trigger.at, 0.0))

    def reconciled(self, passes: Iterable[Pass]) -> None:
        """Conntrack's stale entries were looked for."""
        for each in passes:
            family = IPV4 if each.ipv4 else IPV6
            self._conntrack.observe((family,), each.seconds)
            self._deleted[family] = self._deleted.get(family, 0) + each.deleted

    def collect(self) -> Iterable[Metric]:
        """All of them; none while kube-proxy itself tells them."""
        if not self._ours():
            return
        yield from (h.collect() for h in (self._sync, self._full, self._partial, self._programming))
        yield _by_family(
            GaugeMetricFamily,
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self._synced_at,
        )
        yield _by_family(
            GaugeMetricFamily,
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            dict.fromkeys(FAMILIES, self._model.touched_at),
        )
        yield from self._changes()
        self._policies.refresh()
        nobody = GaugeMetricFamily(
            f"{_PREFIX}sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            labels=["traffic_policy", *_FAMILY],
        )
        for labels, count in self._policies.totals().items():
            nobody.add_metric(labels, count)
        yield nobody
        yield from self._health()
        yield self._conntrack.collect()
        yield _by_family(
            CounterMetricFamily,
            "conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler",
            self._deleted,
        )

    def _changes(self) -> Iterable[Metric]:
        totals = (self._model.service_changes, self._model.endpoint_changes)
        for name, title, total, written in zip(
            ("service", "endpoint"), ("Service", "Endpoint"), totals, self._written, strict=True
        ):
            yield GaugeMetricFamily(
                f"{_PREFIX}sync_proxy_rules_{name}_changes_pending",
                f"Pending proxy rules {title} changes",
                value=total - written,
            )
            yield CounterMetricFamily(
                f"{_PREFIX}sync_proxy_rules_{name}_changes",
                f"Cumulative proxy rules {title} changes",
                value=total,
            )

    def _health(self) -> Iterable[Metric]:
        for path, name in (("/healthz", "proxy_healthz"), ("/livez", "proxy_livez")):
            text = f"Cumulative {name.replace('_', ' ')} HTTP status"
            family = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=["code"])
            for (asked, status), count in self._answers().items():
                if asked == path:
                    family.add_metric([str(status)], count)
            yield family


def _seconds(name: str, text: str) -> Histogram:
    return Histogram(f"{_PREFIX}{name}_duration_seconds", text, _FAMILY, _SYNC_S)


def _by_family(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"{_PREFIX}{name}", text, labels=_FAMILY)
    for label, value in values.items():
        family.add_metric([label], value)
    return family
