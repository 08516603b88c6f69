"""Maps are replaced by larger ones while connections come and go; being killed in the middle of it does no harm."""

from pathlib import Path

import pytest
from handover_agent import bpfmap, bpfsys, enlarging, layout, loader
from handover_agent.bpffs import Pins
from handover_agent.datapath import Datapath, DatapathState, NotLoaded
from handover_agent.layout import Sizes, map_specs
from handover_agent.reconcile import Reconciler
from handover_agent.table import Entry, FrontendKey, Table
from tests.datapath.killing import killed_at
from tests.datapath.pods import TCP, UDP, VIPS, Pod, backends, frontend
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

VIP, OTHER = VIPS[4][0], VIPS[4][1]
BACKEND = "192.0.2.11:8080"
SMALL = Sizes(
    frontends=64, backends=64, sockets=64, affinity=64, flows=64, fragments=64, sources=64, clients=64
)
LARGE = Sizes(
    frontends=256, backends=512, sockets=64, affinity=64, flows=64, fragments=64, sources=128, clients=64
)


def table(address: str = VIP) -> dict[FrontendKey, Entry]:
    """A Service of TCP and UDP."""
    found = tuple(sorted(backends(4, (0,))))
    return {frontend(address, protocol): Entry(found, f"a/b:p/{protocol.name}") for protocol in (TCP, UDP)}


def grow(datapath: Datapath, wanted: Table, sizes: Sizes = LARGE) -> None:
    with datapath.make_larger(sizes) as maps:
        assert Reconciler(maps).sync(wanted).in_sync
        datapath.take_larger()


def capacities(path: Path) -> dict[str, int]:
    found = {}
    for name in ("frontends", "backends", "sources", "flows", "affinity"):
        with bpfsys.obj_get(path / name) as opened:
            found[name] = bpfmap.map_info(opened.fd).max_entries
    return found


@pytest.fixture
def serving(own: Datapath, no_compiler: None) -> Datapath:
    """Small maps, attached, with one Service."""
    own.load_maps(map_specs(SMALL))
    own.attach()
    with own.maps() as maps:
        Reconciler(maps).sync(table())
    return own


def test_maps_grow_under_load_and_nobody_notices(
    only_order_matters: None, serving: Datapath, own_pod: Pod, bpffs: Path
) -> None:
    before = serving.counters()
    wanted = table()
    with own_pod.load(VIP) as answers:
        for step in range(1, 9):
            larger = Sizes(**dict.fromkeys(enlarging.AGENTS, (1 << step) * 64), sockets=64, affinity=64)
            wanted |= table(f"203.0.113.{step}")
            grow(serving, wanted, larger)
            assert serving.state() == DatapathState(True, True, True, f"{loader.version()}+{step}")
            assert serving.sizes().backends == (1 << step) * 64
    assert set(answers) == {f"{kind} {BACKEND}" for kind in ("tcp", "kept", "udp")}
    counted = serving.counters()
    translated = counted["connect_translated"] - before["connect_translated"]
    assert translated >= answers[f"tcp {BACKEND}"], "a connection went by untranslated"
    assert sorted(
        path.name for path in (bpffs / "own").iterdir() if path.name.startswith(("maps", "programs"))
    ) == [
        f"maps-{layout.LAYOUT}+8",
        f"programs-{loader.version()}+8",
    ]


def test_what_programs_write_is_the_very_same_map(serving: Datapath, own_pod: Pod, bpffs: Path) -> None:
    socket = own_pod.udp()
    assert socket.ask(VIP) == BACKEND
    translated = serving.remembered.translated()
    assert translated > 0
    grow(serving, table())
    assert serving.remembered.translated() == translated
    assert socket.ask(VIP) == BACKEND
    assert serving.remembered.translated() == translated
    assert capacities(Pins(bpffs / "own").maps) == {
        **{name: getattr(LARGE, name) for name in enlarging.AGENTS},
        "flows": 64,
        "affinity": 64,
    }


def test_how_full_the_maps_of_programs_are_is_counted(serving: Datapath, own_pod: Pod) -> None:
    assert set(serving.remembered.pressure().values()) == {0.0}
    sockets = [own_pod.udp() for _ in range(4)]
    for socket in sockets:
        assert socket.ask(VIP) == BACKEND
    found = serving.remembered.pressure()
    assert (found["reverse"], found["forward"], found["affinity"]) == (4 / 64, 4 / 64, 0)


def test_what_is_written_afterwards_is_found(serving: Datapath, own_pod: Pod) -> None:
    grow(serving, table())
    with Rig(serving) as rig:
        rig.serve(OTHER, backends(4, (0,)))
    assert own_pod.tcp(OTHER).answer() == BACKEND


def test_it_may_be_done_before_anything_is_attached(own: Datapath, own_pod: Pod, no_compiler: None) -> None:
    own.load_maps(map_specs(SMALL))
    grow(own, table())
    own.attach()
    assert own_pod.tcp(VIP).answer() == BACKEND


def test_maps_that_are_not_there_cannot_grow(own: Datapath) -> None:
    with pytest.raises(NotLoaded):
        own.make_larger(LARGE)
    with pytest.raises(NotLoaded):
        own.sizes()
    assert own.remembered.pressure() == {}


def test_prepared_maps_that_were_never_taken_are_removed_by_the_next_load(
    serving: Datapath, bpffs: Path
) -> None:
    serving.make_larger(LARGE).close()
    assert serving.state() == DatapathState(True, True, True, loader.version())
    serving.load_maps(map_specs(SMALL))
    assert serving.sizes().frontends == 64
    assert not (bpffs / "own" / "growing").exists()


def test_unloading_removes_larger_maps_too(serving: Datapath, bpffs: Path) -> None:
    grow(serving, table())
    serving.unload()
    assert not (bpffs / "own").exists()


def test_an_upgrade_after_growing_keeps_the_larger_maps(
    serving: Datapath, own_pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(serving, table())
    monkeypatch.setattr(loader, "version", lambda: "newer")
    assert serving.state().version != serving.wanted_version()
    serving.load_maps(map_specs(SMALL))
    assert serving.state() == DatapathState(True, True, True, "newer+1")
    assert serving.sizes().frontends == 256
    assert own_pod.tcp(VIP).answer() == BACKEND


def test_killed_at_any_change_the_next_load_has_all_programs_use_one_set_of_maps(
    own: Datapath, own_pod: Pod, only_order_matters: None
) -> None:
    change, killed = 0, True
    while killed:
        own.load_maps(map_specs(SMALL))
        own.attach()
        with own.maps() as maps:
            Reconciler(maps).sync(table())
        with own.make_larger(LARGE) as maps:
            assert Reconciler(maps).sync(table()).in_sync
        killed = killed_at(change, own.take_larger)
        assert own_pod.tcp(VIP).answer() == BACKEND, "whatever runs now serves"
        if own.state().version != own.wanted_version():
            own.load_maps(map_specs(SMALL))
        assert own.state().version == own.wanted_version()
        with own.maps() as opened:
            Reconciler(opened).sync(table(OTHER))
        assert own_pod.tcp(OTHER).answer() == BACKEND, "programs find what is written into the pinned maps"
        assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
        own.unload()
        change += 1
    assert change > 40  # links, and the pins of older programs and maps
