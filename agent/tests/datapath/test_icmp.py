"""ICMP errors about translated packets: both ends are told about what they know."""

import socket

import pytest
from handover_agent.table import Backend, FrontendFlags, Protocol, ip_bytes
from tests.datapath.frames import (
    ICMP,
    ICMP6,
    SCTP,
    SYN,
    TCP,
    UDP,
    icmp_error,
    ip,
    quoted,
    read,
    sctp,
    tcp,
    udp,
)
from tests.datapath.node import LINKS, NODES, PODS, PORT, Namespaces, text
from tests.datapath.pods import TCP as STREAM
from tests.datapath.pods import UDP as DATAGRAM
from tests.datapath.pods import VIPS
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, SHOT, Trial

pytestmark = pytest.mark.datapath

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP], ids=["tcp", "udp", "sctp"])
MASQUERADE = FrontendFlags.MASQUERADE
CLIENTS = {4: "10.244.1.2", 6: "fd00:244:1::2"}
ROUTERS = {4: "192.0.2.99", 6: "2001:db8:2::99"}
BACKENDS = {4: "10.244.2.2", 6: "fd00:244:2::2"}
NOBODY = 9999  # a port where no server listens


def raw_socket() -> socket.socket:
    """Sends IP packets as they are, from where this thread is."""
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def serve(rig: Rig, family: int, port: int = PORT) -> None:
    rig.expose(VIPS[family][0], 80, [Backend(ip_bytes(BACKENDS[family]), port)])


def segment(protocol: Protocol, source_port: int, port: int) -> bytes:
    return {
        TCP: tcp(source_port, port, SYN),
        UDP: udp(source_port, port),
        SCTP: sctp(source_port, port, 1, 0, bytes(16)),
    }[protocol]


def opened(trial: Trial, protocol: Protocol, family: int) -> bytes:
    """A client's first packet, as it reaches the backend."""
    packet = ip(protocol, CLIENTS[family], VIPS[family][0], segment(protocol, 40000, 80))
    outcome = trial("from_pod", packet)
    assert outcome.verdict == GO_ON
    return outcome.packet


@PROTOCOLS
@FAMILIES
@pytest.mark.parametrize("by", ["backend", "router"])
@pytest.mark.parametrize("length", [8, 64])
def test_a_client_is_told_about_its_packet_to_the_frontend(
    trial: Trial, trial_rig: Rig, family: int, protocol: Protocol, by: str, length: int
) -> None:
    serve(trial_rig, family)
    about = opened(trial, protocol, family)[: {4: 20, 6: 40}[family] + length]
    sender = BACKENDS[family] if by == "backend" else ROUTERS[family]
    outcome = trial("outward", icmp_error(sender, CLIENTS[family], about))
    found, inner = read(outcome.packet), quoted(outcome.packet)
    # A router is shown as it is; the backend is not.
    assert (found.source, found.target) == (
        VIPS[family][0] if by == "backend" else sender,
        CLIENTS[family],
    )
    assert (inner.source, inner.source_port) == (CLIENTS[family], 40000)
    assert (inner.target, inner.port) == (VIPS[family][0], 80)
    assert trial_rig.counted()["packet_error_restored"] == 1


@PROTOCOLS
@FAMILIES
@pytest.mark.parametrize("by", ["client", "router"])
def test_a_backend_is_told_about_its_own_packet(
    trial: Trial, trial_rig: Rig, family: int, protocol: Protocol, by: str
) -> None:
    serve(trial_rig, family)
    opened(trial, protocol, family)
    answer = segment(protocol, 80, 40000)
    about = ip(protocol, VIPS[family][0], CLIENTS[family], answer)  # as the client saw it
    sender = CLIENTS[family] if by == "client" else ROUTERS[family]
    outcome = trial("from_pod", icmp_error(sender, VIPS[family][0], about[:68]))
    found, inner = read(outcome.packet), quoted(outcome.packet)
    assert (found.source, found.target) == (sender, BACKENDS[family])
    assert (inner.source, inner.source_port) == (BACKENDS[family], PORT)
    assert (inner.target, inner.port) == (CLIENTS[family], 40000)
    assert trial_rig.counted()["packet_error_forwarded"] == 1


@FAMILIES
def test_an_error_about_a_flow_with_another_port_names_the_clients_own(
    trial: Trial, trial_rig: Rig, family: int
) -> None:
    serve(trial_rig, family)
    opened(trial, UDP, family)
    trial_rig.expose(VIPS[family][1], 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    second = ip(UDP, CLIENTS[family], VIPS[family][1], udp(40000, 80))
    about = trial("from_pod", second).packet
    assert read(about).source_port != 40000
    inner = quoted(trial("outward", icmp_error(ROUTERS[family], CLIENTS[family], about)).packet)
    assert (inner.source_port, inner.target, inner.port) == (40000, VIPS[family][1], 80)


KINDS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}


@FAMILIES
def test_every_kind_of_error_is_translated_and_other_messages_are_not(
    trial: Trial, trial_rig: Rig, family: int
) -> None:
    serve(trial_rig, family)
    about = opened(trial, UDP, family)
    for kind in range(1, 256):
        error = icmp_error(ROUTERS[family], CLIENTS[family], about, kind, value=1300)
        changed = trial("outward", error).packet != error
        assert changed == (kind in KINDS[family]), kind


@FAMILIES
def test_errors_about_others_are_left_alone(trial: Trial, trial_rig: Rig, family: int) -> None:
    serve(trial_rig, family)
    about = ip(UDP, CLIENTS[family], BACKENDS[family], udp(40000, PORT))
    for program, error in (
        ("outward", icmp_error(ROUTERS[family], CLIENTS[family], about)),
        ("from_pod", icmp_error(ROUTERS[family], CLIENTS[family], about)),
    ):
        assert trial(program, error).packet == error
    assert trial_rig.counted()["packet_error_no_flow"] == 2


@FAMILIES
def test_an_error_cut_at_any_byte_is_dropped_or_left_as_it_is(
    trial: Trial, trial_rig: Rig, family: int
) -> None:
    serve(trial_rig, family)
    about = opened(trial, UDP, family)
    error = icmp_error(ROUTERS[family], CLIENTS[family], about)
    header = {4: 20, 6: 40}[family]
    for length in range(header, len(error)):
        outcome = trial("outward", error[:length])
        if length < header + 8 + header + 4:
            assert (outcome.verdict, outcome.packet) == (SHOT, error[:length])
        else:
            assert outcome.verdict == GO_ON


@FAMILIES
def test_what_quotes_something_else_is_left_alone(trial: Trial, trial_rig: Rig, family: int) -> None:
    serve(trial_rig, family)
    ping = ip(
        ICMP if family == 4 else ICMP6,
        CLIENTS[family],
        BACKENDS[family],
        bytes([8 if family == 4 else 128] + [0] * 15),
    )
    later = ip(UDP, CLIENTS[family], BACKENDS[family], bytes(32), summed=False, piece=(100, True))
    for about in (ping, later):
        error = icmp_error(ROUTERS[family], CLIENTS[family], about)
        assert trial("outward", error).packet == error
    nonsense = bytearray(icmp_error(ROUTERS[family], CLIENTS[family], ping))
    nonsense[{4: 28, 6: 48}[family]] = 0x15
    assert trial("outward", bytes(nonsense)).verdict == SHOT


@LINKS
@FAMILIES
@pytest.mark.parametrize("backend", ["b", "c"], ids=["same-node", "other-node"])
def test_a_closed_port_of_a_backend_is_a_refusal_and_no_time_out(
    net: Namespaces, rig: Rig, family: int, backend: str
) -> None:
    closed = [Backend(ip_bytes(PODS[backend][family]), NOBODY)]
    rig.expose(VIPS[family][0], 80, closed)
    rig.expose(NODES[family], 30080, closed, MASQUERADE)
    for machine, address, port in (("a", VIPS[family][0], 80), ("client", NODES[family], 30080)):
        with pytest.raises(ConnectionRefusedError):
            net.ask(machine, DATAGRAM, address, port)
        with pytest.raises(ConnectionRefusedError):
            net.ask(machine, STREAM, address, port)
        assert rig.counted()["packet_error_restored"] >= 1


@LINKS
@FAMILIES
@pytest.mark.parametrize("machine", ["a", "client"])
def test_a_narrow_path_behind_the_node_is_found_out(
    net: Namespaces, rig: Rig, family: int, machine: str
) -> None:
    """Else an upload stops at the first full packet: a black hole."""
    rig.expose(NODES[family], 30080, [Backend(ip_bytes(PODS["c"][family]), PORT)], MASQUERADE)
    route = {4: "10.244.2.0/24 via 192.0.2.2", 6: "fd00:244:2::/64 via 2001:db8:2::2"}[family]
    net.ip("node", [f"route replace {route} mtu 1300"])
    try:
        with net.connect(machine, STREAM, NODES[family], 30080) as upload:
            upload.socket.sendall(b"?" * 300_000 + b"\n")
            assert upload.answer().server == text(PODS["c"][family], PORT)
        assert rig.counted()["packet_error_restored"] >= 1
    finally:
        net.ip("node", [f"route replace {route}"])
        for asker in ("a", "client"):
            net.run(asker, "ip", "-6" if family == 6 else "-4", "route", "flush", "cache")


@LINKS
@pytest.mark.parametrize("through", ["a pod's port", "outside, masqueraded"])
def test_a_narrow_path_to_the_client_is_told_to_the_backend(net: Namespaces, rig: Rig, through: str) -> None:
    machine, address, port = (
        ("a", VIPS[4][0], 80) if through == "a pod's port" else ("client", NODES[4], 30080)
    )
    rig.expose(address, port, [Backend(ip_bytes(PODS["b"][4]), PORT)])
    with net.connect(machine, DATAGRAM, address, port) as asking, net.inside(machine):
        answer = asking.ask()
        client = asking.socket.getsockname()
        about = ip(UDP, address, client[0], udp(port, client[1], b"answer"))
        error = icmp_error(client[0], address, about, 3, 4, value=1200)
        with raw_socket() as raw:
            raw.sendto(error, (address, 0))
        net.settle()
        asking.ask()
    assert rig.counted()["packet_error_forwarded"] == 1
    seen = answer.client.rpartition(":")[0]
    assert "mtu 1200" in net.run("b", "ip", "route", "get", seen)
    net.run("b", "ip", "route", "flush", "cache")
