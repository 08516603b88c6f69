"""Packets from outside and from pods to frontends: where they land, whom the backend sees, who answers."""

import errno

import pytest
from handover_agent.table import Backend, FrontendFlags, Protocol, Scope, ip_bytes
from tests.datapath.node import (
    BRIDGES,
    CLIENTS,
    INSIDE,
    LINKS,
    NODES,
    PODS,
    PORT,
    Namespaces,
    text,
)
from tests.datapath.pods import TCP, UDP, VIPS
from tests.datapath.rig import Rig

pytestmark = [pytest.mark.datapath, LINKS]

NODE_PORT = 30080
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
EXTERNAL = Scope.EXTERNAL
MASQUERADE, REFUSE, DROP, SOURCES = (
    FrontendFlags.MASQUERADE,
    FrontendFlags.REFUSE,
    FrontendFlags.DROP,
    FrontendFlags.SOURCES,
)


def at(family: int, *names: str) -> list[Backend]:
    return [Backend(ip_bytes(PODS[name][family]), PORT) for name in names]


def host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


@FAMILIES
@KINDS
@pytest.mark.parametrize("backend", ["b", "c"], ids=["same-node", "other-node"])
def test_a_pod_reaches_a_cluster_ip_and_keeps_its_address(
    net: Namespaces, rig: Rig, family: int, kind: int, backend: str
) -> None:
    vip = VIPS[family][0]
    rig.expose(vip, 80, at(family, backend))
    with net.connect("a", kind, vip, 80) as asking:
        for _ in range(3):
            answer = asking.ask()
            assert answer.server == text(PODS[backend][family], PORT)
            assert answer.client == text(PODS["a"][family], asking.port)
            assert answer.source == text(vip, 80)
    counted = rig.counted()
    assert counted["flow_opened"] == 1
    assert counted["packet_forwarded"] >= 3
    assert counted["packet_restored"] >= 3


@FAMILIES
@KINDS
@pytest.mark.parametrize("backend", ["a", "c"], ids=["same-node", "other-node"])
def test_outside_a_node_port_is_masqueraded(
    net: Namespaces, rig: Rig, family: int, kind: int, backend: str
) -> None:
    """A frontend without an entry of its own for outside has the Cluster policy."""
    rig.expose(NODES[family], NODE_PORT, at(family, backend), MASQUERADE)
    answer = net.ask("client", kind, NODES[family], NODE_PORT)
    assert answer.server == text(PODS[backend][family], PORT)
    assert answer.source == text(NODES[family], NODE_PORT)
    assert host(answer.client) == (BRIDGES if backend == "a" else INSIDE)[family]
    assert 1024 <= int(answer.client.rpartition(":")[2]) <= 29999


@FAMILIES
@KINDS
def test_outside_a_local_policy_keeps_the_source_address(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(NODES[family], NODE_PORT, at(family, "a", "b", "c"), MASQUERADE)
    rig.expose(NODES[family], NODE_PORT, at(family, "b"), scope=EXTERNAL)
    with net.connect("client", kind, NODES[family], NODE_PORT) as asking:
        answer = asking.ask()
        assert answer.server == text(PODS["b"][family], PORT)
        assert answer.client == text(CLIENTS[family], asking.port)
        assert answer.source == text(NODES[family], NODE_PORT)


@FAMILIES
@KINDS
def test_outside_a_cluster_ip_is_masqueraded_though_its_entry_does_not_say_so(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(VIPS[family][0], 80, at(family, "c"))
    answer = net.ask("client", kind, VIPS[family][0], 80)
    assert answer.source == text(VIPS[family][0], 80)
    assert host(answer.client) == INSIDE[family]


@FAMILIES
@KINDS
def test_a_pod_that_uses_the_external_address_short_circuits_the_local_policy(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(NODES[family], NODE_PORT, at(family, "c"))
    rig.expose(NODES[family], NODE_PORT, [], DROP, scope=EXTERNAL)
    with net.connect("a", kind, NODES[family], NODE_PORT) as asking:
        answer = asking.ask()
        assert answer.server == text(PODS["c"][family], PORT)
        assert answer.client == text(PODS["a"][family], asking.port)


@FAMILIES
@KINDS
def test_a_pod_that_reaches_itself_sees_the_node(net: Namespaces, rig: Rig, family: int, kind: int) -> None:
    rig.expose(VIPS[family][0], 80, at(family, "a"))
    with net.connect("a", kind, VIPS[family][0], 80) as asking:
        for _ in range(3):
            answer = asking.ask()
            assert answer.server == text(PODS["a"][family], PORT)
            assert host(answer.client) == BRIDGES[family]
            assert answer.source == text(VIPS[family][0], 80)


@FAMILIES
@KINDS
@pytest.mark.parametrize("machine", ["a", "client"])
def test_a_frontend_without_endpoints_refuses(
    net: Namespaces, rig: Rig, family: int, kind: int, machine: str
) -> None:
    address = VIPS[family][0] if machine == "a" else NODES[family]
    rig.expose(address, 80, [], REFUSE)
    with pytest.raises(ConnectionRefusedError):
        net.ask(machine, kind, address, 80)
    assert rig.counted()["packet_refused"] >= 1


@FAMILIES
@KINDS
@pytest.mark.parametrize("machine", ["a", "client"])
def test_a_port_that_a_cluster_ip_does_not_have_is_refused(
    net: Namespaces, rig: Rig, family: int, kind: int, machine: str
) -> None:
    rig.expose(VIPS[family][0], 80, at(family, "b"))
    rig.refuse_other_ports(VIPS[family][0])
    with pytest.raises(ConnectionRefusedError):
        net.ask(machine, kind, VIPS[family][0], 81)
    assert net.ask(machine, kind, VIPS[family][0], 80).server == text(PODS["b"][family], PORT)


@FAMILIES
@KINDS
def test_a_local_policy_without_a_local_endpoint_drops(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(NODES[family], NODE_PORT, at(family, "c"), MASQUERADE)
    rig.expose(NODES[family], NODE_PORT, [], DROP, scope=EXTERNAL)
    with net.bound("client", family, kind) as asking:
        asking.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asking.socket.connect((NODES[family], NODE_PORT))
            asking.ask()
    counted = rig.counted()
    assert counted["packet_dropped"] >= 1
    assert "flow_opened" not in counted


@FAMILIES
@KINDS
def test_only_admitted_sources_reach_a_load_balancer_that_says_so(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    vip = {4: "203.0.113.7", 6: "2001:db8:7::7"}[family]
    service_id = rig.expose(vip, 80, at(family, "b"), SOURCES)
    rig.admit(service_id - 1, CLIENTS[family], 128)  # of another Service
    with net.bound("client", family, kind) as asking:
        asking.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asking.socket.connect((vip, 80))
            asking.ask()
    assert rig.counted()["packet_source_dropped"] >= 1
    rig.admit(service_id, CLIENTS[family], 120)
    assert net.ask("client", kind, vip, 80).source == text(vip, 80)
    with net.bound("a", family, kind) as pod:
        pod.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            pod.socket.connect((vip, 80))
            pod.ask()


@KINDS
def test_the_protocol_is_part_of_a_frontend(net: Namespaces, rig: Rig, kind: int) -> None:
    """UDP has another Service at the same port."""
    vip = VIPS[4][0]
    rig.expose(vip, 80, at(4, "b"), protocols=[Protocol.TCP])
    rig.expose(vip, 80, at(4, "c"), protocols=[Protocol.UDP])
    assert net.ask("a", kind, vip, 80).server == text(PODS["b" if kind == TCP else "c"][4], PORT)


@FAMILIES
@KINDS
def test_a_backend_at_a_host_port_of_the_node_answers_as_the_frontend(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    server = net.serve("node", kind, NODES[family], 9090)
    rig.expose(VIPS[family][0], 80, [Backend(ip_bytes(NODES[family]), 9090)])
    for machine in ("client", "a"):
        answer = net.ask(machine, kind, VIPS[family][0], 80)
        assert (answer.server, answer.source) == (text(NODES[family], 9090), text(VIPS[family][0], 80))
    net.stop(server)


@FAMILIES
@KINDS
def test_direct_connections_are_left_alone(net: Namespaces, rig: Rig, family: int, kind: int) -> None:
    rig.expose(VIPS[family][0], 80, at(family, "b"))
    for machine, backend in (("a", "b"), ("a", "c"), ("client", "a"), ("b", "a")):
        answer = net.ask(machine, kind, PODS[backend][family], PORT)
        assert answer.source == answer.server == text(PODS[backend][family], PORT)
    counted = rig.counted()
    assert counted["packet_not_a_frontend"] >= 4
    assert not {"flow_opened", "packet_forwarded", "packet_restored"} & set(counted)
    assert rig.flows() == []


@FAMILIES
@KINDS
def test_new_flows_are_left_alone_while_none_are_accepted_and_known_ones_go_on(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    vip = VIPS[family][0]
    rig.expose(vip, 80, at(family, "b"))
    with net.connect("a", kind, vip, 80) as known:
        known.ask()
        rig.datapath.set_accepting(False)
        assert known.ask().source == text(vip, 80)
    with net.bound("a", family, kind) as new:
        new.socket.settimeout(0.2)
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            new.socket.connect((vip, 80))
            new.ask()
    assert rig.counted()["packet_not_accepting"] >= 1


def test_a_connection_from_before_the_programs_is_not_taken_over(net: Namespaces, rig: Rig) -> None:
    """Packets in the middle of a connection without a flow are somebody else's."""
    vip = VIPS[4][0]
    rig.expose(vip, 80, at(4, "b"))
    with net.connect("a", TCP, vip, 80) as connection:
        connection.ask()
        rig.lose_flows()
        rig.counted()
        connection.socket.settimeout(0.3)
        with pytest.raises((TimeoutError, ConnectionError)):
            connection.ask()
        assert "flow_opened" not in rig.counted()
        assert rig.flows() == []


def test_errors_in_the_table_are_counted_and_left_alone(net: Namespaces, rig: Rig) -> None:
    rig.expose(NODES[4], NODE_PORT, [])
    rig.expose(NODES[4], NODE_PORT + 1, at(6, "a"))
    for port, counter in ((NODE_PORT, "error_frontend_empty"), (NODE_PORT + 1, "error_backend_family")):
        with pytest.raises(OSError) as refused:
            net.ask("client", TCP, NODES[4], port)
        assert refused.value.errno == errno.ECONNREFUSED
        assert rig.counted()[counter] == 1
