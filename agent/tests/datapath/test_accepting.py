"""Accepting off: new connections are left alone, what is translated goes on."""

import pytest
from handover_agent.table import FrontendFlags, Protocol
from tests.datapath.pods import VIPS, Pod, backends
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

VIP = VIPS[4][0]
BACKEND = "192.0.2.11:8080"


def test_a_new_connection_is_left_alone(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    rig.datapath.set_accepting(False)
    assert pod.tcp(VIP).answer() == f"{VIP}:80"
    assert rig.counted() == {"not_accepting": 1}


def test_a_new_connection_is_not_refused_either(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, [], FrontendFlags.REFUSE)
    rig.datapath.set_accepting(False)
    assert pod.tcp(VIP).answer() == f"{VIP}:80"


def test_a_connection_from_before_goes_on_and_keeps_its_name(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    connection = pod.tcp(VIP)
    assert connection.answer() == BACKEND
    rig.datapath.set_accepting(False)
    connection.send()
    assert connection.answer() == BACKEND
    assert connection.peer() == (VIP, 80)


def test_an_unconnected_socket_goes_on_with_its_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    asking.ask(VIP)
    rig.datapath.set_accepting(False)
    asking.sendto(VIP)
    assert asking.answer_from() == (BACKEND, VIP, 80)


def test_a_new_unconnected_socket_is_left_alone(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    rig.datapath.set_accepting(False)
    asking = pod.udp()
    asking.sendto(VIP)
    assert asking.answer_from() == (f"{VIP}:80", VIP, 80)


def test_an_unconnected_socket_whose_backend_is_gone_is_left_alone_from_then_on(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    asking.ask(VIP)
    rig.datapath.set_accepting(False)
    rig.serve(VIP, backends(4, (1,)))
    assert asking.ask(VIP) == f"{VIP}:80"
    rig.serve(VIP, backends(4, (0,)))
    assert asking.ask(VIP) == f"{VIP}:80"


def test_a_socket_that_connects_again_is_left_alone_wholly(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    asking.ask(VIP)
    rig.datapath.set_accepting(False)
    asking.connect(VIP)
    assert asking.ask(VIP) == f"{VIP}:80"  # named: must go where the socket is connected to
    asking.send()
    assert asking.answer() == f"{VIP}:80"


def test_what_is_translated_is_counted_by_protocol(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    before = {protocol: rig.datapath.remembered.translated(protocol) for protocol in Protocol}
    connection, asking = pod.tcp(VIP), pod.udp()
    asking.ask(VIP)
    after = {protocol: rig.datapath.remembered.translated(protocol) for protocol in Protocol}
    assert after == {p: n + (p in (Protocol.TCP, Protocol.UDP)) for p, n in before.items()}
    connection.close()
    assert rig.datapath.remembered.translated(Protocol.TCP) == before[Protocol.TCP]


def test_accepting_again_serves_new_connections(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    rig.datapath.set_accepting(False)
    assert not rig.datapath.state().accepting
    rig.datapath.attach()
    assert rig.datapath.state().accepting
    assert pod.tcp(VIP).answer() == BACKEND
