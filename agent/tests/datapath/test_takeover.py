"""Maps of an older layout are taken over while connections of every kind go on, and being killed there does no harm."""

import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handover_agent import bpffs as bpffs_module
from handover_agent import bpfmap, bpfsys, enlarging, features, layout, layouts, loader, takeover
from handover_agent.bpffs import LayoutMismatch, Pins
from handover_agent.datapath import Datapath, DatapathState
from handover_agent.entries import unpack_flow
from handover_agent.layout import LAYOUT, Sizes, counter_names, map_specs, pack_index, sum_counter
from handover_agent.layouts import Shape, Step
from handover_agent.loader import LoadFailed
from handover_agent.packetpath import attaching
from handover_agent.packetpath.points import Point
from tests.datapath import killing, older, taking_over
from tests.datapath.compiling import compiled_once
from tests.datapath.killing import killed_at
from tests.datapath.node import NODES, Namespaces
from tests.datapath.pods import TCP, Pod, backends
from tests.datapath.rig import SIZES, Rig
from tests.datapath.taking_over import PACKET_VIP, SOCKET_VIP, serve, settled, take_over
from tests.datapath.talking import Asking, Talk, until
from tests.datapath.test_packets import NODE_PORT

pytestmark = [pytest.mark.datapath, pytest.mark.usefixtures("no_compiler")]

BACKEND = "192.0.2.11:8080"
MOVED = ("reverse", "forward", "sockets", "affinity", "flows")
SAME = ("backends", "counters", "fragments", "sources", "clients")


@pytest.fixture(scope="module")
def older_compiled(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    sources = tmp_path_factory.mktemp("older")
    older.older_sources(sources)
    return compiled_once(pytestconfig, sources, inspect.getsource(older))


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "STEPS", (older.STEP,))


@pytest.fixture
def net(own_net: Namespaces) -> Namespaces:
    return own_net


@pytest.fixture
def serving(own: Datapath, net: Namespaces, older_compiled: dict[str, bytes], bpffs: Path) -> Datapath:
    """The older programs serve."""
    serve(own, older.as_older(older_compiled), older.specs(SIZES))
    return own


def test_connections_of_every_kind_go_on_and_new_ones_are_served_all_the_time(
    serving: Datapath, net: Namespaces, own_pod: Pod, bpffs: Path
) -> None:
    taking_over.go_on_and_are_served(serving, net, own_pod, bpffs)


def test_what_looks_the_same_is_the_very_same_map_and_all_else_is_carried_over(
    serving: Datapath, net: Namespaces, own_pod: Pod, bpffs: Path
) -> None:
    udp = own_pod.udp()
    chosen = udp.ask(SOCKET_VIP)
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        said = asking.ask()
        before = entries(bpffs / "own" / "maps-1")
        counted = counters(bpffs / "own" / "maps-1")
        same = {name: map_id(bpffs / "own" / "maps-1" / name) for name in SAME}
        take_over(serving)
        assert {name: map_id(bpffs / "own" / f"maps-{LAYOUT}" / name) for name in SAME} == same
        after = entries(bpffs / "own" / f"maps-{LAYOUT}")
        assert {name: len(before[name]) for name in MOVED} == {name: len(after[name]) for name in MOVED}
        for name in MOVED:
            converter = older.STEP.changed.get(name) or (lambda key, value: (key, value))
            wanted = dict(converter(key, value) for key, value in before[name].items())
            assert after[name].keys() == wanted.keys()
        assert len(after["flows"]) == 2
        assert {unpack_flow(*each).answered for each in after["flows"].items()} == {True}
        assert asking.ask() == said
        assert udp.ask(SOCKET_VIP) == chosen
        assert serving.counters()["packet_forwarded"] > counted["packet_forwarded"] > 0
    assert len(after["frontends"]) == len(before["frontends"])


def entries(maps: Path) -> dict[str, dict[bytes, bytes]]:
    found = {}
    for name in ("frontends", *MOVED):
        with bpfsys.obj_get(maps / name) as opened:
            info = bpfmap.map_info(opened.fd)
            found[name] = {
                key: bpfmap.lookup(opened.fd, key, info.value_bytes) or b""
                for key in bpfmap.keys(opened.fd, info.key_bytes)
            }
    return found


def counters(maps: Path) -> dict[str, int]:
    with bpfsys.obj_get(maps / "counters") as opened:
        length = 8 * bpfmap.possible_cpus()
        return {
            name: sum_counter(bpfmap.lookup(opened.fd, pack_index(index), length) or b"")
            for index, name in enumerate(counter_names())
        }


def map_id(path: Path) -> int:
    with bpfsys.obj_get(path) as opened:
        return int.from_bytes(bpfsys.object_info(opened.fd, 80)[4:8], "little")


@pytest.mark.parametrize("tcx", [True, False], ids=["tcx", "clsact"])
def test_the_second_row_stands_behind_the_first_and_is_gone_afterwards(
    own: Datapath,
    net: Namespaces,
    older_compiled: dict[str, bytes],
    bpffs: Path,
    monkeypatch: pytest.MonkeyPatch,
    tcx: bool,
) -> None:
    monkeypatch.setattr(features, "tcx", lambda: tcx)
    rows: list[tuple[set[Point], set[Point]]] = []
    really = takeover.change_over

    def look(older: Path, newer: Path) -> None:
        first = attaching.running(bpffs / "own" / "devices")
        rows.append((set(first), set(attaching.running(bpffs / "own" / "next" / "devices", behind=True))))
        really(older, newer)

    monkeypatch.setattr(takeover, "change_over", look)
    serve(own, older.as_older(older_compiled), older.specs(SIZES))
    qdiscs = net.run("node", "tc", "qdisc", "show")
    with ExitStack() as stack, net.connect("client", TCP, NODES[4], NODE_PORT) as talking:
        pool = stack.enter_context(ThreadPoolExecutor(4))
        talk = Talk(talking, talking.ask(), pool)
        asking = Asking(net, "a", PACKET_VIP, 80, pool)
        until([talk], 500)
        take_over(own)
        until([talk], 500)
        asking.end()
        talk.end()
    [(first, behind)] = rows
    assert first == behind
    assert len(first) >= 8
    settled(own, bpffs)
    assert net.run("node", "tc", "qdisc", "show") == qdiscs
    assert attaching.running(bpffs / "own" / "devices").keys() == first
    own.unload()
    assert "clsact" not in net.run("node", "tc", "qdisc", "show")


def test_the_same_layout_is_not_copied_and_the_next_load_does_nothing(
    serving: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over(serving)
    before = {path.name: map_id(path) for path in (bpffs / "own" / f"maps-{LAYOUT}").iterdir()}
    monkeypatch.setattr(takeover, "prepare", lambda *_: pytest.fail("there is nothing to take over"))
    take_over(serving)
    monkeypatch.setattr(loader, "version", lambda: "newer")
    take_over(serving)
    settled(serving, bpffs)
    assert {path.name: map_id(path) for path in (bpffs / "own" / f"maps-{LAYOUT}").iterdir()} == before


def test_maps_that_grew_are_taken_over_as_large_as_they_are(
    serving: Datapath, older_compiled: dict[str, bytes], net: Namespaces, bpffs: Path
) -> None:
    with older.as_older(older_compiled):
        with serving.maps() as maps:
            frontends = maps.read_frontends()
        monkey = Sizes(frontends=512, backends=1024, sockets=4096, affinity=1024, flows=8192, sources=128)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(enlarging, "map_specs", older.specs)
            larger = serving.make_larger(monkey)
        with larger:
            larger.write_frontends(frontends)
            larger.write_backends(1, [*backends(4)])
            serving.take_larger()
    take_over(serving)
    settled(serving, bpffs)
    assert (serving.sizes().frontends, serving.sizes().backends) == (512, 1024)
    with serving.maps() as maps:
        assert maps.read_frontends() == frontends


def test_what_is_loaded_and_not_attached_is_taken_over_too(
    own: Datapath, older_compiled: dict[str, bytes], own_pod: Pod, bpffs: Path
) -> None:
    with older.as_older(older_compiled):
        own.load_maps(older.specs(SIZES))
        with Rig(own) as rig:
            rig.serve(SOCKET_VIP, backends(4, (0,)))
    take_over(own)
    assert own.state() == DatapathState(True, False, False, own.wanted_version())
    assert not own.unsettled
    own.attach()
    assert own_pod.tcp(SOCKET_VIP).answer() == BACKEND


def test_where_new_connections_are_left_to_others_they_still_are_and_sockets_keep_their_backends(
    serving: Datapath, net: Namespaces, own_pod: Pod
) -> None:
    socket = own_pod.udp()
    chosen = socket.ask(SOCKET_VIP)
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        said = asking.ask()
        serving.set_accepting(False)
        assert serving.state().accepting is False
        take_over(serving)
        assert serving.state() == DatapathState(True, True, False, serving.wanted_version())
        assert asking.ask() == said
        assert socket.ask(SOCKET_VIP) == chosen
        assert serving.remembered.translated() == 1
        assert own_pod.tcp(SOCKET_VIP).answer() == f"{SOCKET_VIP}:80"


def test_sockets_that_are_closed_while_they_are_moved_leave_nothing_behind(
    serving: Datapath, own_pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = [own_pod.udp() for _ in range(12)]
    for socket in sockets:
        socket.ask(SOCKET_VIP)
    left = list(sockets)
    for name in ("add", "take"):
        really = getattr(bpfmap, name)

        def closing(*arguments: Any, really: Callable[..., Any] = really) -> Any:
            done = really(*arguments)
            if left:
                left.pop().close()
            return done

        monkeypatch.setattr(bpfmap, name, closing)
    take_over(serving)
    assert not left
    assert serving.remembered.translated() == 0
    with bpfsys.obj_get(serving._pins.maps / "forward") as forward:
        assert not list(bpfmap.keys(forward.fd, 32))


def test_an_entry_that_changes_while_it_is_moved_arrives_as_it_was_at_last(
    serving: Datapath, net: Namespaces, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        asking.ask()
        really = bpfmap.add

        def changing(fd: int, key: bytes, value: bytes) -> bool:
            done = really(fd, key, value)
            with bpfsys.obj_get(bpffs / "own" / "maps-1" / "flows") as flows:
                for found in list(bpfmap.keys(flows.fd, 44)):
                    old = bpfmap.lookup(flows.fd, found, 56) or b""
                    bpfmap.update(flows.fd, found, old[:43] + b"\x01\x01\x01\x01\x01" + old[48:])
            return done

        monkeypatch.setattr(bpfmap, "add", changing)
        take_over(serving)
        flows = [unpack_flow(*each) for each in entries(bpffs / "own" / f"maps-{LAYOUT}")["flows"].items()]
        assert [(flow.client_finished, flow.confused) for flow in flows] == [(True, True)] * 2


def test_connections_are_handed_over_when_the_older_programs_are_removed(
    serving: Datapath, net: Namespaces, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rule = "type nat hook postrouting priority 100; ct status dnat masquerade"
    net.run("node", "nft", f"table inet theirs {{ chain m {{ {rule}; }}; }}")
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        said = asking.ask()
        serving.set_accepting(False)
        serving.unload()
        assert [record.__dict__["moved"] for record in caplog.records if "handed" in record.message] == [1]
        assert asking.ask() == said
    net.run("node", "nft", "delete table inet theirs")


@pytest.mark.parametrize("found", ["999", "0", "1"])
def test_a_layout_without_a_way_from_it_is_refused_and_nothing_is_changed(
    serving: Datapath, net: Namespaces, bpffs: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(layouts, "STEPS", ())
    (bpffs / "own" / "maps-1").rename(bpffs / "own" / f"maps-{found}")
    before = pinned(bpffs)
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        said = asking.ask()
        with pytest.raises(LayoutMismatch, match=f"have layout {found}, this agent has layout {LAYOUT}"):
            take_over(serving)
        assert pinned(bpffs) == before
        assert serving.state() == DatapathState(True, True, True, "older")
        assert asking.ask() == said
        assert net.ask("client", TCP, NODES[4], NODE_PORT).source == said.source
        serving.set_accepting(False)
        assert serving.state().accepting is False
        serving.unload()  # nothing of it stays, all the same
    assert not (bpffs / "own").exists()


def test_maps_that_are_not_what_their_layout_says_are_refused(
    serving: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = dict(older.STEP.shapes) | {"flows": Shape(9, 44, 60)}
    monkeypatch.setattr(layouts, "STEPS", (replace(older.STEP, shapes=shapes),))
    before = pinned(bpffs)
    with pytest.raises(LayoutMismatch, match="its flows is of type 9 with keys of 44 and values of 56 bytes"):
        take_over(serving)
    assert pinned(bpffs) == before


def test_an_entry_that_cannot_be_expressed_is_found_before_anything_is_changed(
    serving: Datapath, bpffs: Path
) -> None:
    with bpfsys.obj_get(bpffs / "own" / "maps-1" / "flows") as flows:
        bpfmap.update(flows.fd, bytes(36) + b"\xff\xff" + bytes(6), bytes(56))
    before = pinned(bpffs)
    with pytest.raises(LayoutMismatch, match="an entry of flows: protocol 65535 is not one of a byte"):
        take_over(serving)
    assert pinned(bpffs) == before
    assert serving.state() == DatapathState(True, True, True, "older")


def test_programs_that_do_not_load_change_nothing(
    serving: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LoadFailed("no")

    before = pinned(bpffs)
    with monkeypatch.context() as patch:
        patch.setattr(loader, "load_programs", fail)
        with pytest.raises(LoadFailed):
            take_over(serving)
    assert pinned(bpffs) == before
    assert serving.state() == DatapathState(True, True, True, "older")
    take_over(serving)
    settled(serving, bpffs)


def pinned(bpffs: Path) -> set[str]:
    root = bpffs / "own"
    return {str(path.relative_to(root)) for path in root.rglob("*")} - {"loading"}


def test_killed_at_any_change_the_next_load_finishes_it_or_undoes_it_first(
    own: Datapath,
    net: Namespaces,
    own_pod: Pod,
    older_compiled: dict[str, bytes],
    bpffs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killing.only_order_matters(monkeypatch, real=("from_outside", "from_node"))
    change, committed, killed = 0, 0, True
    while killed:
        own.unload()
        monkeypatch.setattr(loader, "version", lambda: "newer")
        serve(own, older.as_older(older_compiled), older.specs(SIZES))
        socket = own_pod.udp()
        chosen = socket.ask(SOCKET_VIP)
        with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
            said = asking.ask()
            while killed := killed_at(change, lambda: take_over(own)):
                state = own.state()
                assert (state.loaded, state.attached, state.accepting) == (True, True, True)
                assert asking.ask() == said
                assert socket.ask(SOCKET_VIP) == chosen
                assert net.ask("client", TCP, NODES[4], NODE_PORT).source == said.source
                assert own_pod.tcp(SOCKET_VIP).answer() == chosen
                if Pins(bpffs / "own").maps.exists():
                    committed += 1
                    change = change - BEFORE + 1 if committed == 1 else change + AFTER[committed > CLOSELY]
                    break  # what was not committed is undone by the next attempt
                change += 1 if committed else BEFORE
            if change % 2:
                monkeypatch.setattr(loader, "version", lambda: "further")  # of the same layout
            take_over(own)
            settled(own, bpffs)
            assert asking.ask() == said
            assert socket.ask(SOCKET_VIP) == chosen
            assert net.ask("client", TCP, NODES[4], NODE_PORT).source == said.source
            assert own_pod.tcp(SOCKET_VIP).answer() == chosen
            socket.close()
    assert change > 150
    assert committed > 10


BEFORE, AFTER, CLOSELY = 7, (1, 3), 12
"""From one kill to the next: of about 170 changes before the commit, of about 50 after it, of which the first ones say
who accepts new connections. Those that were jumped over when the commit was passed are gone through as well.
"""


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_agent_of_a_further_layout_finishes_first_what_was_begun(
    serving: Datapath, net: Namespaces, own_pod: Pod, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = own_pod.udp()
    chosen = socket.ask(SOCKET_VIP)
    with net.connect("client", TCP, NODES[4], NODE_PORT) as asking:
        said = asking.ask()
        with monkeypatch.context() as patch:
            patch.setattr(takeover, "finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                take_over(serving)
        assert list(Pins(bpffs / "own").layouts) == ["1", str(LAYOUT)]
        shapes = {spec.name: Shape(spec.type, spec.key_bytes, spec.value_bytes) for spec in map_specs(SIZES)}
        further = Step(LAYOUT, LAYOUT + 1, shapes, {"flows": lambda key, value: (key, value)})
        monkeypatch.setattr(layouts, "STEPS", (older.STEP, further))
        for module in (bpffs_module, layout, takeover):
            monkeypatch.setattr(module, "LAYOUT", LAYOUT + 1)
        monkeypatch.setattr(loader, "version", lambda: "further")
        take_over(serving)
        assert serving.state() == DatapathState(True, True, True, "further")
        assert not serving.unsettled
        assert list(Pins(bpffs / "own").layouts) == [str(LAYOUT + 1)]
        assert asking.ask() == said
        assert socket.ask(SOCKET_VIP) == chosen
