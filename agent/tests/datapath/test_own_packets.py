"""What the node itself sends to a frontend past the socket path: its sockets here are in no cgroup of ours."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from handover_agent.table import Backend, FrontendFlags, ip_bytes, ip_text
from tests.datapath import frames
from tests.datapath.frames import icmp_error, ip, udp
from tests.datapath.node import INSIDE, LINKS, NODES, PODS, PORT, Namespaces, family_of, text
from tests.datapath.pods import TCP, UDP, VIPS
from tests.datapath.rig import Rig

pytestmark = [pytest.mark.datapath, LINKS]

NODE_PORT = 30080
NOBODY = 9999
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
ADDRESSES = pytest.mark.parametrize(
    "at", [{family: VIPS[family][0] for family in (4, 6)}, NODES], ids=["cluster-ip", "node-port"]
)
BACKENDS = pytest.mark.parametrize("backend", ["b", "c"], ids=["same-node", "other-node"])


def at_pods(family: int, *names: str) -> list[Backend]:
    return [Backend(ip_bytes(PODS[name][family]), PORT) for name in names]


@contextmanager
def filtering(net: Namespaces, reverse_path: int) -> Iterator[None]:
    """With a reverse path filter of IPv4 on every device of the node: 1 is strict, 2 is loose."""
    name = "net.ipv4.conf.all.rp_filter"
    before = net.run("node", "sysctl", "-n", name).strip()
    net.run("node", "sysctl", "-qw", f"{name}={reverse_path}")
    yield
    net.run("node", "sysctl", "-qw", f"{name}={before}")


@FAMILIES
@KINDS
@BACKENDS
def test_the_node_reaches_a_cluster_ip(
    net: Namespaces, rig: Rig, family: int, kind: int, backend: str
) -> None:
    vip = VIPS[family][0]
    rig.expose(vip, 80, at_pods(family, backend))
    with net.connect("node", kind, vip, 80) as asking:
        for _ in range(3):
            answer = asking.ask()
            assert answer.server == text(PODS[backend][family], PORT)
            assert answer.source == text(vip, 80)
            # By the address that the route to the frontend has; from a port that direct connections never have.
            host, _, port = answer.client.rpartition(":")
            assert host.strip("[]") == NODES[family]
            assert int(port) >= 61000
    counted = rig.counted()
    assert (counted["flow_opened"], counted["packet_restored"] >= 3) == (1, True)


@pytest.mark.parametrize("reverse_path", [0, 1, 2])
@KINDS
@BACKENDS
def test_reverse_path_filters_let_the_answers_in(
    net: Namespaces, rig: Rig, reverse_path: int, kind: int, backend: str
) -> None:
    vip = VIPS[4][0]
    rig.expose(vip, 80, at_pods(4, backend))
    with filtering(net, reverse_path), net.connect("node", kind, vip, 80) as asking:
        for _ in range(3):
            assert asking.ask().source == text(vip, 80)


@FAMILIES
@KINDS
def test_the_node_reaches_a_load_balancer_that_admits_it(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    vip = {4: "203.0.113.7", 6: "2001:db8:7::7"}[family]
    service_id = rig.expose(vip, 80, at_pods(family, "b"), FrontendFlags.SOURCES)
    with net.bound("node", family, kind) as asking:
        asking.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asking.socket.connect((vip, 80))
            asking.ask()
    rig.admit(service_id, NODES[family], 128)
    assert net.ask("node", kind, vip, 80).source == text(vip, 80)


@FAMILIES
@KINDS
def test_a_local_policy_without_a_local_endpoint_drops(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(VIPS[family][0], 80, [], FrontendFlags.DROP)
    with net.bound("node", family, kind) as asking:
        asking.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asking.socket.connect((VIPS[family][0], 80))
            asking.ask()
    assert rig.counted()["packet_dropped"] >= 1


@FAMILIES
@KINDS
@pytest.mark.parametrize("reverse_path", [0, 1])
@ADDRESSES
def test_what_has_no_endpoint_is_refused(
    net: Namespaces,
    rig: Rig,
    family: int,
    kind: int,
    reverse_path: int,
    at: dict[int, str],
) -> None:
    address = at[family]
    rig.expose(address, NODE_PORT, [], FrontendFlags.REFUSE)
    with filtering(net, reverse_path), pytest.raises(ConnectionRefusedError):
        net.ask("node", kind, address, NODE_PORT)
    assert rig.counted()["packet_refused"] == 1


@FAMILIES
@BACKENDS
@pytest.mark.parametrize("size", [8000, 60000])
def test_large_datagrams_of_the_node_are_answered(
    net: Namespaces, rig: Rig, family: int, backend: str, size: int
) -> None:
    rig.expose(VIPS[family][0], 80, at_pods(family, backend))
    with net.connect("node", UDP, VIPS[family][0], 80) as asking:
        for _ in range(3):
            answer = asking.ask(size)
            assert (answer.size, answer.source) == (size, text(VIPS[family][0], 80))


@FAMILIES
@BACKENDS
def test_the_node_is_told_of_a_closed_port(net: Namespaces, rig: Rig, family: int, backend: str) -> None:
    rig.expose(VIPS[family][0], 80, [Backend(ip_bytes(PODS[backend][family]), NOBODY)])
    for kind in (TCP, UDP):
        with pytest.raises(ConnectionRefusedError):
            net.ask("node", kind, VIPS[family][0], 80)
    assert rig.counted()["packet_error_restored"] == 1


@FAMILIES
@pytest.mark.parametrize("reverse_path", [0, 1])
def test_a_narrow_path_to_the_backend_is_found_out(
    net: Namespaces, rig: Rig, family: int, reverse_path: int
) -> None:
    vip = VIPS[family][0]
    rig.expose(vip, 80, at_pods(family, "c"))
    with filtering(net, reverse_path), net.connect("node", UDP, vip, 80) as asking:
        host, _, port = asking.ask().client.rpartition(":")
        host = host.strip("[]")
        about = ip(frames.UDP, host, PODS["c"][family], udp(int(port), PORT, b"?"))
        error = icmp_error(PODS["c"][family], host, about, *((3, 4) if family == 4 else (2, 0)), value=1300)
        with net.inside("node2"), socket.socket(family_of(vip), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(error, (host, 0))
        net.settle()
        assert "mtu 1300" in net.run("node", "ip", "route", "get", vip)
    assert rig.counted()["packet_error_restored"] == 1
    net.run("node", "ip", "-6" if family == 6 else "-4", "route", "flush", "cache")


@FAMILIES
@KINDS
def test_the_nodes_direct_connections_are_left_alone(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(VIPS[family][0], 80, at_pods(family, "c"))
    with net.connect("node", kind, VIPS[family][0], 80) as through:
        through.ask()
        rig.counted()
        for backend in "bc":
            with net.connect("node", kind, PODS[backend][family], PORT) as direct:
                answer = direct.ask()
                assert answer.source == answer.server == text(PODS[backend][family], PORT)
                assert answer.client.endswith(f":{direct.port}")
        assert through.ask().source == text(VIPS[family][0], 80)
        assert "flow_opened" not in rig.counted()


@FAMILIES
@KINDS
def test_a_direct_connection_from_the_port_of_a_flow_gets_its_answers(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    """Where the node's own ports were widened beyond 61000 (net.ipv4.ip_local_port_range)."""
    rig.expose(VIPS[family][0], 80, at_pods(family, "c"))
    with net.connect("node", kind, VIPS[family][0], 80) as through:
        port = int(through.ask().client.rpartition(":")[2])
        with net.bound("node", family, kind, port, NODES[family]) as direct:
            direct.socket.connect((PODS["c"][family], PORT))
            answer = direct.ask()
            assert answer.source == answer.server == text(PODS["c"][family], PORT)
            assert not answer.client.endswith(f":{port}"), "that one is taken"
            assert through.ask().source == text(VIPS[family][0], 80)
    assert rig.counted()["flow_direct_changed"] == 1


@FAMILIES
@KINDS
def test_new_flows_of_the_node_are_left_alone_while_none_are_accepted(
    net: Namespaces, rig: Rig, family: int, kind: int
) -> None:
    rig.expose(VIPS[family][0], 80, at_pods(family, "b"))
    with net.connect("node", kind, VIPS[family][0], 80) as known, net.bound("node", family, kind) as new:
        known.ask()
        rig.datapath.set_accepting(False)
        assert known.ask().source == text(VIPS[family][0], 80)
        new.socket.settimeout(0.2)
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            new.socket.connect((VIPS[family][0], 80))
            new.ask()
    assert rig.counted()["packet_not_accepting"] >= 1


@FAMILIES
@KINDS
def test_a_backend_on_the_node_itself(net: Namespaces, rig: Rig, family: int, kind: int) -> None:
    server = net.serve("node", kind, INSIDE[family], 9090)
    rig.expose(VIPS[family][0], 80, [Backend(ip_bytes(INSIDE[family]), 9090)])
    with net.connect("node", kind, VIPS[family][0], 80) as asking:
        for _ in range(3):
            answer = asking.ask()
            assert (answer.server, answer.source) == (text(INSIDE[family], 9090), text(VIPS[family][0], 80))
    assert rig.counted()["node_to_itself"] >= 3
    net.stop(server)


@FAMILIES
@KINDS
@BACKENDS
def test_the_nodes_own_node_port(net: Namespaces, rig: Rig, family: int, kind: int, backend: str) -> None:
    rig.expose(NODES[family], NODE_PORT, at_pods(family, backend), FrontendFlags.MASQUERADE)
    with net.connect("node", kind, NODES[family], NODE_PORT) as asking:
        for _ in range(3):
            answer = asking.ask()
            assert answer.server == text(PODS[backend][family], PORT)
            assert answer.source == text(NODES[family], NODE_PORT)


@pytest.fixture
def strict_firewall(net: Namespaces) -> Iterator[None]:
    """A firewall of the node's that drops what conntrack can make nothing of, wherever it looks."""
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; ct state invalid counter drop; }}\n"
        for hook in ("input", "output", "forward", "prerouting", "postrouting")
    )
    net.run("node", "nft", f"table inet strict {{ {chains} }}")
    yield
    net.run("node", "nft", "delete table inet strict")


@FAMILIES
@KINDS
@pytest.mark.parametrize("reverse_path", [0, 1, 2])
@ADDRESSES
@pytest.mark.parametrize("where", ["b", "c", "node"])
def test_conntrack_understands_what_it_sees(
    net: Namespaces,
    rig: Rig,
    strict_firewall: None,
    family: int,
    kind: int,
    reverse_path: int,
    at: dict[int, str],
    where: str,
) -> None:
    vip = at[family]
    server = net.serve("node", kind, INSIDE[family], 9090)
    rig.expose(
        vip,
        NODE_PORT,
        [Backend(ip_bytes(INSIDE[family]), 9090)] if where == "node" else at_pods(family, where),
        FrontendFlags.MASQUERADE,
    )
    with filtering(net, reverse_path), net.connect("node", kind, vip, NODE_PORT) as asking:
        for _ in range(5):
            assert asking.ask().source == text(vip, NODE_PORT)
    net.stop(server)


@FAMILIES
@pytest.mark.parametrize("where", ["b", "c", "node"])
@pytest.mark.parametrize("size", [8000, 60000])
def test_datagrams_larger_than_the_way_to_the_backend_takes(
    net: Namespaces, rig: Rig, family: int, where: str, size: int
) -> None:
    """To its own address, the node sends them whole."""
    net.ip("node", ["route flush cache"])
    server = net.serve("node", UDP, INSIDE[family], 9090)
    backends = [Backend(ip_bytes(INSIDE[family]), 9090)] if where == "node" else at_pods(family, where)
    rig.expose(NODES[family], NODE_PORT, backends, FrontendFlags.MASQUERADE)
    if where != "node":  # who sends a large one is told, and sends it in pieces from then on; by IPv4
        with pytest.raises(OSError, match="too long"):
            net.ask("node", UDP, NODES[family], NODE_PORT, size)
    if where == "node" or family == 4:
        for _ in range(3):
            answer = net.ask("node", UDP, NODES[family], NODE_PORT, size)
            assert (answer.size, answer.source) == (size, text(NODES[family], NODE_PORT))
    assert not any(name.startswith("error_") for name in rig.counted())
    net.stop(server)


@FAMILIES
@KINDS
@pytest.mark.parametrize("local", [{4: "127.0.0.1", 6: "::1"}, NODES], ids=["loopback", "own-address"])
def test_what_the_node_sends_to_its_own_servers_is_left_alone(
    net: Namespaces, rig: Rig, family: int, kind: int, local: dict[int, str]
) -> None:
    """Large segments, large datagrams, many of them."""
    rig.expose(NODES[family], NODE_PORT, at_pods(family, "b"), FrontendFlags.MASQUERADE)
    server = net.serve("node", kind, local[family], 9090)
    with net.connect("node", kind, local[family], 9090) as asking:
        for size in (2, 1500, 9000, 60000) * 5:
            answer = asking.ask(size)
            assert answer.source == answer.server == text(local[family], 9090)
            assert answer.client == text(local[family], asking.port)
            assert kind == TCP or answer.size == max(size, len(f"{answer.server} {answer.client} "))
    net.stop(server)
    counted = rig.counted()
    assert "flow_opened" not in counted
    assert not any(name.startswith("error_") for name in counted)


LOCALHOST = "127.0.0.1"


@KINDS
@pytest.mark.parametrize("reverse_path", [0, 1, 2])
@pytest.mark.parametrize("where", ["b", "c", "node"])
def test_a_node_port_of_the_loopback_address(
    net: Namespaces, rig: Rig, strict_firewall: None, kind: int, reverse_path: int, where: str
) -> None:
    server = net.serve("node", kind, INSIDE[4], 9090)
    backends = [Backend(ip_bytes(INSIDE[4]), 9090)] if where == "node" else at_pods(4, where)
    rig.expose(LOCALHOST, NODE_PORT, backends, FrontendFlags.MASQUERADE)
    rig.be_known_as(NODES[4])
    with filtering(net, reverse_path), net.connect("node", kind, LOCALHOST, NODE_PORT) as asking:
        for _ in range(4):
            answer = asking.ask()
            assert answer.source == text(LOCALHOST, NODE_PORT)
            assert answer.server == text(ip_text(backends[0].address), backends[0].port)
            assert answer.client.rpartition(":")[0] == NODES[4]
    net.stop(server)
    assert not any(name.startswith("error_") for name in rig.counted())


@pytest.mark.parametrize("where", ["b", "c", "node"])
def test_large_datagrams_to_a_node_port_of_the_loopback_address(
    net: Namespaces, rig: Rig, where: str
) -> None:
    server = net.serve("node", UDP, INSIDE[4], 9090)
    backends = [Backend(ip_bytes(INSIDE[4]), 9090)] if where == "node" else at_pods(4, where)
    rig.expose(LOCALHOST, NODE_PORT, backends, FrontendFlags.MASQUERADE)
    rig.be_known_as(NODES[4])
    net.ip("node", ["route flush cache"])
    if where != "node":
        with pytest.raises(OSError, match="too long"):
            net.ask("node", UDP, LOCALHOST, NODE_PORT, 9000)
    for _ in range(3):
        answer = net.ask("node", UDP, LOCALHOST, NODE_PORT, 9000)
        assert (answer.size, answer.source) == (9000, text(LOCALHOST, NODE_PORT))
    net.ip("node", ["route flush cache"])
    net.stop(server)


@KINDS
@BACKENDS
def test_the_loopback_address_is_told_of_a_closed_port(
    net: Namespaces, rig: Rig, kind: int, backend: str
) -> None:
    rig.expose(LOCALHOST, NODE_PORT, [Backend(ip_bytes(PODS[backend][4]), NOBODY)])
    rig.be_known_as(NODES[4])
    with pytest.raises(ConnectionRefusedError):
        net.ask("node", kind, LOCALHOST, NODE_PORT)


@KINDS
def test_without_an_address_of_its_own_the_node_port_of_the_loopback_address_is_left_alone(
    net: Namespaces, rig: Rig, kind: int
) -> None:
    rig.expose(LOCALHOST, NODE_PORT, at_pods(4, "b"), FrontendFlags.MASQUERADE)
    rig.be_known_as("0.0.0.0")
    with pytest.raises(ConnectionRefusedError):  # by the node: nobody listens there
        net.ask("node", kind, LOCALHOST, NODE_PORT)
    assert rig.counted()["node_loopback_left"] == 1


@FAMILIES
def test_a_backend_without_a_route_is_an_error(net: Namespaces, rig: Rig, family: int) -> None:
    nowhere = {4: "10.255.255.1", 6: "fd00:255::1"}[family]
    rig.expose(VIPS[family][0], 80, [Backend(ip_bytes(nowhere), 80)])
    with net.no_way("node", nowhere), net.bound("node", family, UDP) as asking:
        asking.socket.sendto(b"?", (VIPS[family][0], 80))
        assert rig.counted()["error_node_no_way"] == 1
