"""A datapath that is loaded and attached once and emptied before each test; life-cycle tests make one."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent import loader
from handover_agent.datapath import Datapath
from handover_agent.loader.programs import pin_programs
from tests.datapath import pods
from tests.datapath.rig import Rig


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
def compiled() -> dict[str, bytes]:
    """The programs, compiled by a child process: here, too, what imports BCC stays apart."""
    script = (
        "import pickle, sys; from handover_agent.loader.__main__ import compiled;"
        "sys.stdout.buffer.write(pickle.dumps(compiled(set_retval=True, socket_storage=True)))"
    )
    command = [sys.executable, "-c", script]
    return dict(pickle.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


@pytest.fixture
def no_compiler(compiled: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load what was compiled once; everything else is as it is."""
    monkeypatch.setattr(
        loader, "load_programs", lambda maps, programs, **_: pin_programs(compiled, maps, programs)
    )


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
def rig(datapath: Datapath) -> Iterator[Rig]:
    """Writes the datapath's tables, and tells what it counted."""
    with Rig(datapath) as made:
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
