"""An older agent serves, the present one takes over, and what has to be true then."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from handover_agent import features
from handover_agent.datapath import Datapath, DatapathState
from handover_agent.layout import LAYOUT, MapSpec, map_specs
from handover_agent.packetpath import attaching
from handover_agent.table import FrontendFlags, Scope
from tests.datapath.node import NODES, PODS, PORT, Namespaces, text
from tests.datapath.pods import TCP, UDP, VIPS, Pod, backends
from tests.datapath.rig import SIZES, Rig
from tests.datapath.talking import Asking, Talk, grown, until
from tests.datapath.test_packets import NODE_PORT, at

SOCKET_VIP, PACKET_VIP = VIPS[4]


def serve(own: Datapath, agent: AbstractContextManager[None], specs: Sequence[MapSpec]) -> None:
    """An agent with another layout of the maps serves three Services, and ends."""
    with agent:
        own.load_maps(specs)
        own.attach()
        with Rig(own) as rig:
            rig.serve(SOCKET_VIP, backends(4), FrontendFlags.AFFINITY, 3600)
            rig.expose(NODES[4], NODE_PORT, at(4, "a", "c"), FrontendFlags.MASQUERADE, scope=Scope.EXTERNAL)
            rig.expose(PACKET_VIP, 80, at(4, "b", "c"), FrontendFlags.AFFINITY, timeout_s=3600)


def take_over(own: Datapath) -> None:
    own.load_maps(map_specs(SIZES))


def settled(own: Datapath, bpffs: Path) -> None:
    """Nothing but the newer layout is left, everything runs its programs, once."""
    assert own.state() == DatapathState(True, True, True, own.wanted_version())
    assert not own.unsettled
    names = {path.name for path in (bpffs / "own").iterdir()} - {"devices"}
    assert names == {"links", f"maps-{LAYOUT}", f"programs-{own.wanted_version()}"}
    assert attaching.running(bpffs / "own" / "next" / "devices", behind=True).keys() <= (
        attaching.running(bpffs / "own" / "devices").keys() if not features.tcx() else set()
    )


def go_on_and_are_served(serving: Datapath, net: Namespaces, own_pod: Pod, bpffs: Path) -> None:
    """Connections of every kind go on while another layout is taken over, and new ones are served all the time."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(12))
        quiet = [
            (stack.enter_context(net.connect(machine, kind, address, port)))
            for machine, address, port in (("client", NODES[4], NODE_PORT), ("a", PACKET_VIP, 80))
            for kind in (TCP, UDP)
            for _ in range(20)
        ]
        said = [each.ask() for each in quiet]
        talking = [
            stack.enter_context(net.connect("client", TCP, NODES[4], NODE_PORT)),
            stack.enter_context(net.connect("a", TCP, PACKET_VIP, 80)),
        ]
        talks = [Talk(each, each.ask(), pool) for each in talking]
        asking = [
            Asking(net, "client", NODES[4], NODE_PORT, pool),
            Asking(net, "a", PACKET_VIP, 80, pool),
        ]
        sockets = [own_pod.udp() for _ in range(10)]
        kept = [each.ask(SOCKET_VIP) for each in sockets]
        connection = own_pod.tcp(SOCKET_VIP)
        chosen = connection.answer()
        with own_pod.load(SOCKET_VIP) as answers:
            until(talks, 1000)
            grown(asking, 20)
            take_over(serving)
            settled(serving, bpffs)
            until(talks, 1000)
            grown(asking, 20)
        for each in asking:
            each.end()
        for talk in talks:
            talk.end()
        assert [each.ask() for each in quiet] == said
        assert [each.ask(SOCKET_VIP) for each in sockets] == kept
        assert set(kept) == {chosen}, "one client, one backend"
        connection.send()
        assert connection.answer() == chosen
        assert connection.peer() == (SOCKET_VIP, 80)
        assert own_pod.tcp(SOCKET_VIP).answer() == chosen
        assert set(answers) == {f"{kind} {chosen}" for kind in ("tcp", "kept", "udp")}
        for each in asking:
            assert len(set(each.datagrams)) == 1, "a datagram's flow moved"
        assert len({each.server for each in asking[1].answers}) == 1, "affinity was not kept"
        assert {each.server for each in asking[0].answers} == {text(PODS[pod][4], PORT) for pod in "ac"}
