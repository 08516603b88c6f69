"""The datapath on a node with devices: they are served from the rung Serving on, and followed."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent import devices, features
from handover_agent.datapath import Datapath, DatapathState, NotAttached
from handover_agent.devices import reading
from handover_agent.layout import map_specs
from handover_agent.packetpath import attaching
from handover_agent.packetpath.points import Direction, Point
from tests.datapath.killing import killed_at
from tests.datapath.test_lifecycle import ABSENT, SMALL, as_version
from tests.node.netns import Namespace, Pod, run

pytestmark = [pytest.mark.datapath, pytest.mark.usefixtures("no_compiler")]
KERNELS = {"gretap0", "erspan0", "ip6gretap0", "ip6erspan0"}
"""What the kernel puts into each new namespace."""
LOOPBACK = 1
both_ways = pytest.mark.parametrize("tcx", [True, False], ids=["tcx", "clsact"])


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    made = Namespace()
    with made.entered():
        monkeypatch.setattr(
            devices, "look", lambda: [place for place in reading.look() if place.device.name not in KERNELS]
        )
        Pod(made, "pod1", ("10.0.0.5", "fd00::5"))
        yield made
    made.close()


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tcx = getattr(request.node, "callspec", None) is None or request.node.callspec.params.get("tcx", True)
    monkeypatch.setattr(features, "tcx", lambda: tcx)


def points(*names: str) -> set[Point]:
    """Of these devices, and of the loopback device, which has a program for what the node sends to itself."""
    found = {Point(socket.if_nametoindex(name), direction) for name in names for direction in Direction}
    return {*found, Point(LOOPBACK, Direction.EGRESS)}


def served(bpffs: Path) -> set[Point]:
    return set(attaching.running(bpffs / "own" / "devices"))


@both_ways
def test_devices_are_served_from_attach_to_detach(
    node: Namespace, own: Datapath, bpffs: Path, tcx: bool
) -> None:
    own.load()
    own.follow()
    assert served(bpffs) == set()
    own.attach()
    assert served(bpffs) == points("pod1")
    own.set_accepting(False)
    own.follow()
    assert served(bpffs) == points("pod1"), "what is known goes on"
    own.detach()
    own.follow()
    assert served(bpffs) == set()
    own.attach()
    own.unload()
    assert (served(bpffs), own.state()) == (set(), ABSENT)
    assert "clsact" not in run("tc", "qdisc", "show")
    assert not (bpffs / "own").exists()


@both_ways
def test_pods_that_come_and_go_are_followed(node: Namespace, own: Datapath, bpffs: Path, tcx: bool) -> None:
    own.load()
    own.attach()
    Pod(node, "pod2", ("10.0.0.6", "fd00::6"))
    own.follow()
    assert served(bpffs) == points("pod1", "pod2")
    run("ip", "link", "del", "pod1")
    own.follow()
    assert served(bpffs) == points("pod2")
    left = {path.name.partition("-")[0] for path in (bpffs / "own" / "devices").iterdir()}
    assert left <= {str(socket.if_nametoindex("pod2")), str(LOOPBACK), "lo"}


@both_ways
def test_an_upgrade_swaps_the_programs_on_devices_too(
    node: Namespace, own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch, tcx: bool
) -> None:
    own.load()
    own.attach()
    before = attaching.running(bpffs / "own" / "devices")
    as_version(monkeypatch, "newer")
    own.load()
    after = attaching.running(bpffs / "own" / "devices")
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    assert own.state() == DatapathState(True, True, True, "newer")


def test_an_upgrade_that_was_killed_before_it_came_to_the_devices_is_finished(
    node: Namespace,
    own: Datapath,
    bpffs: Path,
    monkeypatch: pytest.MonkeyPatch,
    only_order_matters: None,
) -> None:
    as_version(monkeypatch, "older")
    own.load()
    own.attach()
    as_version(monkeypatch, "newer")
    change = 0
    while killed_at(change, own.load):
        assert own.state().attached
        assert own.state().accepting
        assert served(bpffs) == points("pod1")
        change += 1
    assert own.state().version == "newer"
    assert change > 20


@both_ways
def test_killed_at_any_point_of_attach_and_unload_the_next_run_goes_on(
    node: Namespace, own: Datapath, bpffs: Path, only_order_matters: None, tcx: bool
) -> None:
    own.load_maps(map_specs(SMALL))
    change, killed = 0, True
    while killed:
        killed = killed_at(change, own.attach)
        assert not own.state().accepting or served(bpffs) == points("pod1")
        own.attach()
        assert served(bpffs) == points("pod1")
        own.detach()
        change += 3
    change, killed = 0, True
    while killed:
        own.load_maps(map_specs(SMALL))
        own.attach()
        killed = killed_at(change, own.unload)
        own.unload()
        assert served(bpffs) == set()
        assert "clsact" not in run("tc", "qdisc", "show")
        assert not (bpffs / "own").exists()
        change += 3


def test_nothing_new_is_accepted_while_a_device_is_left_out(
    node: Namespace, own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "tcx", lambda: False)
    run("tc", "qdisc", "add", "dev", "pod1", "ingress")
    own.load()
    with pytest.raises(
        NotAttached, match=r"1 devices are not served.*pod1: .*qdisc `ingress` leaves no room"
    ):
        own.attach()
    assert own.state() == DatapathState(True, True, False, own.state().version)
    run("tc", "qdisc", "del", "dev", "pod1", "ingress")
    own.attach()
    assert own.state().accepting
    Pod(node, "pod2", ("10.0.0.6", "fd00::6"))
    run("tc", "qdisc", "add", "dev", "pod2", "ingress")
    with pytest.raises(NotAttached):
        own.follow()
    assert own.state().accepting, "all others go on"


def test_where_nobody_else_serves_all_others_are_served_without_a_device_that_is_left_out(
    node: Namespace, own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "tcx", lambda: False)
    Pod(node, "pod2", ("10.0.0.6", "fd00::6"))
    run("tc", "qdisc", "add", "dev", "pod1", "ingress")
    own.load()
    with pytest.raises(NotAttached, match=r"pod1"):
        own.attach(alone=True)
    assert own.state().accepting
    assert served(bpffs) == points("pod2")
    next(iter((bpffs / "own" / "links").iterdir())).unlink()  # somebody takes a hook away
    assert not own.state().attached
    with pytest.raises(NotAttached, match=r"pod1"):
        own.attach(alone=True)
    assert own.state().accepting


def test_filters_go_also_when_the_pins_were_lost(
    node: Namespace, own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "tcx", lambda: False)
    own.load()
    own.attach()
    for path in sorted((bpffs / "own").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (bpffs / "own").rmdir()
    assert served(bpffs) == points("pod1")
    own.unload()
    assert served(bpffs) == set()
