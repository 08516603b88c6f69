"""Whoever asks for what nobody can serve hears of it: once, in words that say where."""

import pytest
from handover_agent.bypassed import Found
from handover_agent.complaints import (
    Complaints,
    of_bypassed,
    of_disputes,
    of_full_maps,
    of_pressed_maps,
    of_services,
    of_unwritten,
)
from handover_agent.events import About, Happening
from handover_agent.objects import Service
from handover_agent.table import FrontendKey, Protocol, ip_bytes
from handover_agent.wanted import Dispute
from tests.fakes.objects import service

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("thing", "reason", "said"),
    [
        pytest.param(
            service(externalIPs=["nonsense"]), "InvalidAddress", "externalIPs has 'nonsense'", id="address"
        ),
        pytest.param(
            service(externalIPs=["2001:db8::1"]),
            "AddressWithoutFamily",
            "externalIPs has 2001:db8::1",
            id="family",
        ),
        pytest.param(
            service(type="LoadBalancer", ingress=[{"ip": "2001:db8::7"}]),
            "AddressWithoutFamily",
            "status.loadBalancer has 2001:db8::7",
            id="balancer's family",
        ),
        pytest.param(
            service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8", "10.0.0.0/33"]),
            "InvalidSourceRange",
            "'10.0.0.0/33'",
            id="range",
        ),
        pytest.param(
            service(ports=[{"name": "q", "port": 443, "protocol": "QUIC"}]),
            "UnknownProtocol",
            "'QUIC'",
            id="protocol",
        ),
    ],
)
def test_what_nobody_can_serve_is_said_to_its_owner(thing: Service, reason: str, said: str) -> None:
    (happening,) = of_services([service("default/fine"), thing])
    assert (happening.about, happening.reason) == (About("Service", "web", "default"), reason)
    assert said in happening.message


@pytest.mark.parametrize(
    "thing",
    [
        service(externalIPs=["198.51.100.1"], loadBalancerSourceRanges=[" 10.0.0.0/8 ", "2001:db8::/32"]),
        service(
            type="LoadBalancer",
            ingress=[{"hostname": "lb.example.org"}, {"ip": "2001:db8::7", "ipMode": "Proxy"}],
        ),
        service(labels={"service.kubernetes.io/headless": ""}, externalIPs=["nonsense"]),
        service(type="ExternalName", ip=[], externalIPs=["nonsense"]),
    ],
    ids=["all right", "not for us", "headless", "ExternalName"],
)
def test_what_can_be_served_and_what_is_not_ours_is_not_complained_about(thing: Service) -> None:
    assert of_services([thing]) == []


def test_who_lost_an_address_hears_who_has_it() -> None:
    key = FrontendKey(ip_bytes("198.51.100.1"), 80, Protocol.TCP)
    (happening,) = of_disputes([Dispute(key, "a/new", "a/old")])
    assert happening.about == About("Service", "new", "a")
    assert "TCP/198.51.100.1:80 belongs to Service a/old" in happening.message


def test_a_full_map_is_said_of_the_node_and_of_the_services_that_suffer() -> None:
    (of_node,) = of_full_maps({"backends": 3}, "n1")
    assert (of_node.about, of_node.reason) == (About("Node", "n1"), "MapFull")
    assert "BPF map backends has no room" in of_node.message
    (of_service,) = of_unwritten({"a/x:http/TCP": "TCP/10.96.0.1:80: BPF map backends has no room"}, "n1")
    assert of_service.about == About("Service", "x", "a")
    assert "node n1 does not serve TCP/10.96.0.1:80" in of_service.message


def test_maps_that_are_about_to_forget_connections_are_said_of_the_node() -> None:
    (happening,) = of_pressed_maps({"flows": 0.95, "affinity": 0.5, "fragments": 1.0}, "n1")
    assert (happening.about, happening.reason) == (About("Node", "n1"), "MapPressed")
    assert "BPF map flows" in happening.message
    assert "nf_conntrack_max" in happening.message


def test_each_is_told_once_and_again_when_it_comes_back() -> None:
    told: list[str] = []
    complaints = Complaints(lambda happening: told.append(happening.message))
    one, two = (Happening(About("Node", "n1"), "MapFull", "Write", text) for text in ("one", "two"))
    for current in ([one], [one], [one, two], [two], [one, two]):
        complaints.now(current)
    assert told == ["one", "two", "one"]


def test_ever_so_many_are_bounded() -> None:
    told: list[Happening] = []
    complaints = Complaints(told.append)
    many = [
        Happening(About("Service", f"s{n}", "a"), "UnknownProtocol", "Compile", "x") for n in range(10_000)
    ]
    complaints.now(many)
    assert len(told) == 200


def test_rules_that_packets_come_too_late_to_are_told_of_the_node_by_the_first() -> None:
    assert of_bypassed([], "n1") == []
    rules = [
        Found("iptables-nft ipv4 raw", f"PREROUTING: -p tcp --dport {n} -j DROP") for n in (30080, 30081)
    ]
    (told,) = of_bypassed(rules, "n1")
    assert (told.about, told.reason) == (About("Node", "n1"), "RulesBypassed")
    assert "iptables-nft ipv4 raw: PREROUTING: -p tcp --dport 30080 -j DROP (and 1 more)" in told.message
