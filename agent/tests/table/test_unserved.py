"""What this datapath does not serve is named, Service by Service, with what to do about it."""

import pytest
from handover_agent.objects import Service
from handover_agent.unserved import BY_PACKETS, Unserved, all_unserved, foremost, lacking, unserved
from handover_api.base import Feature
from handover_api.nodemigration import Unserved as UnservedStatus
from tests.fakes.objects import service

pytestmark = pytest.mark.unit

NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]


@pytest.mark.parametrize(
    ("thing", "features"),
    [
        pytest.param(service(), [], id="ClusterIP"),
        pytest.param(service(sessionAffinity="ClientIP"), [], id="affinity is served"),
        pytest.param(service(type="NodePort", ports=NODE_PORT), ["NodePort"], id="NodePort"),
        pytest.param(
            service(type="LoadBalancer", ports=NODE_PORT),
            ["NodePort"],
            id="load balancer not yet given an address",
        ),
        pytest.param(
            service(type="LoadBalancer", ports=NODE_PORT, ingress=[{"ip": "203.0.113.7"}]),
            ["NodePort", "LoadBalancer"],
            id="LoadBalancer",
        ),
        pytest.param(
            service(type="LoadBalancer", ingress=[{"ip": "203.0.113.7"}]),
            ["LoadBalancer"],
            id="without node ports",
        ),
        pytest.param(
            service(type="LoadBalancer", ingress=[{"ip": "203.0.113.7", "ipMode": "Proxy"}]),
            [],
            id="ipMode Proxy",
        ),
        pytest.param(
            service(type="LoadBalancer", ingress=[{"hostname": "lb.example.org"}]), [], id="host name"
        ),
        pytest.param(service(externalIPs=["198.51.100.1"]), ["ExternalIPs"], id="externalIPs"),
        pytest.param(service(ports=[{"name": "s", "protocol": "SCTP", "port": 9}]), ["SCTP"], id="SCTP"),
        pytest.param(
            service(
                labels={"service.kubernetes.io/service-proxy-name": "x"},
                ports=NODE_PORT,
                externalIPs=["198.51.100.1"],
            ),
            [],
            id="another proxy's",
        ),
        pytest.param(
            service(ip="None", ports=[{"name": "s", "protocol": "SCTP", "port": 9}]), [], id="headless"
        ),
        pytest.param(
            service(type="ExternalName", ip=[], externalIPs=["198.51.100.1"]), [], id="ExternalName"
        ),
    ],
)
def test_features_are_found(thing: Service, features: list[str]) -> None:
    found = unserved(thing, BY_PACKETS)
    assert [item.feature.value for item in found] == features
    assert all(item.service == "default/web" for item in found)


def test_where_the_datapath_lacks_nothing_nothing_is_unserved() -> None:
    ports = [*NODE_PORT, {"name": "s", "protocol": "SCTP", "port": 9}]
    thing = service(
        type="LoadBalancer", ports=ports, ingress=[{"ip": "203.0.113.7"}], externalIPs=["198.51.100.1"]
    )
    assert len(unserved(thing, BY_PACKETS)) == 4
    assert unserved(thing, ()) == all_unserved([thing], ()) == []


def test_a_kernel_that_runs_programs_on_devices_lacks_nothing() -> None:
    assert lacking(["connect4", "sched_cls", "tcx"]) == frozenset()
    assert lacking(["connect4"]) == BY_PACKETS
    assert lacking([]) == BY_PACKETS


def test_only_what_is_lacking_is_named() -> None:
    ports = [*NODE_PORT, {"name": "s", "protocol": "SCTP", "port": 9}]
    (item,) = unserved(service(type="NodePort", ports=ports), {Feature.SCTP})
    assert item.feature is Feature.SCTP


def test_a_message_names_the_address_and_what_to_do() -> None:
    (item,) = unserved(service(type="NodePort", ports=NODE_PORT), BY_PACKETS)
    assert "node port 30080/TCP" in item.message
    assert "type ClusterIP" in item.message
    assert "spec.acknowledge: [NodePort]" in item.message


def test_source_ranges_that_keep_local_processes_out_are_mentioned() -> None:
    ingress = [{"ip": "203.0.113.7"}]
    thing = service(type="LoadBalancer", ingress=ingress, loadBalancerSourceRanges=["10.0.0.0/8"])
    (item,) = unserved(thing, BY_PACKETS)
    assert "from outside and from pods" in item.message


def test_a_service_with_very_many_ports_still_fits_the_status() -> None:
    ports = [{"name": f"p{n}", "port": n, "nodePort": 30000 + n} for n in range(1, 1000)]
    (item,) = unserved(service(type="NodePort", ports=ports), BY_PACKETS)
    UnservedStatus(feature=item.feature, service=item.service, message=item.message)
    assert "and 994 more" in item.message


def test_all_are_listed_in_a_stable_order() -> None:
    many = [service(f"a/{name}", type="NodePort", ports=NODE_PORT) for name in "cab"]
    assert [item.service for item in all_unserved(many, BY_PACKETS)] == ["a/a", "a/b", "a/c"]


def test_a_bounded_list_leaves_no_feature_out() -> None:
    items = sorted(
        [Unserved(Feature.NODE_PORT, f"a/{n:03}", "") for n in range(200)]
        + [Unserved(Feature.SCTP, "z/z", "")]
    )
    shown = foremost(items, 100)
    assert len(shown) == 100
    assert {item.feature for item in shown} == {Feature.NODE_PORT, Feature.SCTP}
    assert foremost(items[:3], 100) == items[:3]
