"""Established connections when the programs go: conntrack translates them from then on, and nobody notices.

In the place of kube-proxy's rules stand some of the test's, which send new connections somewhere else: so a connection
that was not handed over, but begun anew by its next packet, would be seen.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from handover_agent.datapath import Datapath
from handover_agent.entries import Direction
from handover_agent.packetpath import handing
from handover_agent.packetpath.handing import Handed
from handover_agent.table import Backend, FrontendFlags, ip_bytes
from tests.datapath import standing_in
from tests.datapath.node import NODES, PODS, PORT, Connection, Namespaces, links, text
from tests.datapath.pods import TCP, UDP, VIPS
from tests.datapath.rig import Rig
from tests.datapath.standing_in import STREAM_PORT, streams
from tests.datapath.talking import Talk, until
from tests.datapath.test_packets import FAMILIES, KINDS, MASQUERADE, NODE_PORT, at

pytestmark = pytest.mark.datapath

# who asks at which frontend, which backend there is, whether the backend sees the node instead of the client
WAYS = {
    "outside, same node": ("client", "node port", "a", FrontendFlags.NONE),
    "outside, same node, masqueraded": ("client", "node port", "a", MASQUERADE),
    "outside, other node, masqueraded": ("client", "node port", "c", MASQUERADE),
    "outside, ClusterIP": ("client", "vip", "c", FrontendFlags.NONE),
    "pod, same node": ("a", "vip", "b", FrontendFlags.NONE),
    "pod, other node": ("a", "vip", "c", FrontendFlags.NONE),
    "pod, itself": ("a", "vip", "a", FrontendFlags.NONE),
}


@pytest.fixture
def own(loaded: Datapath) -> Datapath:
    return loaded


@pytest.fixture
def net(own_net: Namespaces, own: Datapath) -> Namespaces:
    """The node is served by a datapath of its own."""
    own.attach()
    return own_net


@pytest.fixture
def kube_proxy(net: Namespaces) -> Iterator[None]:
    with standing_in.kube_proxy(net):
        yield


def opened(net: Namespaces, tables: Rig, way: str, family: int, kind: int) -> Connection:
    machine, frontend, backend, flags = WAYS[way]
    address, port = (VIPS[family][0], 80) if frontend == "vip" else (NODES[family], NODE_PORT)
    tables.expose(address, port, at(family, backend), flags)
    return net.connect(machine, kind, address, port)


@links("bare_machines")
@FAMILIES
@KINDS
@pytest.mark.parametrize("way", WAYS)
def test_a_connection_goes_on_when_the_programs_go(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None, way: str, family: int, kind: int
) -> None:
    with opened(net, tables, way, family, kind) as asking:
        peer = asking.peer
        before = [asking.ask() for _ in range(2)]
        own.set_accepting(False)
        own.detach()
        assert [asking.ask() for _ in range(3)] == [before[0]] * 3
        assert before[0] == before[1]
        assert tables.flows() == []
    machine = WAYS[way][0]
    answer = net.ask(machine, kind, *peer)
    assert answer.server == text(PODS["b"][family], PORT), "new connections are kube-proxy's"
    assert "handover-moving" not in net.run("node", "nft", "list", "tables")


@KINDS
def test_many_connections_go_on_while_they_are_used(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None, kind: int
) -> None:
    with ExitStack() as stack:
        asking = [
            stack.enter_context(opened(net, tables, way, 4, kind))
            for way in ("outside, other node, masqueraded", "pod, other node")
            for _ in range(50)
        ]
        before = [each.ask() for each in asking]
        own.set_accepting(False)
        told = handing.to_conntrack(flows(own))
        assert told == Handed(moved=100)
        assert tables.flows() == []
        assert [each.ask() for each in asking] == before
        own.detach()
        assert [each.ask() for each in asking] == before


# who asks, where, which backend there is, whether it sees the node instead of the client
STREAMS: tuple[tuple[str, dict[int, str], int, str, FrontendFlags], ...] = (
    ("client", NODES, 30081, "c", MASQUERADE),
    ("client", NODES, 30082, "b", MASQUERADE),
    ("client", NODES, 30083, "b", FrontendFlags.NONE),
    ("a", {4: VIPS[4][0], 6: VIPS[6][0]}, 81, "c", FrontendFlags.NONE),
    ("a", {4: VIPS[4][0], 6: VIPS[6][0]}, 82, "b", FrontendFlags.NONE),
)


@links("bare_machines")
@FAMILIES
def test_datagrams_that_flow_meanwhile_are_not_lost_and_their_ends_stay(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None, family: int
) -> None:
    with ExitStack() as stack:
        streaming = []
        for machine, pod in (("b", "b"), ("node2", "c")):
            stack.enter_context(streams(net, machine, "serve", PODS[pod][family], STREAM_PORT))
        for machine, addresses, port, pod, flags in STREAMS:
            backend = Backend(ip_bytes(PODS[pod][family]), STREAM_PORT)
            tables.expose(addresses[family], port, [backend], flags)
            opening = streams(net, machine, "ask", addresses[family], port, 30, 0.005)
            streaming.append(stack.enter_context(opening))
        until_opened(tables, 30 * len(STREAMS))
        own.set_accepting(False)
        assert handing.to_conntrack(flows(own)) == Handed(moved=30 * len(STREAMS))
        own.detach()
        for asking in streaming:
            for stream in asking.end():
                stream.require_whole()


def until_opened(tables: Rig, count: int) -> None:
    """Wait until so many flows of datagrams have been answered."""
    deadline = time.monotonic() + 30
    while sum(flow.answered for flow in tables.flows() if flow.direction is Direction.FORWARD) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@FAMILIES
def test_a_flow_whose_backend_spoke_first_as_far_as_conntrack_knows_goes_on(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None, family: int
) -> None:
    """conntrack forgets a flow of datagrams sooner than the programs may: then the backend's next one opens it."""
    tables.expose(VIPS[family][0], 81, [Backend(ip_bytes(PODS["c"][family]), STREAM_PORT)])
    with (
        net.bound("node2", family, UDP, STREAM_PORT, PODS["c"][family]) as server,
        net.connect("a", UDP, VIPS[family][0], 81) as client,
    ):
        client.socket.send(b"question")
        _, seen = server.socket.recvfrom(100)
        net.run("node", "conntrack", "-F")
        server.socket.sendto(b"answer", seen)
        assert client.socket.recv(100) == b"answer"
        own.set_accepting(False)
        assert handing.to_conntrack(flows(own)) == Handed(moved=1)
        own.detach()
        client.socket.send(b"question")
        assert server.socket.recvfrom(100) == (b"question", seen)
        server.socket.sendto(b"answer", seen)
        assert client.socket.recv(100) == b"answer"


def test_connections_in_full_flow_lose_nothing(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(6))
        ways = ("outside, other node, masqueraded", "outside, same node", "pod, other node")
        asking = [stack.enter_context(opened(net, tables, way, 4, TCP)) for way in ways]
        talks = [
            Talk(each, answer, pool)
            for each, answer in zip(asking, [each.ask() for each in asking], strict=True)
        ]
        until(talks, 1000)
        own.set_accepting(False)
        own.detach()
        until(talks, 1000)
        for talk in talks:
            talk.end()


def test_a_port_that_was_changed_because_another_flow_had_it_is_changed_by_conntrack(
    net: Namespaces, own: Datapath, tables: Rig, kube_proxy: None
) -> None:
    tables.expose(VIPS[4][0], 80, at(4, "c"))
    tables.expose(VIPS[4][1], 80, at(4, "c"))
    with (
        net.connect("a", TCP, VIPS[4][0], 80) as first,
        net.connect("a", TCP, VIPS[4][1], 80, from_port=first.port) as second,
    ):
        before = [first.ask(), second.ask()]
        assert before[1].client != text(PODS["a"][4], second.port)
        own.detach()
        assert [first.ask(), second.ask()] == before


def test_flows_that_have_ended_are_not_handed_over(net: Namespaces, own: Datapath, tables: Rig) -> None:
    with opened(net, tables, "pod, other node", 4, TCP) as asking:
        asking.ask()
    deadline = time.monotonic() + 20
    while any(handing.goes_on(flow) for flow in tables.flows()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert tables.flows()
    assert handing.to_conntrack(flows(own)) == Handed()


def test_a_flow_that_conntrack_does_not_know_is_told_of(net: Namespaces, own: Datapath, tables: Rig) -> None:
    with opened(net, tables, "pod, other node", 4, UDP) as asking:
        asking.ask()
        net.run("node", "conntrack", "-F")
        own.set_accepting(False)
        assert handing.to_conntrack(flows(own)) == Handed(unknown=1)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_packet_that_meets_no_entry_is_dropped_by_the_guard_and_starts_none(
    net: Namespaces, own: Datapath, kube_proxy: None, guarded: bool
) -> None:
    own.detach()
    with net.connect("client", TCP, VIPS[4][0], 80) as asking, ExitStack() as stack:
        asking.ask()
        if guarded:
            stack.enter_context(handing.guard())
        net.run("node", "conntrack", "-F")
        if guarded:
            asking.socket.settimeout(1)
        with pytest.raises(TimeoutError if guarded else ConnectionResetError):
            asking.ask()


def test_a_guard_that_was_left_behind_goes_with_the_next(net: Namespaces, own: Datapath, tables: Rig) -> None:
    with opened(net, tables, "pod, other node", 4, TCP) as asking:
        asking.ask()
        guard = handing.guard()
        guard.__enter__()
        assert "handover-moving" in net.run("node", "nft", "list", "tables")
        asking.ask()
        own.detach()
        asking.ask()
        assert "handover-moving" not in net.run("node", "nft", "list", "tables")


def flows(own: Datapath) -> Path:
    return own._pins.maps / "flows"
