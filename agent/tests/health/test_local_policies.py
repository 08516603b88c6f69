"""Who counts as an endpoint of this node, and what it costs to know."""

import pytest
from handover_agent.health.local import HealthCheck, LocalPolicies, Unreached, health_check, unreached
from handover_agent.model import Model
from handover_agent.objects import Service, Slice
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

BOTH = ["10.96.0.10", "fd00:96::a"]


def balancer(**spec: object) -> Service:
    fields = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "type": "LoadBalancer"} | spec
    return service(ip=BOTH, **fields)


def endpoints(*found: dict[str, object], family: str = "IPv4", name: str = "default/web-1") -> Slice:
    return slice_(name, endpoints=list(found), family=family)


def test_ready_endpoints_of_this_node_count_each_family_for_itself() -> None:
    slices = [
        endpoints(
            endpoint_json("10.1.1.1", "n1"),
            endpoint_json("10.1.1.2", "n1"),
            endpoint_json("10.1.2.1", "n2"),
            endpoint_json("10.1.1.3", "n1", ready=False),
        ),
        endpoints(endpoint_json("fd00:1::1", "n1"), family="IPv6", name="default/web-6"),
    ]
    assert health_check(balancer(), slices, "n1") == HealthCheck(31000, {"IPv4": 2, "IPv6": 1})
    assert health_check(balancer(), slices, "n3") == HealthCheck(31000, {"IPv4": 0, "IPv6": 0})


def test_a_terminating_endpoint_does_not_count_though_traffic_may_fall_back_to_it() -> None:
    leaving = endpoint_json("10.1.1.1", "n1", ready=False, serving=True, terminating=True)
    check = health_check(balancer(), [endpoints(leaving)], "n1")
    assert check is not None
    assert check.endpoints["IPv4"] == 0


def test_an_address_counts_once_for_all_of_its_ports() -> None:
    ports = [{"name": name, "port": port, "protocol": "TCP"} for name, port in (("a", 80), ("b", 81))]
    thing = service(
        ports=ports, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000
    )
    serving = slice_(endpoints=[endpoint_json("10.1.1.1", "n1")], ports=ports)
    assert health_check(thing, [serving], "n1") == HealthCheck(31000, {"IPv4": 1})


@pytest.mark.parametrize(
    "changed",
    [
        {"externalTrafficPolicy": "Cluster"},
        {"type": "NodePort"},
        {"healthCheckNodePort": 0},
        {"labels": {"service.kubernetes.io/service-proxy-name": "another"}},
    ],
)
def test_only_a_load_balancer_with_the_local_policy_has_one(changed: dict[str, object]) -> None:
    assert health_check(balancer(**changed), [], "n1") is None


def test_ports_that_find_nobody_here_are_counted_by_the_policy_that_drops_them() -> None:
    elsewhere = [endpoints(endpoint_json("10.1.2.1", "n2"))]
    thing = balancer(internalTrafficPolicy="Local")
    assert unreached(thing, elsewhere, "n1") == Unreached({"IPv4": 1}, {"IPv4": 1})
    assert unreached(thing, elsewhere, "n2") == Unreached({}, {})
    assert unreached(thing, [], "n1") == Unreached({}, {}), (
        "nobody anywhere is a refusal, not a policy's doing"
    )
    assert unreached(balancer(), elsewhere, "n1") == Unreached({}, {"IPv4": 1})
    assert unreached(service(), elsewhere, "n1") == Unreached({}, {})


def test_only_what_changed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    model.services_sink.replace([balancer(), service("default/other")])
    model.slices_sink.replace([endpoints(endpoint_json("10.1.1.1", "n1"))])
    policies = LocalPolicies(model, "n1")
    policies.refresh()
    assert policies.checks == {"default/web": HealthCheck(31000, {"IPv4": 1, "IPv6": 0})}
    looked: list[str] = []
    monkeypatch.setattr("handover_agent.health.local.health_check", lambda s, *_: looked.append(s.key))
    model.slices_sink.put(endpoints())
    policies.refresh()
    policies.refresh()
    assert looked == ["default/web"]


def test_what_is_gone_is_forgotten() -> None:
    model = Model()
    policies = LocalPolicies(model, "n1")
    model.services_sink.replace([balancer(internalTrafficPolicy="Local")])
    model.slices_sink.replace([endpoints(endpoint_json("10.1.2.1", "n2"))])
    policies.refresh()
    assert policies.totals() == {
        ("internal", "IPv4"): 1,
        ("external", "IPv4"): 1,
        ("internal", "IPv6"): 0,
        ("external", "IPv6"): 0,
    }
    model.services_sink.replace([])
    policies.refresh()
    assert policies.checks == {}
    assert set(policies.totals().values()) == {0}
