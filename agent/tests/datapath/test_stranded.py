"""Connected UDP sockets whose backend goes away are found in whatever namespace they are, and told."""

import ctypes
import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from handover_agent import bpfmap, bpfsys, layout
from handover_agent.datapath import Datapath
from handover_agent.entries import Direction
from handover_agent.sockets.carried import Carried
from handover_agent.sockets.gone import stranded
from handover_agent.sockets.refusal import refuse
from handover_agent.table import Backend, ip_text
from tests.conntrack.test_own_flows import CLIENT, DNS, FRONTEND, GONE, THERE, entry
from tests.datapath import pods
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

both_families = pytest.mark.parametrize("family", [4, 6])


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(there, 0) == 0
        yield
    finally:
        assert libc.setns(home, 0) == 0
        os.close(there)
        os.close(home)


def router(pods_network: tuple[str, str]) -> str:
    """Where packets between the pods pass, as on the agent's node."""
    return f"{pods_network[0].removesuffix('-a')}-server"


def by_client(datapath: Datapath) -> dict[str, Carried]:
    return {ip_text(each.client.address): each for each in datapath.connected()}


def connected(rig: Rig, pod: pods.Pod, family: int, backend: int = 0) -> pods.RemoteSocket:
    """A socket that is connected to a backend through a Service."""
    rig.serve(pods.VIPS[family][0], pods.backends(family, (backend,)))
    made = pod.udp(family)
    made.connect(pods.VIPS[family][0])
    return made


@both_families
@pytest.mark.usefixtures("socket_storage")
def test_a_connected_socket_is_seen_with_its_own_address_from_another_namespace(
    datapath: Datapath, rig: Rig, pod: pods.Pod, other_pod: pods.Pod, family: int
) -> None:
    for each in (pod, other_pod):
        connected(rig, each, family, 1)
    found = by_client(datapath)
    clients = {4: {"198.18.1.2", "198.18.2.2"}, 6: {"2001:db8:1::2", "2001:db8:2::2"}}
    assert found.keys() == clients[family]
    for socket in found.values():
        assert socket.frontend == pods.frontend(pods.VIPS[family][0], pods.UDP)
        assert [socket.backend] == pods.backends(family, (1,))


@pytest.mark.usefixtures("socket_storage")
def test_only_sockets_that_are_connected_through_a_service_now_are_seen(
    datapath: Datapath, rig: Rig, pod: pods.Pod
) -> None:
    rig.serve(pods.VIPS[4][0], pods.backends(4, (0,)))
    rig.serve(pods.VIPS[4][1], pods.backends(4, (2,)))
    pod.udp().connect(pods.BACKENDS[4][0], pods.BACKEND_PORT)
    pod.udp().ask(pods.VIPS[4][0])
    pod.tcp(pods.VIPS[4][0])
    elsewhere, closed, disconnected, moved = (connected(rig, pod, 4) for _ in range(4))
    elsewhere.connect(pods.BACKENDS[4][1], pods.BACKEND_PORT)
    closed.close()
    disconnected.disconnect()
    moved.connect(pods.VIPS[4][1])
    found = datapath.connected()
    assert [(s.frontend, s.backend) for s in found] == [
        (pods.frontend(pods.VIPS[4][1], pods.UDP), pods.backends(4, (2,))[0])
    ]


@pytest.mark.parametrize("vip", [pods.VIPS[4][0], pods.VIPS[6][0], f"::ffff:{pods.VIPS[4][0]}"])
@pytest.mark.usefixtures("socket_storage")
def test_a_socket_whose_backend_serves_no_more_is_told_and_finds_another_one(
    datapath: Datapath, rig: Rig, pod: pods.Pod, pods_network: tuple[str, str], vip: str
) -> None:
    family = 4 if "." in vip else 6
    plain = vip.removeprefix("::ffff:")
    socket = pod.udp(6 if ":" in vip else 4)
    rig.serve(plain, pods.backends(family, (0,)))
    socket.connect(vip)
    rig.serve(plain, pods.backends(family, (1,)))
    serving = {pods.frontend(plain, pods.UDP): set(pods.backends(family, (1,)))}
    (lost,) = stranded(datapath.connected(), serving)
    with inside(router(pods_network)):
        assert refuse([lost]) == 1
    with pytest.raises(pods.Refused) as caught:
        socket.answer()
    assert caught.value.errno == errno.ECONNREFUSED
    socket.connect(vip)
    socket.send()
    assert pods.BACKENDS[family][1] in socket.answer()
    assert stranded(datapath.connected(), serving) == []


@both_families
@pytest.mark.usefixtures("socket_storage")
def test_no_other_socket_is_told_anything(
    datapath: Datapath, rig: Rig, pod: pods.Pod, pods_network: tuple[str, str], family: int
) -> None:
    lost = connected(rig, pod, family, 0)
    kept = connected(rig, pod, family, 1)
    direct = pod.udp(family)
    direct.connect(pods.BACKENDS[family][0], pods.BACKEND_PORT)
    serving = {pods.frontend(pods.VIPS[family][0], pods.UDP): set(pods.backends(family, (1, 2)))}
    with inside(router(pods_network)):
        assert refuse(stranded(datapath.connected(), serving)) == 1
    with pytest.raises(pods.Refused):
        lost.send()
    for socket, backend in ((kept, 1), (direct, 0)):
        socket.send()
        assert pods.BACKENDS[family][backend] in socket.answer()


@both_families
@pytest.mark.usefixtures("socket_storage")
def test_a_socket_of_the_agents_own_namespace_is_told_too(
    datapath: Datapath, rig: Rig, pod: pods.Pod, pods_network: tuple[str, str], family: int
) -> None:
    lost = connected(rig, pod, family)
    with inside(pods_network[0]):
        assert refuse(datapath.connected()) == 1
    with pytest.raises(pods.Refused) as caught:
        lost.answer()
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.usefixtures("socket_storage")
def test_a_service_without_any_endpoint_or_that_is_gone_strands_nobody(
    datapath: Datapath, rig: Rig, pod: pods.Pod
) -> None:
    connected(rig, pod, 4)
    frontend = pods.frontend(pods.VIPS[4][0], pods.UDP)
    assert stranded(datapath.connected(), {}) == []
    assert stranded(datapath.connected(), {frontend: set()}) == []
    assert len(stranded(datapath.connected(), {frontend: set(pods.backends(4, (1,)))})) == 1


@pytest.mark.usefixtures("socket_storage")
def test_many_sockets_are_all_seen(datapath: Datapath, rig: Rig, pod: pods.Pod) -> None:
    for _ in range(300):
        connected(rig, pod, 4)
    assert len({each.client.port for each in datapath.connected()}) == 300


@pytest.mark.usefixtures("socket_storage")
def test_a_socket_that_can_carry_nothing_is_translated_all_the_same(
    datapath: Datapath, rig: Rig, pod: pods.Pod, pods_network: tuple[str, str]
) -> None:
    """Storage is charged to the socket's option memory."""
    limit = ["ip", "netns", "exec", pods_network[0], "sysctl", "-q"]
    before = subprocess.run(
        [*limit, "-n", "net.core.optmem_max"], capture_output=True, text=True, check=False
    )
    if before.returncode:
        pytest.skip("this kernel has one limit for all network namespaces")
    pods.run(*limit, "-w", "net.core.optmem_max=1")
    try:
        socket = connected(rig, pod, 4)
    finally:
        pods.run(*limit, "-w", f"net.core.optmem_max={before.stdout.strip()}")
    assert rig.counted()["connected_not_written"] == 1
    socket.send()
    assert pods.BACKENDS[4][0] in socket.answer()
    assert datapath.connected() == []


@pytest.mark.usefixtures("socket_storage")
def test_telling_needs_no_more_than_raw_sockets(
    datapath: Datapath, rig: Rig, pod: pods.Pod, pods_network: tuple[str, str], tmp_path: Path
) -> None:
    lost = connected(rig, pod, 4)
    (found,) = datapath.connected()
    (tmp_path / "lost").write_bytes(pickle.dumps(found))
    script = (
        "import pickle, sys; from pathlib import Path; from handover_agent.sockets.refusal import refuse;"
        "print(refuse([pickle.loads(Path(sys.argv[1]).read_bytes())]))"
    )
    limited = ["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all"]
    command = [
        "nsenter",
        f"--net=/run/netns/{router(pods_network)}",
        *limited,
        sys.executable,
        "-c",
        script,
        str(tmp_path / "lost"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    with pytest.raises(pods.Refused):
        lost.answer()


def test_flows_to_a_gone_backend_leave_the_kernels_map(datapath: Datapath, bpffs: Path) -> None:
    lost = [entry(CLIENT, FRONTEND, GONE), entry(GONE, CLIENT, FRONTEND, Direction.BACKWARD)]
    kept, value = entry(CLIENT, Backend(FRONTEND.address, 54), THERE)
    with bpfsys.obj_get(bpffs / "shared" / f"maps-{layout.LAYOUT}" / "flows") as flows:
        for row in (*lost, (kept, value)):
            bpfmap.update(flows.fd, *row)
        assert datapath.forget_udp_flows({DNS: {THERE}}) == 2
        assert list(bpfmap.keys(flows.fd, len(kept))) == [kept]
        bpfmap.delete(flows.fd, kept)
