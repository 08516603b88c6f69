"""What is reached from outside on a node."""

from dataclasses import replace

import pytest
from handover_agent.bypassed import outside
from handover_agent.bypassed.destinations import Span
from handover_agent.objects import Service
from handover_agent.table import Protocol
from tests.fakes.objects import service

from .setting import INTERNAL, KEEPS_CLIENT, NODE, WEB

pytestmark = pytest.mark.unit

NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]


def told(*services: Service) -> set[tuple[bool, str, int, int, bool, bool]]:
    """Family, protocol, ports, and whether it is the node's own address, and the client's is kept."""
    return {
        (s.ipv4, Protocol(s.protocol).name, s.first, s.last, s.local, s.keeps_client)
        for s in outside(services, NODE)
    }


def test_a_node_port_stands_for_the_whole_range_in_its_families() -> None:
    one = service("a/a", ports=NODE_PORT, type="NodePort")
    assert told(one) == {(True, name, 30000, 32767, True, False) for name in ("TCP", "UDP", "SCTP")}
    assert {span.address for span in outside([one], NODE)} == {0xC000020A}, "not 127.0.0.1"


def test_an_odd_node_port_and_one_that_keeps_the_client_stand_for_themselves_too() -> None:
    odd = service("a/a", ports=[{"port": 80, "nodePort": 20080}], type="NodePort")
    assert (True, "TCP", 20080, 20080, True, False) in told(odd)
    assert (True, "UDP", 30514, 30514, True, True) in told(KEEPS_CLIENT)


def test_a_load_balancers_address_is_reached_at_its_ports() -> None:
    assert (True, "TCP", 443, 443, False, False) in told(WEB)
    vip = service("a/a", ingress=[{"ip": "203.0.113.7"}], type="LoadBalancer")
    assert told(vip) == {(True, "TCP", 80, 80, False, False)}


def test_an_external_address_may_be_the_nodes_own() -> None:
    own = service("a/a", externalIPs=["192.0.2.10"])
    assert told(own) == {(True, "TCP", 80, 80, True, False)}


def test_node_ports_are_where_kube_proxy_has_them() -> None:
    elsewhere = replace(NODE, node_port_addresses=("198.51.100.0/24",))
    assert outside([service("a/a", ports=NODE_PORT, type="NodePort")], elsewhere) == list[Span]()


@pytest.mark.parametrize(
    "nothing",
    [
        INTERNAL,
        service("a/a", ingress=[{"ip": "203.0.113.7", "ipMode": "Proxy"}], type="LoadBalancer"),
        service("a/a", "None", externalIPs=["198.51.100.1"]),
        service("a/a", externalIPs=["2001:db8:1::1"]),
        service(
            "a/a",
            ports=NODE_PORT,
            externalIPs=["198.51.100.1"],
            labels={"service.kubernetes.io/service-proxy-name": "x"},
        ),
    ],
    ids=["ClusterIP", "ipMode Proxy", "headless", "another family", "another proxy's"],
)
def test_what_is_not_reached_from_outside(nothing: Service) -> None:
    assert told(nothing) == set()
