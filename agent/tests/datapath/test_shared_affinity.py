"""Session affinity is one for what a client sends by sockets and for what it sends past them.

The sockets that the packet path serves here are in no cgroup of ours; a `Pod` is, in the same network namespace.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from handover_agent import netns
from handover_agent.datapath import Datapath
from handover_agent.entries import Client
from handover_agent.layout import LAYOUT, Sizes, map_specs
from handover_agent.loader.abilities import Abilities, places
from handover_agent.table import Backend, FrontendFlags, Scope, ip_bytes
from tests.datapath import frames
from tests.datapath.compiling import pin_packet_programs
from tests.datapath.frames import SYN, ethernet, ip, tcp, udp
from tests.datapath.node import CLIENTS, NODES, PODS, PORT, Namespaces, family_of
from tests.datapath.pods import TCP, UDP, VIPS, Pod
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

AFFINITY, SOURCES = FrontendFlags.AFFINITY, FrontendFlags.SOURCES
BALANCERS = {4: "203.0.113.7", 6: "2001:db8:7::7"}
HOUR_S = 3600
SERVICES = 24
"""So many choices of one of two backends agree by chance once in 10^7 runs."""
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
ORDERS = pytest.mark.parametrize("sockets_first", [True, False], ids=["socket-first", "packet-first"])
_TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}


@pytest.fixture(scope="session")
def reading_programs(bpffs: Path, shared_datapath: Datapath, packet_compiled: dict[str, bytes]) -> Path:
    """The packet path's programs as kernels before 6.15 run them: they read a namespace out of the socket."""
    abilities = Abilities(True, False, *places())
    assert abilities.net_in_socket and abilities.cookie_in_net
    pin_packet_programs(packet_compiled, bpffs / "shared", bpffs / "reading", abilities)
    return bpffs / "reading"


def attach(machines: Namespaces, programs: Path) -> None:
    for device in ("port-a", "port-b"):
        machines.attach("node", device, programs / "from_pod", None)
    machines.attach("node", "out0", programs / "from_outside", programs / "from_node")


@pytest.fixture(params=["told", "read"])
def both(request: pytest.FixtureRequest, net: Namespaces, packet_programs: Path) -> Iterator[Namespaces]:
    """The machines; the kernel tells the programs a packet's namespace, or they read it."""
    if request.param == "read":
        attach(net, request.getfixturevalue("reading_programs"))
    yield net
    if request.param == "read":
        attach(net, packet_programs)


@contextmanager
def process(net: Namespaces, machine: str, cgroup: Path) -> Iterator[Pod]:
    """A process on a machine whose sockets we translate."""
    with Pod(net.name(machine), cgroup) as made:
        yield made


def at(family: int, *names: str) -> list[Backend]:
    return [Backend(ip_bytes(PODS[name][family]), PORT) for name in names]


def by_socket(pod: Pod, address: str) -> str:
    """The backend that a new connection reached, translated when it connected."""
    connection = pod.tcp(address)
    connection.send("?\n")
    server = connection.answer().split()[0]
    connection.close()
    return server


def by_packet(net: Namespaces, machine: str, address: str) -> str:
    """The same, translated packet by packet."""
    return net.ask(machine, TCP, address, 80).server


def cookie(net: Namespaces, machine: str) -> int:
    with net.inside(machine):
        found = netns.own_cookie()
    assert found
    return found


def until_counted(rig: Rig, name: str) -> int:
    """A counter that is about to move, and its movement."""
    deadline = time.monotonic() + 10
    while name not in (counted := rig.counted()):
        assert time.monotonic() < deadline, name
    return counted[name]


@FAMILIES
@ORDERS
@pytest.mark.parametrize("machine", ["a", "node"], ids=["pod", "node"])
def test_one_backend_by_socket_and_by_packet(
    both: Namespaces, rig: Rig, shared_cgroup: Path, family: int, sockets_first: bool, machine: str
) -> None:
    vip = VIPS[family][0]
    rig.counted()
    with process(both, machine, shared_cgroup) as pod:
        for _ in range(SERVICES):
            rig.expose(vip, 80, at(family, "b", "c"), AFFINITY, timeout_s=HOUR_S)
            if sockets_first:
                assert by_socket(pod, vip) == by_packet(both, machine, vip)
            else:
                assert by_packet(both, machine, vip) == by_socket(pod, vip)
    counted = rig.counted()
    assert (counted["connect_translated"], counted["flow_opened"]) == (SERVICES, SERVICES)
    assert (counted["affinity_new"], counted["affinity_kept"]) == (SERVICES, SERVICES)


@FAMILIES
def test_a_load_balancer_with_source_ranges_shares_the_cluster_ips_affinity(
    both: Namespaces, rig: Rig, shared_cgroup: Path, family: int
) -> None:
    vip, balancer = VIPS[family][0], BALANCERS[family]
    with process(both, "a", shared_cgroup) as pod:
        for _ in range(SERVICES):
            service_id = rig.expose(vip, 80, at(family, "b", "c"), AFFINITY, timeout_s=HOUR_S)
            rig.expose(
                balancer,
                80,
                at(family, "b", "c"),
                AFFINITY | SOURCES,
                timeout_s=HOUR_S,
                service_id=service_id,
            )
            rig.admit(service_id, PODS["a"][family], 128)
            assert by_socket(pod, vip) == by_socket(pod, balancer)
    assert rig.counted()["sources_left"] == SERVICES


@FAMILIES
def test_a_raw_sockets_datagram_follows_the_pods_sockets(
    both: Namespaces, rig: Rig, shared_cgroup: Path, family: int
) -> None:
    vip, source = VIPS[family][0], PODS["a"][family]
    with process(both, "a", shared_cgroup) as pod:
        for _ in range(SERVICES):
            rig.expose(vip, 80, at(family, "b", "c"), AFFINITY, timeout_s=HOUR_S)
            reached = pod.udp(family).ask(vip).split()[0]
            rig.counted()
            with both.open("a", family_of(vip), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                raw.sendto(ip(frames.UDP, source, vip, udp(4000, 80, b"?\n")), (vip, 0))
            assert until_counted(rig, "flow_opened") == 1
            (flow,) = (flow for flow in rig.flows() if flow.destination.address == ip_bytes(vip))
            assert str(flow.other) == reached
            rig.forget_packets()


@FAMILIES
def test_the_time_out_is_one_for_both(both: Namespaces, rig: Rig, shared_cgroup: Path, family: int) -> None:
    vip = VIPS[family][0]
    rig.expose(vip, 80, at(family, "b", "c"), AFFINITY, timeout_s=60)
    rig.counted()
    with process(both, "a", shared_cgroup) as pod:
        by_socket(pod, vip)
        rig.age_affinity(50)
        by_packet(both, "a", vip)
        rig.age_affinity(50)
        by_socket(pod, vip)
        counted = rig.counted()
        assert (counted["affinity_new"], counted["affinity_kept"]) == (1, 2)
        rig.age_affinity(61)
        by_packet(both, "a", vip)
        assert rig.counted()["affinity_expired"] == 1


@FAMILIES
def test_another_pod_has_an_affinity_of_its_own(
    both: Namespaces, rig: Rig, shared_cgroup: Path, family: int
) -> None:
    vip = VIPS[family][0]
    service_id = rig.expose(vip, 80, at(family, "b", "c"), AFFINITY, timeout_s=HOUR_S)
    with process(both, "a", shared_cgroup) as pod:
        by_socket(pod, vip)
        by_packet(both, "b", vip)
    clients = {entry.client for entry in rig.stays(service_id)}
    assert clients == {Client(None, cookie(both, "a")), Client(None, cookie(both, "b"))}


@FAMILIES
def test_an_address_that_another_pod_has_now_brings_nothing_with_it(
    both: Namespaces, rig: Rig, family: int
) -> None:
    vip, address = VIPS[family][0], PODS["a"][family]
    service_id = rig.expose(vip, 80, at(family, "c"), AFFINITY, timeout_s=HOUR_S)
    by_packet(both, "a", vip)
    assert rig.addresses()[ip_bytes(address)] == cookie(both, "a")
    rig.counted()
    with both.open("b", family_of(vip), TCP) as other:
        other.setsockopt(*_TRANSPARENT[family], 1)
        other.bind((address, 0))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.connect((vip, 80))
        assert until_counted(rig, "affinity_new") == 1
    clients = {entry.client for entry in rig.stays(service_id)}
    assert clients == {Client(None, cookie(both, "a")), Client(None, cookie(both, "b"))}
    assert rig.addresses()[ip_bytes(address)] == cookie(both, "b")


@FAMILIES
def test_who_sends_frames_is_a_client_by_its_address(both: Namespaces, rig: Rig, family: int) -> None:
    """As a virtual machine does, and gVisor: behind one namespace there may be several."""
    vip, address = VIPS[family][0], PODS["a"][family].removesuffix("2") + "77"
    service_id = rig.expose(vip, 80, at(family, "c"), AFFINITY, timeout_s=HOUR_S)
    rig.counted()
    with both.inside("a"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(ethernet(ip(frames.TCP, address, vip, tcp(4000, 80, SYN))))
    assert until_counted(rig, "affinity_by_address") == 1
    assert [entry.client for entry in rig.stays(service_id)] == [Client(ip_bytes(address), None)]
    assert ip_bytes(address) not in rig.addresses()


@FAMILIES
def test_who_comes_from_outside_is_a_client_by_its_address(both: Namespaces, rig: Rig, family: int) -> None:
    """Though between namespaces of one machine, as here, its packets have their socket."""
    service_id = rig.expose(
        NODES[family], 30080, at(family, "a", "b"), AFFINITY, Scope.EXTERNAL, timeout_s=HOUR_S
    )
    both.ask("client", TCP, NODES[family], 30080)
    assert [entry.client for entry in rig.stays(service_id)] == [Client(ip_bytes(CLIENTS[family]), None)]
    assert ip_bytes(CLIENTS[family]) not in rig.addresses()


@FAMILIES
def test_a_pods_address_is_noted_when_its_kernel_opens_a_connection_to_anywhere(
    both: Namespaces, rig: Rig, family: int
) -> None:
    rig.forget_addresses()
    source, anybody = PODS["a"][family], PODS["c"][family]
    with both.open("a", family_of(anybody), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        forged = PODS["a"][family].removesuffix("2") + "78"
        raw.sendto(ip(frames.TCP, forged, anybody, tcp(4000, PORT, SYN)), (anybody, 0))
    assert until_counted(rig, "packet_not_a_frontend")
    both.ask("a", UDP, anybody, PORT)
    assert rig.addresses() == {}
    both.ask("a", TCP, anybody, PORT)
    assert rig.addresses() == {ip_bytes(source): cookie(both, "a")}


def test_noted_addresses_are_forgotten_when_there_are_many_and_when_nobody_looks_any_more(
    own: Datapath, no_compiler: None, bpffs: Path
) -> None:
    own.remembered.forget_addresses()  # nothing is there yet
    small = dict.fromkeys(
        ("frontends", "backends", "sockets", "affinity", "flows", "fragments", "sources"), 64
    )
    own.load_maps(map_specs(Sizes(**small, clients=8)))
    with Rig(own, bpffs / "own" / f"maps-{LAYOUT}") as rig:
        for room in (5, 6):
            rig.note_addresses({bytes(15) + bytes([i]): i for i in range(room)})
            own.remembered.forget_addresses()
            assert len(rig.addresses()) == (5 if room == 5 else 0)
        rig.note_addresses({bytes(16): 1})
        own.detach(answers=lambda: None)
        assert rig.addresses() == {}
