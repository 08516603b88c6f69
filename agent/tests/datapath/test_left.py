"""Datagrams of clients that kube-proxy served before the programs came: their flows stay conntrack's, and whole.

In the place of kube-proxy's rules stand some of the test's, which know pod b; the programs' table has another backend.
So a flow that changes hands would be seen by who answers.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from handover_agent.datapath import Datapath
from handover_agent.entries import FlowFlags
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes
from tests.datapath import standing_in
from tests.datapath.node import NODES, PODS, PORT, Connection, Namespaces, text
from tests.datapath.pods import UDP, VIPS
from tests.datapath.rig import Rig
from tests.datapath.standing_in import STREAM_PORT, streams
from tests.datapath.test_packets import FAMILIES, MASQUERADE, NODE_PORT, at

pytestmark = [pytest.mark.datapath, pytest.mark.usefixtures("kube_proxy")]
WAYS = pytest.mark.parametrize("machine", ["client", "a"], ids=["outside", "pod"])


@pytest.fixture
def own(loaded: Datapath) -> Datapath:
    return loaded


@pytest.fixture
def net(own_net: Namespaces) -> Namespaces:
    """The programs are loaded, and nowhere attached."""
    return own_net


@pytest.fixture
def tables(tables: Rig) -> Rig:
    """All that the programs know is pod c."""
    for family in (4, 6):
        tables.expose(VIPS[family][0], 80, at(family, "c"))
        tables.expose(NODES[family], NODE_PORT, at(family, "c"), MASQUERADE)
    return tables


@pytest.fixture
def kube_proxy(net: Namespaces) -> Iterator[None]:
    with standing_in.kube_proxy(net, "b", f"udp dport 81 dnat ip to {PODS['b'][4]}:{STREAM_PORT};"):
        yield


def client(net: Namespaces, machine: str, family: int) -> Connection:
    address, port = (NODES[family], NODE_PORT) if machine == "client" else (VIPS[family][0], 80)
    return net.connect(machine, UDP, address, port)


def left(tables: Rig) -> int:
    return sum(bool(flow.flags & FlowFlags.LEFT) for flow in tables.flows())


@WAYS
@FAMILIES
def test_an_older_flow_stays_with_its_backend_and_a_new_one_is_ours(
    net: Namespaces, own: Datapath, tables: Rig, machine: str, family: int
) -> None:
    with client(net, machine, family) as older:
        before = older.ask()
        assert before.server == text(PODS["b"][family], PORT)
        own.attach()
        assert [older.ask() for _ in range(3)] == [before] * 3
        assert tables.counted()["packet_left"] == 3
        with client(net, machine, family) as newer:
            assert newer.ask().server == text(PODS["c"][family], PORT)
        assert older.ask() == before


@WAYS
def test_so_does_one_that_began_while_the_programs_stood_ready(
    net: Namespaces, own: Datapath, tables: Rig, machine: str
) -> None:
    own.attach()
    own.set_accepting(False)
    with client(net, machine, 4) as asking:
        before = asking.ask()
        assert before.server == text(PODS["b"][4], PORT)
        own.set_accepting(True)
        assert [asking.ask() for _ in range(3)] == [before] * 3
        own.remembered.keep_left()
        (flow,) = tables.flows()
        assert flow.other == Backend(ip_bytes(PODS["b"][4]), PORT), "conntrack told"
        assert [asking.ask() for _ in range(3)] == [before] * 3


def test_what_conntrack_has_forgotten_is_ours(net: Namespaces, own: Datapath, tables: Rig) -> None:
    with client(net, "client", 4) as asking:
        asking.ask()
        own.attach()
        assert left(tables) == 1
        net.run("node", "conntrack", "-F")
        own.remembered.keep_left()
        assert left(tables) == 0
        assert asking.ask().server == text(PODS["c"][4], PORT)


def test_before_nothing_keeps_it_translating_all_are_ours(
    net: Namespaces, own: Datapath, tables: Rig
) -> None:
    with client(net, "client", 4) as asking:
        asking.ask()
        own.attach()
        own.remembered.forget_left()
        assert asking.ask().server == text(PODS["c"][4], PORT)
        own.remembered.keep_left()
        assert asking.ask().server == text(PODS["c"][4], PORT), "what is ours stays ours"


def test_a_client_of_a_backend_that_serves_no_more_is_ours(
    net: Namespaces, own: Datapath, tables: Rig
) -> None:
    serving = {FrontendKey(ip_bytes(NODES[4]), NODE_PORT, Protocol.UDP): frozenset(at(4, "c"))}
    with client(net, "client", 4) as asking:
        asking.ask()
        own.attach()
        assert own.remembered.forget_udp_flows(serving) == 1
        own.remembered.keep_left(serving)
        assert asking.ask().server == text(PODS["c"][4], PORT)


def test_an_error_about_an_older_flow_is_conntracks(net: Namespaces, own: Datapath, tables: Rig) -> None:
    """A client that is gone says so, and its backend hears of it."""
    with net.bound("b", 4, UDP, STREAM_PORT, PODS["b"][4]) as server:
        with net.connect("client", UDP, NODES[4], 81) as asking:
            tables.expose(NODES[4], 81, [Backend(ip_bytes(PODS["c"][4]), STREAM_PORT)])
            asking.socket.send(b"question")
            said, seen = server.socket.recvfrom(100)
            own.attach()
            server.socket.connect(seen)
        server.socket.send(b"answer")
        with pytest.raises(ConnectionRefusedError):
            server.socket.recv(100)
    assert said == b"question"
    assert "packet_error_forwarded" not in tables.counted()


def test_on_the_way_down_it_needs_nothing(net: Namespaces, own: Datapath, tables: Rig) -> None:
    with client(net, "client", 4) as asking:
        before = asking.ask()
        own.attach()
        assert asking.ask() == before
        own.detach()
        assert [asking.ask() for _ in range(3)] == [before] * 3
        own.attach()
        assert [asking.ask() for _ in range(3)] == [before] * 3


def test_datagrams_that_flow_meanwhile_are_not_lost_and_their_ends_stay(
    net: Namespaces, own: Datapath, tables: Rig
) -> None:
    with ExitStack() as stack:
        stack.enter_context(streams(net, "b", "serve", PODS["b"][4], STREAM_PORT))
        tables.expose(NODES[4], 81, [Backend(ip_bytes(PODS["c"][4]), STREAM_PORT)], MASQUERADE)
        tables.expose(VIPS[4][0], 81, [Backend(ip_bytes(PODS["c"][4]), STREAM_PORT)])
        asking = [
            stack.enter_context(streams(net, machine, "ask", address, 81, 30, 0.005))
            for machine, address in (("client", NODES[4]), ("a", VIPS[4][0]))
        ]
        deadline = time.monotonic() + 30
        while net.run("node", "conntrack", "-L", "-p", "udp").count(" dport=81 ") < 60:
            assert time.monotonic() < deadline
        own.attach()
        for each in asking:
            for stream in each.end():
                stream.require_whole()
