"""A process connects to a Service's address: where it lands, and what it sees."""

import errno
import socket

import pytest
from handover_agent.table import FrontendFlags, FrontendValue
from tests.datapath.pods import BACKENDS, TCP, UDP, VIPS, Pod, Refused, backends, frontend
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

# family of the socket, and how the process writes the Service's address
FAMILIES = {"4": (4, VIPS[4][0]), "6": (6, VIPS[6][0]), "mapped": (4, f"::ffff:{VIPS[4][0]}")}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_a_connection_to_a_frontend_reaches_a_backend_and_its_peer_is_the_frontend(
    rig: Rig, pod: Pod, family: str, kind: int
) -> None:
    version, address = FAMILIES[family]
    rig.serve(VIPS[version][0], backends(version, (1,)))
    connection = pod.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    connection.connect(address)
    if kind == UDP:
        connection.send()
    host = BACKENDS[version][1]
    assert connection.answer() == (f"[{host}]:8080" if version == 6 else f"{host}:8080")
    assert connection.peer() == (address, 80)
    counted = rig.counted()
    assert counted["connect_translated"] == 1
    assert counted["getpeername_restored"] == 1


def test_an_answer_on_a_connected_udp_socket_comes_from_the_frontend(rig: Rig, pod: Pod, family: str) -> None:
    version, address = FAMILIES[family]
    rig.serve(VIPS[version][0], backends(version, (2,)))
    connection = pod.udp(6 if ":" in address else 4)
    connection.connect(address)
    connection.send()
    assert connection.answer_from()[1:] == (address, 80)


def test_what_is_not_a_frontend_is_left_alone(rig: Rig, pod: Pod, family: str) -> None:
    version, address = FAMILIES[family]
    connection = pod.tcp(address)
    reached = VIPS[version][0]
    assert connection.answer() == (f"[{reached}]:80" if version == 6 else f"{reached}:80")
    assert connection.peer() == (address, 80)
    assert rig.counted() == {"not_a_frontend": 1, "getpeername_no_entry": 1}


@pytest.mark.parametrize(("kind", "other"), [(TCP, UDP), (UDP, TCP)], ids=["tcp", "udp"])
def test_the_protocol_is_part_of_a_frontend(rig: Rig, pod: Pod, kind: int, other: int) -> None:
    rig.serve(VIPS[4][0], backends(4))
    rig.remove(frontend(VIPS[4][0], kind))
    for of, peer_translated in ((kind, False), (other, True)):
        connection = pod.socket(socket.AF_INET, of)
        connection.connect(VIPS[4][0])
        assert ("connect_translated" in rig.counted()) == peer_translated


def test_the_port_is_part_of_a_frontend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4))
    with pytest.raises(Refused) as refused:
        pod.tcp(VIPS[4][0], 81)
    assert refused.value.errno == errno.ECONNREFUSED  # by the server: nobody listens there
    assert rig.counted() == {"not_a_frontend": 1}


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_a_frontend_without_endpoints_refuses(rig: Rig, pod: Pod, family: str, kind: int) -> None:
    version, address = FAMILIES[family]
    rig.serve(VIPS[version][0], [], FrontendFlags.REFUSE)
    connection = pod.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    with pytest.raises(Refused) as refused:
        connection.connect(address)
    assert refused.value.errno == errno.ECONNREFUSED
    assert rig.counted() == {"refused": 1}


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_a_port_that_a_cluster_ip_does_not_have_is_refused(
    rig: Rig, pod: Pod, family: str, kind: int
) -> None:
    version, address = FAMILIES[family]
    rig.serve(VIPS[version][0], backends(version))
    rig.refuse_other_ports(VIPS[version][0])
    connection = pod.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    with pytest.raises(Refused) as refused:
        connection.connect(address, 81)
    assert refused.value.errno == errno.ECONNREFUSED
    assert rig.counted() == {"refused": 1}
    connection.connect(address)
    assert rig.counted()["connect_translated"] == 1


def test_a_load_balancer_that_admits_some_sources_only_is_left_to_the_packet_path(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4), FrontendFlags.SOURCES)
    assert pod.tcp(VIPS[4][0]).answer() == f"{VIPS[4][0]}:80"
    assert rig.counted() == {"sources_left": 1}


def test_a_frontend_that_drops_is_left_to_the_stack(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], [], FrontendFlags.DROP)
    assert pod.tcp(VIPS[4][0]).answer() == f"{VIPS[4][0]}:80"
    assert rig.counted() == {"drop_left": 1}


def test_connections_spread_over_all_backends(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4))
    reached = [pod.tcp(VIPS[4][0]).answer() for _ in range(120)]
    # Each has 40 on average; fewer than 10 happens once in 10^10 runs.
    assert {host: reached.count(f"{host}:8080") >= 10 for host in BACKENDS[4]} == dict.fromkeys(
        BACKENDS[4], True
    )


def test_closing_a_socket_forgets_it(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4))
    before = rig.datapath.remembered.translated()
    connection = pod.tcp(VIPS[4][0])
    assert rig.datapath.remembered.translated() == before + 1
    connection.close()
    assert rig.datapath.remembered.translated() == before
    assert rig.counted() == {"connect_translated": 1, "released": 1}


def test_a_connection_goes_on_when_its_frontend_is_gone(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4, (0,)))
    connection = pod.tcp(VIPS[4][0])
    assert connection.answer() == "192.0.2.11:8080"
    rig.remove(frontend(VIPS[4][0], TCP))
    connection.send()
    assert connection.answer() == "192.0.2.11:8080"
    assert connection.peer() == (VIPS[4][0], 80)


def test_a_frontend_without_backends_and_flags_is_an_error_and_left_alone(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], [])
    assert pod.tcp(VIPS[4][0]).answer() == f"{VIPS[4][0]}:80"
    assert rig.counted() == {"error_frontend_empty": 1}


def test_a_region_outside_of_the_array_is_an_error_and_left_alone(rig: Rig, pod: Pod) -> None:
    rig.point(VIPS[4][0], FrontendValue(offset=1 << 20, count=1, service_id=1))
    assert pod.tcp(VIPS[4][0]).answer() == f"{VIPS[4][0]}:80"
    assert rig.counted() == {"error_backend_missing": 1}


@pytest.mark.parametrize("family_of", [4, 6])
def test_a_backend_of_the_other_family_is_an_error_and_left_alone(rig: Rig, pod: Pod, family_of: int) -> None:
    rig.serve(VIPS[family_of][0], backends(10 - family_of))
    pod.tcp(VIPS[family_of][0])
    assert rig.counted() == {"error_backend_family": 1}


def test_sockets_that_are_neither_tcp_nor_udp_are_left_alone(rig: Rig, pod: Pod) -> None:
    ping = pod.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    ping.connect(VIPS[4][0])
    assert rig.counted() == {"other_protocol": 1}


def test_an_mptcp_connection_reaches_a_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIPS[4][0], backends(4, (0,)))
    try:
        connection = pod.socket(socket.AF_INET, TCP, 262)
    except Refused as error:
        pytest.skip(f"this kernel has no MPTCP: {error}")
    connection.connect(VIPS[4][0])
    assert connection.answer() == "192.0.2.11:8080"
