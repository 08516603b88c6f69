"""A datapath that is loaded and attached once and emptied before each test; life-cycle tests make one."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from handover_agent import bpfmap, devices, loader
from handover_agent.bpffs import Pins
from handover_agent.bpfsys import obj_get
from handover_agent.datapath import Datapath
from handover_agent.devices import reading
from handover_agent.hooks import PACKET_PROGRAMS
from handover_agent.layout import LAYOUT, Sizes, map_specs, pack_index, pack_settings
from handover_agent.packetpath import rules, switches
from tests.datapath import killing, node, pods
from tests.datapath.compiling import compiled_once, loading, pin_packet_programs
from tests.datapath.rig import SIZES, Rig
from tests.datapath.settling import Settling
from tests.datapath.trial import Trial

SMALL = Sizes(frontends=1024, backends=4096, sockets=64, affinity=1024, flows=65_536)


def nobody_waits() -> None:
    """For answers that are under way when programs are detached."""


@pytest.fixture(scope="session", autouse=True)
def no_devices() -> Iterator[None]:
    """Whoever attaches here has no devices: this machine's own are none of a test's business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "look", lambda: [])
        yield


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpffs of our own."""
    path = tmp_path_factory.mktemp("bpf")
    pods.run("mount", "-t", "bpf", "bpf", str(path))
    yield path
    pods.run("umount", str(path))


@pytest.fixture(scope="session")
def settle() -> Iterator[Settling]:
    """Waits for packets that are under way, in any namespaces."""
    with closing(Settling()) as made:
        yield made


@pytest.fixture(scope="session")
def pods_network() -> Iterator[tuple[str, str]]:
    """Two pods' namespaces, and servers that they reach."""
    with pods.network(f"dp{os.getpid()}") as names:
        yield names


@pytest.fixture(scope="session")
def compiled(pytestconfig: pytest.Config) -> dict[str, bytes]:
    """Every program; see `compiled_once`."""
    return compiled_once(pytestconfig)


@pytest.fixture
def no_compiler(compiled: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load what was compiled once; everything else is as it is."""
    monkeypatch.setattr(loader, "load_programs", loading(compiled))


@pytest.fixture
def only_order_matters(no_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for packets are none, and quick to load; those for sockets are the real ones."""
    killing.only_order_matters(monkeypatch)


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """A cgroup to which nothing is attached."""
    with pods.cgroup(f"handover-test-own-{os.getpid()}") as path:
        yield path


@pytest.fixture
def own(bpffs: Path, own_cgroup: Path) -> Iterator[Datapath]:
    """A datapath of which nothing exists yet."""
    datapath = Datapath(bpffs / "own", own_cgroup)
    yield datapath
    datapath.unload(nobody_waits)


@pytest.fixture(scope="session")
def shared_cgroup() -> Iterator[Path]:
    """The pods' cgroup."""
    with pods.cgroup(f"handover-test-{os.getpid()}") as path:
        yield path


@pytest.fixture(scope="session")
def shared_datapath(bpffs: Path, shared_cgroup: Path) -> Iterator[Datapath]:
    """A datapath that is attached to the pods' cgroup."""
    datapath = Datapath(bpffs / "shared", shared_cgroup)
    datapath.load(frontends=1024, backends=4096, sockets=1024, affinity=1024)
    datapath.attach()
    yield datapath
    datapath.unload(nobody_waits)


@pytest.fixture
def datapath(shared_datapath: Datapath) -> Datapath:
    """The attached datapath, without frontends, accepting."""
    with shared_datapath.maps() as maps:
        maps.delete_frontends(maps.read_frontends())
    shared_datapath.attach()
    return shared_datapath


@pytest.fixture
def rig(datapath: Datapath, bpffs: Path) -> Iterator[Rig]:
    """Writes the datapath's tables, and tells what it counted."""
    with Rig(datapath, bpffs / "shared" / f"maps-{LAYOUT}") as made:
        made.lose_sockets()  # those of MPTCP stay when they are closed
        yield made


@pytest.fixture
def pod(pods_network: tuple[str, str], shared_cgroup: Path) -> Iterator[pods.Pod]:
    """A pod whose sockets the datapath sees."""
    with pods.Pod(pods_network[0], shared_cgroup) as made:
        yield made


@pytest.fixture
def other_pod(pods_network: tuple[str, str], shared_cgroup: Path) -> Iterator[pods.Pod]:
    """Another one, in another namespace."""
    with pods.Pod(pods_network[1], shared_cgroup) as made:
        yield made


@pytest.fixture(scope="session")
def bare_machines(request: pytest.FixtureRequest) -> Iterator[node.Namespaces]:
    """A node without programs, and what is around it; see `node.links`."""
    with node.machines(f"ba{os.getpid()}", getattr(request, "param", True)) as made:
        yield made


@pytest.fixture
def own_net(
    bare_machines: node.Namespaces, own: Datapath, monkeypatch: pytest.MonkeyPatch
) -> Iterator[node.Namespaces]:
    """The machines; the datapath `own` looks at the node's devices for real, and is attached to none afterwards."""
    monkeypatch.setattr(devices, "look", reading.look)
    with bare_machines.inside("node"):
        rules.ensure()
        yield bare_machines
        own.detach(nobody_waits)
        rules.remove()
        bare_machines.run("node", "conntrack", "-F")


@pytest.fixture(scope="session")
def loaded_once(bpffs: Path, compiled: dict[str, bytes]) -> Iterator[Datapath]:
    """See `loaded`."""
    with pods.cgroup(f"handover-test-once-{os.getpid()}") as path:
        datapath = Datapath(bpffs / "once", path)
        with pytest.MonkeyPatch.context() as patch:
            # Not for the whole session, which lasts for all tests that follow.
            patch.setattr(loader, "load_programs", loading(compiled))
            datapath.load_maps(map_specs(SIZES))
        yield datapath
        datapath.unload(nobody_waits)


@pytest.fixture
def loaded(loaded_once: Datapath) -> Datapath:
    """A datapath that is attached to nothing and has no tables, for tests that do not care how it was loaded."""
    with loaded_once.maps() as maps:
        maps.delete_frontends(maps.read_frontends())
        maps.keep_addresses([])
    return loaded_once


@pytest.fixture
def tables(net: node.Namespaces, loaded: Datapath) -> Iterator[Rig]:
    """Writes the tables of the datapath `loaded`."""
    with Rig(loaded, loaded._pins.maps) as made:
        made.settle = net.settle
        made.counted()
        yield made


@pytest.fixture
def own_pod(pods_network: tuple[str, str], own: Datapath, own_cgroup: Path) -> Iterator[pods.Pod]:
    """A pod in the cgroup of the datapath `own`."""
    with pods.Pod(pods_network[0], own_cgroup) as made:
        yield made


@pytest.fixture(scope="session")
def packet_compiled(compiled: dict[str, bytes]) -> dict[str, bytes]:
    """The packet path's programs."""
    return {program.name: compiled[program.name] for program in PACKET_PROGRAMS}


@pytest.fixture(scope="session")
def packet_programs(bpffs: Path, shared_datapath: Datapath, packet_compiled: dict[str, bytes]) -> Path:
    """The packet path's programs, pinned, with the maps of the shared datapath."""
    pin_packet_programs(packet_compiled, bpffs / "shared", bpffs / "packets")
    return bpffs / "packets"


@pytest.fixture(scope="session")
def machines(
    request: pytest.FixtureRequest, packet_programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[node.Namespaces]:
    """A node with the packet path's programs, and what is around it; see `node.links`."""
    with node.machines(f"pk{os.getpid()}", getattr(request, "param", True)) as made:
        for device, ingress, egress in (
            *((device, "from_outside", "from_node") for device in ("out0", "eth0")),
            *((port, "from_pod", "outward") for port in ("port-a", "port-b")),
            ("lo", None, "to_itself"),
        ):
            programs = [packet_programs / name if name else None for name in (ingress, egress)]
            made.attach("node", device, *programs)
        with made.inside("node"):
            switches.turn_on(tmp_path_factory.mktemp("switches"))
        yield made


@pytest.fixture
def net(machines: node.Namespaces, rig: Rig) -> node.Namespaces:
    """The machines; there are neither frontends nor flows, and nothing is under way."""
    rig.settle = machines.settle
    rig.counted()
    rig.forget_packets()
    return machines


@pytest.fixture(scope="session")
def trial_datapath(bpffs: Path, packet_compiled: dict[str, bytes]) -> Iterator[Datapath]:
    """Maps and packet path programs that no device knows, so that nothing but trials is counted."""
    pins = Pins(bpffs / "trial")
    with pins.locked():
        pins.ensure_maps(map_specs(SMALL))
        with obj_get(pins.maps / "settings") as settings:
            bpfmap.update(settings.fd, pack_index(0), pack_settings(accepting=True))
        pin_packet_programs(packet_compiled, pins.root, pins.root / "packets")
    yield Datapath(pins.root, pins.root)
    pins.remove(pins.root)


@pytest.fixture
def trial_rig(trial_datapath: Datapath, bpffs: Path) -> Iterator[Rig]:
    """Writes the tables of trials."""
    with trial_datapath.maps() as maps:
        maps.delete_frontends(maps.read_frontends())
    with Rig(trial_datapath, bpffs / "trial" / f"maps-{LAYOUT}") as made:
        made.forget_packets()
        yield made


@pytest.fixture
def trial(bpffs: Path, trial_rig: Rig) -> Trial:
    """The packet path's programs, to be run on single packets; there are no flows."""
    return Trial(bpffs / "trial" / "packets")
