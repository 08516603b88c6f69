"""Whose sockets are translated: a pod's loopback addresses are its own, and pods may be left to the packet path."""

import errno
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from handover_agent import loader
from handover_agent.datapath import Datapath
from handover_agent.layout import LAYOUT, map_specs
from handover_agent.loader.programs import pin_programs
from handover_agent.table import FrontendFlags
from tests.datapath.compiling import abilities
from tests.datapath.conftest import SMALL, nobody_waits
from tests.datapath.pods import TCP, UDP, VIPS, Pod, Refused, backends, run
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

Serving = Callable[..., AbstractContextManager[Rig]]
"""Of the node's namespace, and options."""
_ASK = """import socket, sys
print(int.from_bytes(socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder))"""


def cookie(namespace: str) -> int:
    """Of a network namespace, as its own sockets know it."""
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", _ASK]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def serving(
    bpffs: Path, cgroup: Path, compiled: dict[str, bytes], node: str, *, node_sockets_only: bool = False
) -> Iterator[Rig]:
    """A datapath whose node is this namespace."""

    def load(maps: Path, programs: Path, set_retval: bool) -> None:
        own = replace(abilities(), set_retval=set_retval, node_netns=cookie(node))
        pin_programs(compiled, maps, programs, own)

    datapath = Datapath(bpffs / "whose", cgroup, node_sockets_only=node_sockets_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "load_programs", load)
        datapath.load_maps(map_specs(SMALL))
        datapath.attach()
        try:
            with Rig(datapath, bpffs / "whose" / f"maps-{LAYOUT}") as rig:
                yield rig
        finally:
            datapath.unload(nobody_waits)


@pytest.fixture
def node_of(bpffs: Path, own_cgroup: Path, compiled: dict[str, bytes]) -> Serving:
    """`serving`, of what a test does not care about."""
    return functools.partial(serving, bpffs, own_cgroup, compiled)


@pytest.fixture
def host(pods_network: tuple[str, str], own_cgroup: Path) -> Iterator[Pod]:
    """A process of what is taken for the node."""
    with Pod(pods_network[0], own_cgroup) as made:
        yield made


@pytest.fixture
def inner(pods_network: tuple[str, str], own_cgroup: Path) -> Iterator[Pod]:
    """A process of a pod."""
    with Pod(pods_network[1], own_cgroup) as made:
        yield made


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_the_nodes_loopback_addresses_are_frontends_for_the_node(
    node_of: Serving, pods_network: tuple[str, str], host: Pod, address: str, kind: int
) -> None:
    with node_of(pods_network[0]) as rig:
        rig.serve("127.0.0.1", backends(4, (0,)))
        connection = host.socket(10 if ":" in address else 2, kind)
        connection.connect(address)
        if kind == UDP:
            connection.send()
        assert connection.answer() == "192.0.2.11:8080"
        assert connection.peer() == (address, 80)


def test_a_pods_loopback_addresses_are_its_own(
    node_of: Serving, pods_network: tuple[str, str], inner: Pod
) -> None:
    """Whoever may make a NodePort would else have what other people's pods say to themselves."""
    with node_of(pods_network[0]) as rig:
        rig.serve("127.0.0.1", backends(4, (0,)))
        with pytest.raises(Refused) as refused:
            inner.tcp("127.0.0.1")
        assert refused.value.errno == errno.ECONNREFUSED
        inner.udp().sendto("127.0.0.1")
        assert rig.counted() == {"pod_loopback_left": 2}


def test_a_frontend_that_refuses_at_the_nodes_loopback_does_not_refuse_a_pods_own_server(
    node_of: Serving, pods_network: tuple[str, str], inner: Pod
) -> None:
    with node_of(pods_network[0]) as rig:
        rig.serve("127.0.0.1", [], FrontendFlags.REFUSE)
        run("ip", "-n", pods_network[1], "addr", "add", "127.0.0.9/32", "dev", "lo")
        server = inner.socket(2, TCP)
        server._call("bind", ["127.0.0.9", 80])
        server._call("listen")
        assert inner.tcp("127.0.0.9").peer() == ("127.0.0.9", 80)
        assert rig.counted()["pod_loopback_left"] == 1
        run("ip", "-n", pods_network[1], "addr", "del", "127.0.0.9/32", "dev", "lo")


def test_what_is_bound_to_a_loopback_address_is_not_sent_elsewhere(
    node_of: Serving, pods_network: tuple[str, str], host: Pod
) -> None:
    """From there it could not leave; the packet path gives it another source."""
    with node_of(pods_network[0]) as rig:
        rig.serve("127.0.0.1", backends(4, (0,)))
        bound = host.socket(2, TCP)
        bound._call("bind", ["127.0.0.1", 0])
        with pytest.raises(Refused) as refused:
            bound.connect("127.0.0.1")
        assert refused.value.errno == errno.ECONNREFUSED, "it came to the address that it named"
        datagrams = host.udp()
        datagrams._call("bind", ["127.0.0.1", 0])
        datagrams.sendto("127.0.0.1")
        assert rig.counted() == {"loopback_source_left": 2}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_pods_can_be_left_to_the_packet_path(
    node_of: Serving, pods_network: tuple[str, str], host: Pod, inner: Pod, family: int, kind: int
) -> None:
    address = VIPS[family][0]
    with node_of(pods_network[0], node_sockets_only=True) as rig:
        rig.serve(address, backends(family, (0,)))
        for who, counter in ((host, "connect_translated"), (inner, "pod_socket_left")):
            connection = who.socket(2 if family == 4 else 10, kind)
            connection.connect(address)
            assert rig.counted()[counter] == 1
            connection.close()
        inner.socket(2 if family == 4 else 10, UDP).sendto(address)
        assert rig.counted()["pod_socket_left"] == 1


def test_that_can_be_changed_while_the_programs_run(
    node_of: Serving, bpffs: Path, own_cgroup: Path, pods_network: tuple[str, str], inner: Pod
) -> None:
    with node_of(pods_network[0]) as rig:
        rig.serve(VIPS[4][0], backends(4, (0,)))
        inner.tcp(VIPS[4][0])
        Datapath(bpffs / "whose", own_cgroup, node_sockets_only=True).follow()
        inner.tcp(VIPS[4][0])
        Datapath(bpffs / "whose", own_cgroup).follow()
        inner.tcp(VIPS[4][0])
        counted = rig.counted()
        assert (counted["connect_translated"], counted["pod_socket_left"]) == (2, 1)
