"""Connected UDP sockets whose backend goes away are found where they send, in whatever namespace they are, and told."""

import errno
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from handover_agent import bpfmap, bpfsys, layout
from handover_agent.conntrack import Serving
from handover_agent.datapath import Datapath
from handover_agent.entries import Direction, Note
from handover_agent.sockets.gone import stranded
from handover_agent.sockets.refusal import refuse
from handover_agent.table import Backend, FrontendFlags, Protocol, ip_bytes, ip_text
from tests.conntrack.test_own_flows import CLIENT, DNS, FRONTEND, GONE, THERE, entry
from tests.datapath import node, pods
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

both_families = pytest.mark.parametrize("family", [4, 6])

_UDP_SEGMENT = 103
Start = Callable[[str], pods.Pod]


def backend(pod: str, family: int) -> Backend:
    return Backend(ip_bytes(node.PODS[pod][family]), node.PORT)


@pytest.fixture
def start(net: node.Namespaces, shared_cgroup: Path, datapath: Datapath) -> Iterator[Start]:
    """Starts processes on the machines, whose sockets the datapath sees; nothing is noted before a test asks for it."""
    datapath.remembered.watch_stranded({})
    datapath.remembered.noted_stranded()
    with ExitStack() as stack:
        yield lambda machine: stack.enter_context(pods.Pod(net.name(machine), shared_cgroup))


class Service:
    """A Service of one backend after the other."""

    def __init__(self, rig: Rig, address: str) -> None:
        self._rig, self._address = rig, address
        self.number = 0

    def has(self, *backends: Backend, draining: Sequence[Backend] = ()) -> None:
        self.number = self._rig.expose(
            self._address,
            pods.SERVICE_PORT,
            backends,
            FrontendFlags.NONE if backends else FrontendFlags.DROP,
            protocols=(Protocol.UDP,),
            service_id=self.number,
            draining=draining,
        )

    def serving(self, *backends: Backend) -> Serving:
        return {pods.frontend(self._address, pods.UDP): set(backends)}


def connected(process: pods.Pod, vip: str) -> pods.RemoteSocket:
    """A socket that is connected to the Service, and was answered."""
    made = process.udp(6 if ":" in vip else 4)
    made.connect(vip)
    made.send()
    made.answer()
    return made


@dataclass(frozen=True, slots=True)
class Moved:
    """A Service that has pod c in the place of pod b, and a socket of pod a that was connected to it before."""

    socket: pods.RemoteSocket
    service: Service
    gone: Backend
    there: Backend

    @property
    def serving(self) -> Serving:
        return self.service.serving(self.there)


@pytest.fixture
def move(rig: Rig, start: Start) -> "Move":
    """Makes one of a family."""

    def made(family: int) -> Moved:
        vip, gone, there = pods.VIPS[family][0], backend("b", family), backend("c", family)
        service = Service(rig, vip)
        service.has(gone)
        socket = connected(start("a"), vip)
        service.has(there)
        return Moved(socket, service, gone, there)

    return made


Move = Callable[[int], Moved]


def sends(datapath: Datapath, socket: pods.RemoteSocket) -> list[Note]:
    """What is noted when the socket sends; the backend that serves no more is still there, and answers."""
    socket.send()
    socket.answer()
    return datapath.remembered.noted_stranded()


def tell(net: node.Namespaces, notes: list[Note]) -> int:
    """As the node's agent does."""
    with net.inside("node"):
        return refuse(notes)


@pytest.mark.parametrize(
    ("machine", "to"),
    [("a", "b"), ("a", "c"), ("node", "a"), ("node", "c"), ("node", "itself")],
    ids=["pod-bridged", "pod-routed", "node-to-its-pod", "node-to-elsewhere", "node-to-itself"],
)
@pytest.mark.parametrize("vip", [pods.VIPS[4][0], pods.VIPS[6][0], f"::ffff:{pods.VIPS[4][0]}"])
def test_a_socket_whose_backend_serves_no_more_is_told_and_finds_another_one(
    datapath: Datapath, rig: Rig, net: node.Namespaces, start: Start, machine: str, to: str, vip: str
) -> None:
    plain = vip.removeprefix("::ffff:")
    family = 6 if ":" in plain else 4
    service = Service(rig, plain)
    gone, there = backend(to if to != "itself" else "a", family), backend("c" if to == "b" else "b", family)
    if to == "itself":
        gone = Backend(ip_bytes(node.INSIDE[family]), node.PORT)
        server = net.serve("node", pods.UDP, node.INSIDE[family], node.PORT)
    service.has(gone)
    socket = connected(start(machine), vip)
    service.has(there)
    assert datapath.remembered.watch_stranded(service.serving(there))
    (note,) = sends(datapath, socket)
    assert (note.destination, note.frontend) == (gone, Backend(ip_bytes(plain), pods.SERVICE_PORT))
    assert tell(net, stranded([note], service.serving(there))) == 1
    with pytest.raises(pods.Refused) as caught:
        socket.answer()
    assert caught.value.errno == errno.ECONNREFUSED
    if to == "itself":
        net.stop(server)
    socket.connect(vip)
    socket.send()
    assert ip_text(there.address) in socket.answer()
    assert datapath.remembered.noted_stranded() == []
    assert not datapath.remembered.watch_stranded(service.serving(there))


@both_families
def test_no_other_socket_is_told_anything(
    datapath: Datapath, rig: Rig, net: node.Namespaces, start: Start, family: int
) -> None:
    vip, (gone, there) = pods.VIPS[family][0], (backend("b", family), backend("c", family))
    service, process = Service(rig, vip), start("a")
    service.has(gone)
    lost, unconnected = connected(process, vip), process.udp(family)
    unconnected.ask(vip)
    service.has(there)
    kept = connected(process, vip)
    direct = process.udp(family)
    direct.connect(ip_text(gone.address), gone.port)
    assert datapath.remembered.watch_stranded(service.serving(there))
    for socket, its in ((kept, there), (direct, gone)):
        socket.send()
        assert ip_text(its.address) in socket.answer()
    assert ip_text(there.address) in unconnected.ask(vip)
    assert ip_text(gone.address) in unconnected.ask(ip_text(gone.address), gone.port)
    assert datapath.remembered.noted_stranded() == []
    assert tell(net, sends(datapath, lost)) == 1
    with pytest.raises(pods.Refused):
        lost.answer()
    for socket in (kept, direct):
        socket.send()
        socket.answer()
    assert rig.counted()["stranded_noted"] == 1


@both_families
def test_it_is_told_again_as_long_as_it_stays(
    datapath: Datapath, net: node.Namespaces, move: Move, family: int
) -> None:
    moved = move(family)
    for _ in range(3):
        assert datapath.remembered.watch_stranded(moved.serving)
        for _ in range(3):
            moved.socket.send()
            moved.socket.answer()
        assert tell(net, datapath.remembered.noted_stranded()) == 1, "once, however much it sends"
        with pytest.raises(pods.Refused):
            moved.socket.answer()
    moved.socket.close()
    assert not datapath.remembered.watch_stranded(moved.serving)


def test_nothing_is_looked_at_while_nobody_can_be_stranded(
    datapath: Datapath, rig: Rig, start: Start
) -> None:
    vip, (gone, there) = pods.VIPS[4][0], (backend("b", 4), backend("c", 4))
    service = Service(rig, vip)
    service.has(gone)
    socket = connected(start("a"), vip)
    assert not datapath.remembered.watch_stranded(service.serving(gone))
    service.has(there)
    assert sends(datapath, socket) == []
    assert datapath.remembered.watch_stranded(service.serving(there))
    assert len(sends(datapath, socket)) == 1
    socket.disconnect()
    socket.ask(vip)
    assert not datapath.remembered.watch_stranded(service.serving(there)), "its next datagram goes elsewhere"


def test_what_was_noted_some_other_time_is_nobodys_any_more(datapath: Datapath, move: Move) -> None:
    moved = move(4)
    datapath.remembered.watch_stranded(moved.serving)
    moved.socket.send()
    moved.socket.answer()
    assert not datapath.remembered.watch_stranded({})
    assert datapath.remembered.watch_stranded(moved.serving)
    assert datapath.remembered.noted_stranded() == []


def test_a_service_without_any_endpoint_or_that_is_gone_strands_nobody(
    datapath: Datapath, rig: Rig, start: Start
) -> None:
    process = start("a")
    gone, there = backend("b", 4), backend("c", 4)
    service, other = (Service(rig, vip) for vip in pods.VIPS[4])
    for each in (service, other):
        each.has(gone)
    socket, lost = (connected(process, vip) for vip in pods.VIPS[4])
    other.has(there)
    none = service.serving()
    assert not datapath.remembered.watch_stranded({})
    assert not datapath.remembered.watch_stranded(none)
    assert datapath.remembered.watch_stranded({**none, **other.serving(there)})
    rig.expose(pods.VIPS[4][0], pods.SERVICE_PORT, [], protocols=(Protocol.UDP,))
    assert sends(datapath, socket) == []
    rig.withdraw(pods.VIPS[4][0], pods.SERVICE_PORT)
    assert sends(datapath, socket) == []
    assert len(sends(datapath, lost)) == 1


def test_a_backend_that_only_gets_no_new_connections_keeps_its_sockets(
    datapath: Datapath, rig: Rig, start: Start
) -> None:
    """It is terminating, or policies and hints have new connections go elsewhere."""
    old, there = backend("b", 4), backend("c", 4)
    service, other = (Service(rig, vip) for vip in pods.VIPS[4])
    process = start("a")
    for each in (service, other):
        each.has(old)
    socket, _ = (connected(process, vip) for vip in pods.VIPS[4])
    for each in (service, other):
        each.has(there, draining=[old])
    serving = service.serving(old, there)
    assert not datapath.remembered.watch_stranded(serving)
    assert datapath.remembered.watch_stranded({**serving, **other.serving(there)})
    assert sends(datapath, socket) == []
    service.has(there)
    assert stranded(sends(datapath, socket), serving) == [], (
        "the maps of an agent that knew nothing of draining"
    )


def test_where_only_others_keep_their_flows_a_socket_is_told_all_the_same(
    datapath: Datapath, rig: Rig, start: Start
) -> None:
    """A Local policy without an endpoint on this node: some serve elsewhere, but not this one."""
    gone, there, service = backend("b", 4), backend("c", 4), Service(rig, pods.VIPS[4][0])
    service.has(gone)
    socket = connected(start("a"), pods.VIPS[4][0])
    service.has(draining=[there])
    assert datapath.remembered.watch_stranded(service.serving(there))
    assert [note.destination for note in sends(datapath, socket)] == [gone]


def test_many_sockets_are_all_told(datapath: Datapath, rig: Rig, net: node.Namespaces, start: Start) -> None:
    vip, (gone, there) = pods.VIPS[4][0], (backend("b", 4), backend("c", 4))
    service, process = Service(rig, vip), start("a")
    service.has(gone)
    sockets = [connected(process, vip) for _ in range(300)]
    service.has(there)
    assert datapath.remembered.watch_stranded(service.serving(there))
    for socket in sockets:
        socket.send()
        socket.answer()
    assert tell(net, datapath.remembered.noted_stranded()) == 300
    for socket in sockets:
        with pytest.raises(pods.Refused):
            socket.answer()


@pytest.mark.parametrize("segment", [0, 1000], ids=["in-pieces", "in-segments"])
@both_families
def test_large_datagrams_are_noticed_too(
    datapath: Datapath, net: node.Namespaces, move: Move, family: int, segment: int
) -> None:
    moved = move(family)
    if segment:
        moved.socket.option(Protocol.UDP, _UDP_SEGMENT, segment)
    assert datapath.remembered.watch_stranded(moved.serving)
    moved.socket.send("?" * 4000)
    net.settle()
    (note,) = datapath.remembered.noted_stranded()
    assert note.destination == moved.gone


def test_one_that_was_not_noted_for_want_of_room_is_noted_when_it_sends_again(
    datapath: Datapath, rig: Rig, move: Move, bpffs: Path
) -> None:
    moved = move(4)
    assert datapath.remembered.watch_stranded(moved.serving)
    with bpfsys.obj_get(bpffs / "shared" / f"maps-{layout.LAYOUT}" / "stranded") as notes:
        for number in range(layout.STRANDED_ROOM):
            bpfmap.update(notes.fd, number.to_bytes(40, "big"), bytes(20))
    moved.socket.send()
    moved.socket.answer()
    assert rig.counted()["stranded_not_noted"] == 1
    assert len(datapath.remembered.noted_stranded()) == layout.STRANDED_ROOM
    assert len(sends(datapath, moved.socket)) == 1


def test_accepting_and_noting_are_set_apart(datapath: Datapath, move: Move) -> None:
    moved = move(4)
    assert datapath.remembered.watch_stranded(moved.serving)
    datapath.set_accepting(False)
    assert len(sends(datapath, moved.socket)) == 1
    datapath.set_accepting(True)
    assert len(sends(datapath, moved.socket)) == 1
    datapath.remembered.watch_stranded({})
    assert datapath.state().accepting
    assert sends(datapath, moved.socket) == []


def test_telling_needs_no_more_than_raw_sockets(
    datapath: Datapath, net: node.Namespaces, move: Move, tmp_path: Path
) -> None:
    moved = move(4)
    datapath.remembered.watch_stranded(moved.serving)
    (tmp_path / "lost").write_bytes(pickle.dumps(sends(datapath, moved.socket)))
    script = (
        "import pickle, sys; from pathlib import Path; from handover_agent.sockets.refusal import refuse;"
        "print(refuse(pickle.loads(Path(sys.argv[1]).read_bytes())))"
    )
    command = [
        "nsenter",
        f"--net=/run/netns/{net.name('node')}",
        *("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all"),
        sys.executable,
        "-c",
        script,
        str(tmp_path / "lost"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    with pytest.raises(pods.Refused):
        moved.socket.answer()


def test_flows_to_a_gone_backend_leave_the_kernels_map(datapath: Datapath, bpffs: Path) -> None:
    lost = [entry(CLIENT, FRONTEND, GONE), entry(GONE, CLIENT, FRONTEND, Direction.BACKWARD)]
    kept, value = entry(CLIENT, Backend(FRONTEND.address, 54), THERE)
    with bpfsys.obj_get(bpffs / "shared" / f"maps-{layout.LAYOUT}" / "flows") as flows:
        for row in (*lost, (kept, value)):
            bpfmap.update(flows.fd, *row)
        assert datapath.remembered.forget_udp_flows({DNS: {THERE}}) == 2
        assert list(bpfmap.keys(flows.fd, len(kept))) == [kept]
        bpfmap.delete(flows.fd, kept)
