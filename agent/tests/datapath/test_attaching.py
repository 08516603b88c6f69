"""Programs on devices, by links and by classic filters: there, swapped, gone, and nobody else's touched."""

import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from handover_agent.bpfsys import ProgramType, obj_get, pin, program_id, program_load
from handover_agent.devices import look
from handover_agent.features import instruction
from handover_agent.packetpath import attaching, switches
from handover_agent.packetpath.attaching import Means
from handover_agent.packetpath.clsact import Clsact
from handover_agent.packetpath.points import Direction, Point
from handover_agent.packetpath.tcx import Tcx
from handover_agent.rtnetlink import NetlinkError
from tests.datapath.settling import Settling
from tests.node.netns import Namespace, Pod, run

pytestmark = pytest.mark.datapath
both_ways = pytest.mark.parametrize("tcx", [True, False], ids=["tcx", "clsact"])

GO_ON, DROP = -1, 2
POD, OTHER = "10.0.0.5", "10.0.0.6"
NAMES = ("from_outside", "from_pod", "outward")
NODE_NAMES = ("from_node", "to_itself")


@dataclass(frozen=True)
class Node:
    """A namespace with a pod, a directory in a bpffs, and programs that drop and that do not."""

    namespace: Namespace
    pod: Pod
    directory: Path
    settle: Settling

    def programs(self, name: str) -> Path:
        return self.directory / name

    def point(self, direction: Direction = Direction.INGRESS, name: str = "pod1") -> Point:
        return Point(socket.if_nametoindex(name), direction)

    def heard(self, sent: int = 1) -> int:
        """How many of the pod's datagrams arrive at the node. Nothing is lost between namespaces."""
        with self.pod.inside.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("", 7000))
            for _ in range(sent):
                sender.sendto(b"x", ("169.254.1.1", 7000))
            self.settle()
            receiver.setblocking(False)
            for count in range(sent + 1):
                try:
                    receiver.recv(1)
                except BlockingIOError:
                    return count
        raise AssertionError("more arrived than was sent")


@pytest.fixture
def node(bpffs: Path, settle: Settling) -> Iterator[Node]:
    directory = bpffs / "attaching"
    directory.mkdir()
    for name, verdict in (("passing", GO_ON), ("dropping", DROP)):
        (directory / name).mkdir()
        code = instruction(0xB7, dst=0, imm=verdict) + instruction(0x95)
        for program in NAMES:
            with program_load(ProgramType.SCHED_CLS, 0, code, program) as loaded:
                pin(loaded.fd, directory / name / program)
    namespace = Namespace()
    with namespace.entered():
        yield Node(namespace, Pod(namespace, "pod1", (POD, "fd00::5")), directory, settle)
        attaching.detach(directory / "devices")
    namespace.close()
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()


def qdiscs(kind: str) -> list[str]:
    return [each["dev"] for each in json.loads(run("tc", "-j", "qdisc", "show")) if each["kind"] == kind]


def made(node: Node, tcx: bool) -> Means:
    return attaching.means(node.directory / "devices", tcx)


def program(path: Path) -> int:
    with obj_get(path) as opened:
        return program_id(opened.fd)


@both_ways
def test_a_program_runs_until_it_is_swapped_or_detached(node: Node, tcx: bool) -> None:
    how, point = made(node, tcx), node.point()
    assert node.heard() == 1
    how.attach(point, node.programs("dropping") / "from_pod")
    assert (node.heard(), how.attached()) == (0, {point: program(node.programs("dropping") / "from_pod")})
    how.attach(point, node.programs("passing") / "from_pod")
    assert (node.heard(), how.attached()) == (1, {point: program(node.programs("passing") / "from_pod")})
    how.attach(point, node.programs("dropping") / "from_pod")
    how.detach(point)
    how.detach(point)
    assert (node.heard(), how.attached(), qdiscs("clsact")) == (1, {}, [])
    assert not list((node.directory / "devices").iterdir())


@both_ways
def test_no_packet_slips_through_while_a_program_is_swapped(node: Node, tcx: bool) -> None:
    how, point = made(node, tcx), node.point()
    how.attach(point, node.programs("dropping") / "from_pod")
    with node.pod.inside.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 7000))
        with sending(sender):
            for n in range(300):
                how.attach(point, node.programs("dropping") / NAMES[n % 3])
        node.settle()
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


@contextmanager
def sending(sender: socket.socket) -> Iterator[None]:
    """Datagrams without pause, from another thread."""
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            sender.sendto(b"x", ("169.254.1.1", 7000))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@both_ways
def test_every_device_gets_what_it_needs_and_follows_its_role(node: Node, tcx: bool) -> None:
    how, programs = made(node, tcx), node.programs("passing")
    outer = Namespace()
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "up0", "netns", outer.path)
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
    assert attaching.align(how, programs, look()) == []
    outward, from_pod, from_outside = (
        program(programs / name) for name in ("outward", "from_pod", "from_outside")
    )
    expected = {
        node.point(Direction.INGRESS): from_pod,
        node.point(Direction.EGRESS): outward,
        node.point(Direction.INGRESS, "eth0"): from_outside,
        node.point(Direction.EGRESS, "eth0"): outward,
    }
    assert relevant(how) == expected
    run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
    pod2 = Pod(node.namespace, "pod2", (OTHER, "fd00::6"))
    attaching.align(how, programs, look())
    expected[node.point(Direction.INGRESS, "eth0")] = from_pod
    expected |= {
        node.point(Direction.INGRESS, "pod2"): from_pod,
        node.point(Direction.EGRESS, "pod2"): outward,
    }
    assert relevant(how) == expected
    assert attaching.running(node.directory / "devices") == how.attached()
    run("ip", "link", "del", "pod2")
    run("ip", "link", "set", "eth0", "netns", outer.path)
    attaching.align(how, programs, look())
    assert {point.index for point in relevant(how)} == {node.point().index}
    left = {path.name.partition("-")[0] for path in (node.directory / "devices").iterdir()}
    assert left == {str(point.index) for point in how.attached()}
    attaching.detach(node.directory / "devices")
    assert (how.attached(), qdiscs("clsact")) == ({}, [])
    assert not list((node.directory / "devices").iterdir())
    pod2.inside.close()
    outer.close()


@both_ways
def test_the_loopback_device_is_served_and_lets_in_what_comes_back(node: Node, tcx: bool) -> None:
    how, programs = made(node, tcx), node.directory / "newer"
    programs.mkdir()
    code = instruction(0xB7, dst=0, imm=GO_ON) + instruction(0x95)
    for name in (*NAMES, *NODE_NAMES):
        with program_load(ProgramType.SCHED_CLS, 0, code, name) as loaded:
            pin(loaded.fd, programs / name)
    before = lo_switches()
    assert before == {"accept_local": 0, "route_localnet": 0}
    at = node.point(Direction.EGRESS, "lo")
    for _ in range(2):
        assert attaching.align(how, programs, look()) == []
        assert how.attached()[at] == program(programs / "to_itself")
        assert Point(at.index, Direction.INGRESS) not in how.attached()
        assert lo_switches() == {"accept_local": 1, "route_localnet": 1}
    attaching.detach(node.directory / "devices", (Direction.INGRESS,))
    assert (at in how.attached(), lo_switches()["accept_local"]) == (True, 1)
    # What cannot stand there, like before Linux 5.10, has nothing to let in.
    assert attaching.align(how, node.programs("passing"), look()) == []
    assert (at in how.attached(), lo_switches()) == (False, before)
    attaching.align(how, programs, look())
    attaching.detach(node.directory / "devices")
    assert (how.attached(), qdiscs("clsact"), lo_switches()) == ({}, [], before)
    assert not list((node.directory / "devices").iterdir())


def test_switches_that_were_on_stay_on(node: Node) -> None:
    run("sysctl", "-qw", "net.ipv4.conf.lo.accept_local=1")
    for _ in range(2):
        switches.turn_on(node.directory / "devices")
    assert lo_switches() == {"accept_local": 1, "route_localnet": 1}
    for _ in range(2):
        switches.restore(node.directory / "devices")
        assert lo_switches() == {"accept_local": 1, "route_localnet": 0}


@both_ways
def test_a_number_that_another_device_had_before_is_no_hindrance(node: Node, tcx: bool) -> None:
    how, programs = made(node, tcx), node.programs("dropping")
    run("ip", "link", "add", "first", "index", "4711", "type", "veth", "peer", "name", "firstpeer")
    point = node.point(name="first")
    how.attach(point, programs / "from_pod")
    run("ip", "link", "del", "first")
    assert how.attached() == {}
    run("ip", "link", "add", "second", "index", "4711", "type", "veth", "peer", "name", "secondpeer")
    assert how.attached() == {}
    how.attach(point, programs / "from_pod")
    assert how.attached() == {point: program(programs / "from_pod")}


def test_filters_and_qdiscs_of_others_stay(node: Node) -> None:
    how, point = Clsact(node.directory / "devices"), node.point()
    run("tc", "qdisc", "add", "dev", "pod1", "clsact")
    how.attach(point, node.programs("passing") / "from_pod")
    how.detach(point)
    assert qdiscs("clsact") == ["pod1"], "it was there before us"
    run("tc", "qdisc", "del", "dev", "pod1", "clsact")

    how.attach(point, node.programs("dropping") / "from_pod")
    theirs = ("tc", "filter", "add", "dev", "pod1", "egress", "prio", "7", "protocol", "all")
    run(*theirs, "bpf", "da", "object-pinned", str(node.programs("passing") / "outward"))
    before = run("tc", "filter", "show", "dev", "pod1", "egress")
    how.detach(point)
    assert qdiscs("clsact") == ["pod1"], "somebody uses the qdisc that we made"
    assert run("tc", "filter", "show", "dev", "pod1", "egress") == before
    assert (how.attached(), node.heard()) == ({}, 1)


def test_a_filter_of_somebody_elses_in_our_place_is_not_taken_for_ours(node: Node) -> None:
    how, point = Clsact(node.directory / "devices"), node.point()
    run("tc", "qdisc", "add", "dev", "pod1", "clsact")
    theirs = (
        "tc",
        "filter",
        "add",
        "dev",
        "pod1",
        "ingress",
        "prio",
        "23",
        "handle",
        "0x68616e64",
        "protocol",
    )
    run(*theirs, "all", "bpf", "da", "object-pinned", str(node.programs("dropping") / "from_pod"))
    assert how.attached() == {}
    how.detach(point)
    assert node.heard() == 0


def test_a_shaped_port_has_room_for_a_link_and_none_for_a_filter(node: Node) -> None:
    run("tc", "qdisc", "add", "dev", "pod1", "ingress")
    programs = node.programs("dropping")
    problems = attaching.align(Clsact(node.directory / "devices"), programs, look())
    assert len(problems) == 1
    assert f"device {node.point().index}: its qdisc `ingress` leaves no room" in problems[0]
    assert attaching.align(Tcx(node.directory / "devices"), programs, look()) == []
    assert node.heard() == 0


def test_a_device_without_its_way_out_does_not_get_its_way_in(node: Node) -> None:
    class Failing(Tcx):
        def attach(self, point: Point, program: Path) -> None:
            if point.direction is Direction.EGRESS:
                raise NetlinkError(errno.EBUSY, "attach")
            super().attach(point, program)

    how = Failing(node.directory / "devices")
    assert "pod1: attach: Device or resource busy" in attaching.align(how, node.programs("passing"), look())
    assert how.attached() == {}


def lo_switches() -> dict[str, int]:
    return {name: int(run("sysctl", "-n", f"net.ipv4.conf.lo.{name}")) for name in switches.SWITCHES}


def relevant(how: Means) -> dict[Point, int]:
    """Without what the kernel puts into each new namespace."""
    named = {name: index for index, name in socket.if_nameindex()}
    return {
        point: program
        for point, program in how.attached().items()
        if point.index not in {named.get("gretap0"), named.get("erspan0")}
    }
