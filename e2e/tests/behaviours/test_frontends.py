"""The addresses at which a Service is reached beside its ClusterIP: NodePorts, external and load balancers' addresses."""

import pytest

from e2e.behaviours.people import SERVER
from e2e.behaviours.service import HTTP, at
from e2e.behaviours.sides import DROPPED, FAMILIES, IPTABLES, NOBODY, REFUSED, Side
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
ALL = {"server-here", "server-next", "server-last"}
EVERYBODY = (CLIENT, HOST, OUTSIDE)
EXTERNAL = ("198.51.100.1", "2001:db8:198::1")
BALANCED = ("203.0.113.1", "2001:db8:203::1")
PROXIED = ("203.0.113.9", "2001:db8:203::9")


def test_a_node_port_is_reached_from_pods_from_the_node_and_from_outside(stage: Stage) -> None:
    service = stage.service("nodeport", SERVERS, type="NodePort")
    stage.expect(EVERYBODY, service.node(), ALL)
    stage.expect(EVERYBODY, service.node("udp"), ALL, do="udp")
    others = {side.name: next(s for s in stage.sides if s.name == side.at("next")) for side in stage.sides}
    number = service.node_port()
    stage.expect((CLIENT, HOST), lambda side, family: (others[side.name].address(family), number), ALL)


def test_a_node_port_changes_its_protocol_and_is_released(stage: Stage) -> None:
    service = stage.service("protocol", SERVERS, type="NodePort", ports=[HTTP])
    where, number = service.node(), service.node_port()
    stage.expect(EVERYBODY, where, ALL)
    service.patch({"spec": {"ports": [{**HTTP, "protocol": "UDP", "nodePort": number}]}})
    stage.expect(EVERYBODY, where, ALL, do="udp")
    stage.expect(EVERYBODY, where, {REFUSED})
    service.delete()
    service.deleted()
    stage.expect(EVERYBODY, where, {REFUSED}, do="udp")
    again = stage.service("again", SERVERS, type="NodePort", ports=[{**HTTP, "nodePort": number}])
    stage.expect(EVERYBODY, again.node(), ALL)


def test_a_node_port_on_the_loopback_address_is_there_where_kube_proxy_had_it(stage: Stage) -> None:
    """In iptables mode, for IPv4; the migrated node had kube-proxy in nftables mode, which has none."""
    number = stage.service("loopback", SERVERS, type="NodePort").node_port()

    def answers(side: Side) -> set[str]:
        return ALL if side.proxy == IPTABLES else {REFUSED}

    stage.expect(HOST, at("127.0.0.1", "::1", number), answers, families=[4])
    stage.expect(HOST, at("127.0.0.1", "::1", number), {REFUSED}, families=[6])


def test_an_external_address_that_no_node_has_is_served(stage: Stage) -> None:
    service = stage.service("external", SERVERS, externalIPs=EXTERNAL)
    stage.expect(EVERYBODY, at(*EXTERNAL, 80), ALL)
    stage.expect(EVERYBODY, at(*EXTERNAL, 81), ALL, do="udp")
    service.patch({"spec": {"externalIPs": None}})
    stage.expect(EVERYBODY, at(*EXTERNAL, 80), NOBODY, every=False)


def test_a_load_balancers_address_is_served_and_one_that_proxies_is_not(stage: Stage) -> None:
    service = stage.service("balanced", SERVERS, type="LoadBalancer")
    vip = [{"ip": BALANCED[0], "ipMode": "VIP"}, {"ip": BALANCED[1]}]
    service.balance(
        [*vip, *({"ip": ip, "ipMode": "Proxy"} for ip in PROXIED), {"hostname": "lb.example.com"}]
    )
    stage.expect(EVERYBODY, at(*BALANCED, 80), ALL)
    stage.expect(EVERYBODY, at(*BALANCED, 81), ALL, do="udp")
    stage.expect(EVERYBODY, at(*PROXIED, 80), NOBODY, every=False)
    stage.expect(EVERYBODY, service.node(), ALL)


def test_a_load_balancer_may_do_without_node_ports(stage: Stage) -> None:
    service = stage.service("portless", SERVERS, type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    service.balance([{"ip": ip} for ip in BALANCED])
    assert not any("nodePort" in port for port in service.item["spec"]["ports"])
    stage.expect(EVERYBODY, at(*BALANCED, 80), ALL)


def test_a_service_has_one_family_or_both(stage: Stage) -> None:
    for family in FAMILIES:
        families = [f"IPv{family}"]
        service = stage.service(
            f"single-{family}", SERVERS, type="NodePort", ipFamilyPolicy="SingleStack", ipFamilies=families
        )
        address = service.item["spec"]["clusterIPs"]
        assert len(address) == 1
        stage.expect((CLIENT, HOST), at(address[0], address[0], 80), ALL, families=[family])
        stage.expect(EVERYBODY, service.node(), ALL, families=[family])
        stage.expect(EVERYBODY, service.node(), {REFUSED}, families=[10 - family])


def test_source_ranges_hold_for_the_load_balancers_address_and_for_nothing_else(stage: Stage) -> None:
    outside = [f"{stage.lab.plan.client4}/32", f" {stage.lab.plan.client6}/128 "]
    pods = ["10.244.0.0/16", "fd00:244::/48"]
    service = stage.service(
        "ranges", SERVERS, type="LoadBalancer", externalIPs=EXTERNAL, loadBalancerSourceRanges=outside
    )
    service.balance([{"ip": ip} for ip in BALANCED])
    stage.expect(OUTSIDE, at(*BALANCED, 80), ALL)
    stage.expect((CLIENT, HOST), at(*BALANCED, 80), {DROPPED})
    stage.expect((CLIENT, HOST), at(*BALANCED, 81), {DROPPED}, do="udp")
    for where in (service.node(), at(*EXTERNAL, 80)):
        stage.expect(EVERYBODY, where, ALL)
    service.patch({"spec": {"loadBalancerSourceRanges": pods}})
    stage.expect(CLIENT, at(*BALANCED, 80), ALL)
    stage.expect(OUTSIDE, at(*BALANCED, 80), {DROPPED})
    service.patch({"spec": {"loadBalancerSourceRanges": ["0.0.0.0/0", "::/0"]}})
    stage.expect(EVERYBODY, at(*BALANCED, 80), ALL)


def test_a_process_of_the_node_may_listen_at_a_port_with_the_number_of_a_node_port(stage: Stage) -> None:
    service = stage.service("bound", SERVERS, type="NodePort", ports=[HTTP])
    stage.expect(EVERYBODY, service.node(), ALL)
    listen = f"import socket; socket.create_server(('', {service.node_port()}))"
    for side in stage.sides:
        side.node.exec(["/usr/bin/python3", "-I", "-c", listen])
