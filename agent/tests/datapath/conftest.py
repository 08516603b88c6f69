"""A datapath that is loaded and attached once and emptied before each test; life-cycle tests make one."""

import hashlib
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent import bpfmap, devices, loader
from handover_agent.bpffs import Pins
from handover_agent.bpfsys import ProgramType, obj_get, pin, program_load
from handover_agent.datapath import Datapath
from handover_agent.hooks import PACKET_PROGRAMS
from handover_agent.kubeproxy.durable import write_atomically
from handover_agent.layout import LAYOUT, Sizes, map_specs, pack_index, pack_settings
from handover_agent.loader import compiler
from handover_agent.loader.abilities import Abilities, of_kernel
from handover_agent.loader.filling import filled_in
from handover_agent.loader.headers import find_headers
from handover_agent.loader.programs import pin_programs
from handover_agent.packetpath import switches
from tests.datapath import node, pods
from tests.datapath.rig import Rig
from tests.datapath.trial import Trial

SMALL = Sizes(frontends=1024, backends=4096, sockets=64, affinity=1024, flows=65_536)


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
def pods_network() -> Iterator[tuple[str, str]]:
    """Two pods' namespaces, and servers that they reach."""
    with pods.network(f"dp{os.getpid()}") as names:
        yield names


@pytest.fixture(scope="session")
def compiled(pytestconfig: pytest.Config) -> dict[str, bytes]:
    """Every program, compiled by a child process: here, too, what imports BCC stays apart.

    Kept for the next run of tests, as long as sources, compiler and headers are the same.
    """
    return compiled_once(pytestconfig)


def compiled_once(config: pytest.Config, sources: Path | None = None, about: str = "") -> dict[str, bytes]:
    """See `compiled`; or from other `sources` (a directory with `bpf` in it), which `about` stands for."""
    with_what = inspect.getsource(compiler) + str(find_headers()) + about
    digest = hashlib.sha256(with_what.encode()).hexdigest()[:16]
    kept = config.cache.mkdir("bpf") / f"{loader.version()}-{digest}"
    if kept.exists():
        return dict(pickle.loads(kept.read_bytes()))
    script = (
        "import pickle, sys; from pathlib import Path; from handover_agent.loader import compiler;"
        f"compiler.resources.files = {f'lambda _: Path({str(sources)!r})' if sources else 'compiler.resources.files'};"
        "sys.stdout.buffer.write(pickle.dumps(compiler.compile_all()))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    made = dict(pickle.loads(done.stdout))
    write_atomically(kept, done.stdout)
    return made


@pytest.fixture
def no_compiler(compiled: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load what was compiled once; everything else is as it is."""

    def load(maps: Path, programs: Path, set_retval: bool) -> None:
        pin_programs(compiled, maps, programs, of_kernel(set_retval))

    monkeypatch.setattr(loader, "load_programs", load)


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
    datapath.unload()


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
    datapath.unload()


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


@pytest.fixture
def own_pod(pods_network: tuple[str, str], own: Datapath, own_cgroup: Path) -> Iterator[pods.Pod]:
    """A pod in the cgroup of the datapath `own`."""
    with pods.Pod(pods_network[0], own_cgroup) as made:
        yield made


@pytest.fixture(scope="session")
def packet_compiled(compiled: dict[str, bytes]) -> dict[str, bytes]:
    """The packet path's programs."""
    return {program.name: compiled[program.name] for program in PACKET_PROGRAMS}


def pin_packet_programs(
    compiled: dict[str, bytes], pins: Path, programs: Path, abilities: Abilities | None = None
) -> None:
    """Load them with the maps of a datapath, and pin them; as for a kernel with other abilities than this one's."""
    numbers = (abilities or of_kernel(set_retval=True)).numbers()
    programs.mkdir()
    maps = pins / f"maps-{LAYOUT}"
    opened = [obj_get(maps / spec.name) for spec in map_specs(Sizes())]
    fds = [descriptor.fd for descriptor in opened]
    for name, code in compiled.items():
        with program_load(ProgramType.SCHED_CLS, 0, filled_in(code, fds, numbers), name) as program:
            pin(program.fd, programs / name)
    for descriptor in opened:
        descriptor.close()


@pytest.fixture(scope="session")
def packet_programs(bpffs: Path, shared_datapath: Datapath, packet_compiled: dict[str, bytes]) -> Path:
    """The packet path's programs, pinned, with the maps of the shared datapath."""
    pin_packet_programs(packet_compiled, bpffs / "shared", bpffs / "packets")
    return bpffs / "packets"


@pytest.fixture(scope="session")
def machines(packet_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.Namespaces]:
    """A node with the packet path's programs, and what is around it."""
    with node.machines(f"pk{os.getpid()}") as made:
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
    """The machines; there are neither frontends nor flows."""
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
