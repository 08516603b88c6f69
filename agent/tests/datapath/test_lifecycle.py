"""Loading, attaching, upgrading, leaving; and being killed in the middle of it."""

import dataclasses
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from handover_agent import bpfmap, bpfsys, devices, features, layout, loader, pinnedsettings
from handover_agent.bpffs import LayoutMismatch, NoBpffs
from handover_agent.datapath import Datapath, DatapathState, NotCgroup2, NotLoaded, UnsupportedKernel
from handover_agent.devices import Device, Place, Role
from handover_agent.devices.classify import address
from handover_agent.features import Features
from handover_agent.hooks import HOOKS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader import LoadFailed
from handover_agent.loader.abilities import of_kernel
from handover_agent.loader.programs import pin_programs
from handover_agent.table import FrontendFlags
from tests.datapath.killing import killed_at
from tests.datapath.pods import VIPS, Pod, backends, cgroup
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

VIP = VIPS[4][0]
BACKEND = "192.0.2.11:8080"
SMALL = Sizes(frontends=64, backends=64, sockets=64, affinity=64)
ABSENT = DatapathState(loaded=False, attached=False, accepting=False, version="")


def as_version(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(loader, "version", lambda: name)


def is_accepting(path: Path) -> bool:
    with bpfsys.obj_get(path / f"maps-{layout.LAYOUT}" / "settings") as settings:
        return layout.unpack_settings(bpfmap.lookup(settings.fd, layout.pack_index(0), 8) or b"")


def pins(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*")) if path.exists() else []


def test_loading_attaches_nothing(own: Datapath, own_pod: Pod) -> None:
    own.load(frontends=64, backends=64, sockets=64, affinity=64)
    state = own.state()
    assert (state.loaded, state.attached, state.accepting, state.version) == (
        True,
        False,
        False,
        loader.version(),
    )
    with Rig(own) as rig:
        rig.serve(VIP, backends(4))
        assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
        assert rig.counted() == {}


def test_the_whole_way_up_and_down(own: Datapath, own_pod: Pod, bpffs: Path) -> None:
    assert own.state() == ABSENT
    own.load()
    own.attach()
    assert own.state() == DatapathState(True, True, True, loader.version())
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    assert own_pod.tcp(VIP).answer() == BACKEND
    own.detach()
    assert own.state() == DatapathState(True, False, False, loader.version())
    assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
    own.unload()
    assert own.state() == ABSENT
    assert pins(bpffs / "own") == []
    assert not (bpffs / "own").exists()


def test_each_step_may_be_repeated(own: Datapath, no_compiler: None) -> None:
    for step in (own.detach, own.unload, own.load, own.load, own.attach, own.attach, own.load):
        step()
    assert own.state() == DatapathState(True, True, True, loader.version())
    for step in (own.detach, own.detach, own.unload, own.unload):
        step()
    assert own.state() == ABSENT


def test_loading_the_same_version_compiles_nothing(own: Datapath, monkeypatch: pytest.MonkeyPatch) -> None:
    own.load()
    monkeypatch.setattr(loader, "load_programs", lambda *_, **__: pytest.fail("it compiled again"))
    own.load()


def test_the_address_that_stands_for_the_loopback_one_follows_the_devices(
    own: Datapath, bpffs: Path, no_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have(at: str) -> None:
        bridge = Device(9999, "br-ex", "bridge", addresses=(address(at),), default_route=True)
        monkeypatch.setattr(devices, "look", lambda: [Place(bridge, Role.NONE, "for this test")])

    def written() -> str:
        with bpfsys.obj_get(bpffs / "own" / f"maps-{layout.LAYOUT}" / "settings") as settings:
            raw = bpfmap.lookup(settings.fd, layout.pack_index(0), 8) or b""
        return socket.inet_ntoa(layout.unpack_own_ipv4(raw))

    own.load()
    assert written() == "0.0.0.0"
    have("192.0.2.7/24")
    own.attach()
    assert (written(), is_accepting(bpffs / "own")) == ("192.0.2.7", True)
    own.set_accepting(False)
    assert (written(), is_accepting(bpffs / "own")) == ("192.0.2.7", False)
    have("192.0.2.8/24")
    own.follow()
    assert (written(), is_accepting(bpffs / "own")) == ("192.0.2.8", False)


def test_what_is_asked_of_an_absent_datapath(own: Datapath, bpffs: Path) -> None:
    assert own.counters() == {}
    assert own.remembered.translated() == 0
    for asked in (own.maps, own.attach, lambda: own.set_accepting(True)):
        with pytest.raises(NotLoaded, match="load it first"):
            asked()
    assert not bpffs.joinpath("own").exists(), "who only asks leaves nothing on the node"


def test_whoever_looks_while_it_is_unloaded_leaves_nothing(
    own: Datapath, bpffs: Path, no_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.load()
    noting, waited = pinnedsettings.is_noting, list[Path]()

    def unloaded_afterwards(maps: Path) -> bool | None:
        found = noting(maps)
        if not waited:
            waited.append(maps)
            own.unload()
        return found

    monkeypatch.setattr(pinnedsettings, "is_noting", unloaded_afterwards)
    assert not own.remembered.watch_stranded({})
    assert waited
    assert not bpffs.joinpath("own").exists()


def test_the_agent_may_end_and_the_programs_stay(
    own: Datapath, own_pod: Pod, bpffs: Path, no_compiler: None
) -> None:
    child = os.fork()
    if not child:
        own.load()
        own.attach()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert own.state().attached
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    assert own_pod.tcp(VIP).answer() == BACKEND


def test_an_upgrade_keeps_tables_and_connections_under_load(
    own: Datapath, own_pod: Pod, monkeypatch: pytest.MonkeyPatch, only_order_matters: None
) -> None:
    own.load()
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
        frontends = own.maps().read_frontends()
        with own_pod.load(VIP) as answers:
            for n in range(40):
                as_version(monkeypatch, f"version{n}")
                own.load()
                assert own.state() == DatapathState(True, True, True, f"version{n}")
        counted = rig.counted()
    assert set(answers) == {f"{kind} {BACKEND}" for kind in ("tcp", "kept", "udp")}
    assert own.maps().read_frontends() == frontends
    # no call went by untranslated while a program was swapped
    assert counted["connect_translated"] >= answers[f"tcp {BACKEND}"]
    assert "not_a_frontend" not in counted


def test_an_upgrade_leaves_nothing_of_the_older_version(
    own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    as_version(monkeypatch, "older")
    own.load()
    before = pins(bpffs / "own")
    as_version(monkeypatch, "newer")
    own.load()
    assert [name.replace("newer", "older") for name in pins(bpffs / "own")] == before


def test_programs_that_run_but_are_of_no_pinned_version_are_not_taken_for_ours(
    own: Datapath, bpffs: Path, no_compiler: None
) -> None:
    own.load()
    own.attach()
    programs = bpffs / "own" / f"programs-{loader.version()}"
    for path in programs.iterdir():
        path.unlink()
    programs.rmdir()
    assert own.state() == DatapathState(True, True, True, "unknown")
    own.load()
    assert own.state() == DatapathState(True, True, True, loader.version())


def test_sizes_count_for_new_maps_only(own: Datapath, no_compiler: None) -> None:
    own.load(frontends=100, backends=200)
    own.load(frontends=1000, backends=2000)
    with own.maps() as maps:
        assert (maps.frontend_capacity, maps.backend_capacity) == (100, 200)
    assert own.sizes().sockets == Sizes().sockets


def test_killed_at_any_point_of_load_and_attach_the_next_run_goes_on(
    own: Datapath, own_pod: Pod, bpffs: Path, only_order_matters: None
) -> None:
    def up() -> None:
        own.load_maps(map_specs(SMALL))
        own.attach()

    change = 0
    while killed_at(change, up):
        state = own.state()
        assert not state.accepting or state.attached
        up()
        assert own.state() == DatapathState(True, True, True, loader.version())
        assert "loading" not in pins(bpffs / "own")
        own.unload()
        assert not (bpffs / "own").exists()
        change += 1
    assert change > 40  # maps, their pins, programs, their pins, links, their pins
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
        assert own_pod.tcp(VIP).answer() == BACKEND


def test_killed_at_any_point_of_an_upgrade_new_connections_are_served(
    own: Datapath, own_pod: Pod, monkeypatch: pytest.MonkeyPatch, only_order_matters: None
) -> None:
    as_version(monkeypatch, "older")
    own.load()
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    change = 0
    while True:
        as_version(monkeypatch, f"newer{change}")
        killed = killed_at(change, own.load)
        state = own.state()
        assert (state.attached, state.accepting) == (True, True)
        assert own_pod.tcp(VIP).answer() == BACKEND
        own.load()
        assert own.state().version == f"newer{change}"
        if not killed:
            break
        change += 1
    assert change > 20


def test_killed_at_any_point_of_unload_the_next_run_ends_it(
    own: Datapath, own_pod: Pod, bpffs: Path, only_order_matters: None
) -> None:
    change, killed = 0, True
    while killed:
        own.load_maps(map_specs(SMALL))
        own.attach()
        killed = killed_at(change, own.unload)
        own.unload()
        assert not (bpffs / "own").exists()
        assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
        change += 1
    assert change > 30


def test_the_compiler_killed_half_way_is_an_error_and_the_next_run_goes_on(
    own: Datapath, monkeypatch: pytest.MonkeyPatch, compiled: dict[str, bytes], bpffs: Path
) -> None:
    def half(maps: Path, programs: Path, **_: bool) -> None:
        with pytest.raises(KeyError):
            pin_programs(
                {name: code for name, code in compiled.items() if name != "connect6"},
                maps,
                programs,
                of_kernel(set_retval=True),
            )
        raise LoadFailed("killed")

    with monkeypatch.context() as patch:
        patch.setattr(loader, "load_programs", half)
        with pytest.raises(LoadFailed):
            own.load()
    assert own.state() == ABSENT
    own.load()
    assert own.state().loaded
    assert "loading" not in pins(bpffs / "own")


def test_programs_that_do_not_compile_change_nothing(own: Datapath, monkeypatch: pytest.MonkeyPatch) -> None:
    own.load()
    own.attach()
    before = own.state()
    as_version(monkeypatch, "other")
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nonexistent")
    with pytest.raises(LoadFailed, match=r"(?s)status 1.*nonexistent"):
        own.load()
    assert own.state() == before


def test_maps_of_another_layout_are_refused_and_kept(own: Datapath, bpffs: Path, no_compiler: None) -> None:
    own.load()
    (bpffs / "own" / f"maps-{layout.LAYOUT}").rename(bpffs / "own" / "maps-0")
    with pytest.raises(LayoutMismatch, match=f"have layout 0, this agent has layout {layout.LAYOUT}"):
        own.load()
    assert "maps-0/frontends" in pins(bpffs / "own")
    own.unload()
    assert not (bpffs / "own").exists()


def test_a_map_of_another_shape_is_refused_and_kept(own: Datapath, bpffs: Path, no_compiler: None) -> None:
    specs = list(map_specs(SMALL))
    own.load_maps(specs)
    path = bpffs / "own" / f"maps-{layout.LAYOUT}" / "frontends"
    path.unlink()
    with bpfmap.map_create(specs[1].type, 20, 24, 64, "frontends") as other:
        bpfsys.pin(other.fd, path)
    with pytest.raises(LayoutMismatch, match="frontends"):
        own.load()
    assert path.exists()


def test_pins_outside_of_a_bpffs_are_refused(tmp_path: Path, own_cgroup: Path) -> None:
    with pytest.raises(NoBpffs, match="mount -t bpf"):
        Datapath(tmp_path / "handover", own_cgroup).load()
    assert not (tmp_path / "handover").exists()


def test_a_directory_that_is_no_cgroup2_is_refused(
    own: Datapath, bpffs: Path, tmp_path: Path, no_compiler: None
) -> None:
    own.load()
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotCgroup2, match="type cgroup2"):
            Datapath(bpffs / "own", path).attach()


def test_a_kernel_without_a_hook_is_refused_before_anything_changes(
    own: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "probe", lambda: Features([], ["getpeername4"], []))
    with pytest.raises(UnsupportedKernel, match="lacks getpeername4"):
        own.load()
    assert pins(bpffs / "own") == []


def test_this_kernel_has_every_feature_that_tests_need(own: Datapath) -> None:
    found = own.probe_features()
    assert found.missing == []
    assert found.lacking == []
    assert {"connect4", "sock_release", "cgroup_link", "set_retval"} <= set(found.found)


def test_a_hook_that_does_not_exist_is_found_missing(own: Datapath, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple(dataclasses.replace(hook, attach_type=250) for hook in HOOKS[:1])
    monkeypatch.setattr(features, "HOOKS", wrong + HOOKS[1:])
    assert own.probe_features().missing == ["sock_release"]


def test_without_set_retval_a_refusal_is_left_to_the_stack(
    own: Datapath, own_pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = features.probe()
    monkeypatch.setattr(
        features,
        "probe",
        lambda: Features([f for f in everything.found if f != "set_retval"], [], ["set_retval"]),
    )
    own.load()
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, [], FrontendFlags.REFUSE)
        assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
        assert rig.counted() == {"refuse_left": 1}


def test_attaching_again_after_the_cgroup_was_removed(bpffs: Path, no_compiler: None, own: Datapath) -> None:
    own.load()
    with cgroup(f"handover-test-gone-{os.getpid()}") as gone:
        elsewhere = Datapath(bpffs / "own", gone)
        elsewhere.attach()
        assert elsewhere.state().attached
        assert not own.state().attached
    assert not elsewhere.state().attached
    assert killed_at(8, own.attach)
    assert not is_accepting(bpffs / "own")  # some hooks are attached and others are not
    own.attach()
    assert own.state().attached


def test_an_answer_under_way_when_detaching_comes_from_where_it_was_asked(
    own: Datapath, own_pod: Pod, no_compiler: None
) -> None:
    own.load()
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    asking = own_pod.udp()
    asking.sendto(VIP)
    seen: list[tuple[str, str, int]] = []

    def answers() -> None:
        seen.append(asking.answer_from())
        asking.sendto(VIP)
        seen.append(asking.answer_from())

    own.detach(answers)
    assert seen == [(BACKEND, VIP, 80), (f"{VIP}:80", VIP, 80)]
    own.detach(lambda: pytest.fail("there is nothing left to wait for"))


def test_detaching_forgets_what_was_translated(own: Datapath, own_pod: Pod, no_compiler: None) -> None:
    own.load()
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    connection, asking = own_pod.tcp(VIP), own_pod.udp()
    assert asking.ask(VIP) == BACKEND
    assert own.remembered.translated() == 2
    own.detach()
    assert own.remembered.translated() == 0
    assert connection.answer() == BACKEND  # its packets never needed us
    connection.send()
    assert connection.answer() == BACKEND


def test_sockets_outside_of_the_cgroup_are_not_touched(
    own: Datapath, pods_network: tuple[str, str], shared_cgroup: Path, no_compiler: None
) -> None:
    own.load()
    own.attach()
    with Rig(own) as rig, Pod(pods_network[0], shared_cgroup.parent) as outside:
        rig.serve(VIP, backends(4))
        assert outside.tcp(VIP).answer() == f"{VIP}:80"
        assert rig.counted() == {}


def test_three_capabilities_are_enough(own: Datapath, own_pod: Pod, bpffs: Path, own_cgroup: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from handover_agent.datapath import Datapath;"
        "d = Datapath(Path(sys.argv[1]), Path(sys.argv[2])); d.probe_features(); d.load();"
        "d.attach(); d.counters(); m = d.maps(); m.read_frontends(); r = d.remembered;"
        "r.translated(); r.watch_stranded({}); r.noted_stranded();"
        "d.set_accepting(False);"
        "d.detach(); d.attach();"
        "d.unload(); d.load(); d.attach(); print(d.state())"
    )
    limited = [
        "unshare",
        "--net",
        "setpriv",
        "--bounding-set=-all,+net_admin,+bpf,+perfmon",
        "--inh-caps=-all",
    ]
    command = [*limited, sys.executable, "-c", script, str(bpffs / "own"), str(own_cgroup)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "attached=True" in done.stdout, done.stderr
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)))
    assert own_pod.tcp(VIP).answer() == BACKEND


def test_a_missing_capability_is_named(bpffs: Path, own_cgroup: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from handover_agent.datapath import Datapath;"
        "Datapath(Path(sys.argv[1]), Path(sys.argv[2])).load()"
    )
    limited = ["unshare", "--net", "setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"]
    command = [*limited, sys.executable, "-c", script, str(bpffs / "own"), str(own_cgroup)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"[Errno {errno.EPERM}]" in done.stderr or "needs CAP_BPF" in done.stderr, done.stderr
    assert "needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in done.stderr
    assert not (bpffs / "own").exists()
