"""kube-proxy's metrics are told under its names, and only while nobody else tells them."""

from dataclasses import dataclass, field

import pytest
from handover_agent.conntrack import Pass
from handover_agent.health.local import LocalPolicies
from handover_agent.histogram import Histogram, exponential
from handover_agent.metrics import registry
from handover_agent.model import Model
from handover_agent.objects import Slice
from handover_agent.proxymetrics import AsKubeProxy
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.fakes.clock import Clock
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

BOTH = ("IPv4", "IPv6")


@dataclass
class Told:
    """The metrics, and what they are made from."""

    model: Model = field(default_factory=Model)
    clock: Clock = field(default_factory=Clock)
    answers: dict[tuple[str, int], int] = field(default_factory=dict)
    ours: bool = True

    def __post_init__(self) -> None:
        policies = LocalPolicies(self.model, "n1")
        self.metrics = AsKubeProxy(self.model, policies, lambda: self.answers, lambda: self.ours, self.clock)

    def written(self, *, full: bool = False, seconds: float = 0.01, in_sync: bool = True) -> None:
        self.metrics.begin()
        self.metrics.synced(full=full, seconds=seconds, families=BOTH, in_sync=in_sync)

    def text(self) -> str:
        return generate_latest(registry(self.metrics)).decode()

    def values(self) -> dict[str, float]:
        """`name{label="value"}` → value."""
        return {
            f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
            for family in text_string_to_metric_families(self.text())
            for s in family.samples
        }


@pytest.fixture
def told() -> Told:
    made = Told()
    made.model.services_sink.replace([service()])
    made.model.slices_sink.replace([])
    return made


def changed_at(moment: str, address: str = "10.1.1.1", family: str = "IPv4") -> Slice:
    return slice_(
        f"default/web-{family}",
        endpoints=[endpoint_json(address)],
        family=family,
        annotations={"endpoints.kubernetes.io/last-change-trigger-time": moment},
    )


def test_every_name_type_and_label_is_kube_proxys(told: Told) -> None:
    told.model.since = 0
    told.model.slices_sink.put(changed_at("1970-01-01T00:00:01Z"))
    told.clock.now = 2.0
    told.answers = {("/healthz", 200): 3, ("/livez", 503): 1}
    told.written(full=True)
    told.written()
    told.metrics.reconciled([Pass(True, 2, 0.1), Pass(False, 0, 0.1)])
    found = {
        (family.name, family.type): {label for s in family.samples for label in s.labels} - {"le"}
        for family in text_string_to_metric_families(told.text())
    }
    family = {"ip_family"}
    # From pkg/proxy/metrics/metrics.go of kube-proxy 1.36. The parser takes `_total` off the name of a counter.
    assert found == {
        ("kubeproxy_sync_proxy_rules_duration_seconds", "histogram"): family,
        ("kubeproxy_sync_full_proxy_rules_duration_seconds", "histogram"): family,
        ("kubeproxy_sync_partial_proxy_rules_duration_seconds", "histogram"): family,
        ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "gauge"): family,
        ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "gauge"): family,
        ("kubeproxy_network_programming_duration_seconds", "histogram"): family,
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "gauge"): set(),
        ("kubeproxy_sync_proxy_rules_endpoint_changes", "counter"): set(),
        ("kubeproxy_sync_proxy_rules_service_changes_pending", "gauge"): set(),
        ("kubeproxy_sync_proxy_rules_service_changes", "counter"): set(),
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "gauge"): {"traffic_policy", *family},
        ("kubeproxy_proxy_healthz", "counter"): {"code"},
        ("kubeproxy_proxy_livez", "counter"): {"code"},
        ("kubeproxy_conntrack_reconciler_sync_duration_seconds", "histogram"): family,
        ("kubeproxy_conntrack_reconciler_deleted_entries", "counter"): family,
    }


def test_nothing_is_told_while_kube_proxy_tells_it(told: Told) -> None:
    told.ours = False
    assert told.text() == ""


def test_syncs_are_told_by_their_kind_and_their_time(told: Told) -> None:
    told.written(full=True, seconds=3.0)
    told.written(seconds=0.003)
    told.clock.now = 50.0
    told.written(seconds=0.003)
    values = told.values()
    assert values["kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=IPv4}"] == 3
    assert values["kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family=IPv6}"] == 3.0
    assert values["kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=IPv6}"] == 2
    assert values["kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=IPv4}"] == 50.0
    told.clock.now = 60.0
    told.written(in_sync=False)
    assert told.values()["kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=IPv4}"] == 50.0


def test_changes_are_pending_until_they_are_in_the_maps(told: Told) -> None:
    pending = "kubeproxy_sync_proxy_rules_endpoint_changes_pending{}"
    told.written()
    told.model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.1.1")]))
    assert told.values()[pending] == 1
    told.written(in_sync=False)
    assert told.values()[pending] == 1
    told.metrics.begin()
    told.model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.1.2")]))
    told.metrics.synced(full=False, seconds=0.1, families=BOTH, in_sync=True)
    assert told.values()[pending] == 1, "what came while it was written is not in the maps yet"
    told.written()
    assert told.values()[pending] == 0
    assert told.values()["kubeproxy_sync_proxy_rules_endpoint_changes_total{}"] == 2
    assert told.values()["kubeproxy_sync_proxy_rules_service_changes_total{}"] == 1


def test_programming_is_timed_from_the_change_in_the_cluster_for_each_family(told: Told) -> None:
    told.model.since = 100.0
    put = told.model.slices_sink.put
    put(changed_at("1970-01-01T00:01:39Z"))
    put(changed_at("1970-01-01T00:01:50Z", "10.1.1.2"))
    put(changed_at("1970-01-01T00:01:50.5Z", "fd00::1", "IPv6"))
    told.clock.now = 112.0
    told.written()
    told.written()
    values, name = told.values(), "kubeproxy_network_programming_duration_seconds"
    assert values[f"{name}_count{{ip_family=IPv4}}"] == 1, "what came about before the start is not counted"
    assert values[f"{name}_sum{{ip_family=IPv4}}"] == 2.0
    assert values[f"{name}_bucket{{ip_family=IPv6,le=1.0}}"] == 0
    assert values[f"{name}_bucket{{ip_family=IPv6,le=2.0}}"] == 1


def test_a_slice_that_is_removed_or_says_the_same_again_is_not_timed(told: Told) -> None:
    told.model.since = 0.0
    put, remove = told.model.slices_sink.put, told.model.slices_sink.remove
    put(changed_at("1970-01-01T00:01:40Z"))
    told.written()
    put(changed_at("1970-01-01T00:01:41Z"))
    assert told.model.triggers == []
    put(changed_at("1970-01-01T00:01:42Z", "10.1.1.2"))
    remove(changed_at("1970-01-01T00:01:42Z", "10.1.1.2"))
    assert told.model.triggers == []


def test_ports_without_an_endpoint_here_are_told_by_policy(told: Told) -> None:
    told.model.services_sink.put(service(internalTrafficPolicy="Local"))
    told.model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.2.1", "n2")]))
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    values = told.values()
    assert values[f"{name}{{ip_family=IPv4,traffic_policy=internal}}"] == 1
    assert values[f"{name}{{ip_family=IPv4,traffic_policy=external}}"] == 0


def test_a_histogram_counts_a_value_in_its_bucket_and_in_all_larger_ones() -> None:
    histogram = Histogram("h", "text", ("l",), exponential(1, 2, 3))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(("x",), value)
    (family,) = [histogram.collect()]
    assert [(s.labels.get("le"), s.value) for s in family.samples] == [
        ("1.0", 2.0),
        ("2.0", 3.0),
        ("4.0", 3.0),
        ("+Inf", 4.0),
        (None, 4.0),
        (None, 12.0),
    ]
