"""Odd and hostile packets: nothing crashes, nothing is half translated, and each kind is counted by name."""

import random

import pytest
from handover_agent.table import Backend, ip_bytes
from tests.datapath.frames import (
    DATA,
    INIT,
    SCTP,
    SYN,
    TCP,
    UDP,
    ethernet,
    ip,
    network,
    read,
    sctp,
    tcp,
    udp,
)
from tests.datapath.node import PODS, PORT
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, SHOT, Trial

pytestmark = pytest.mark.datapath

CLIENTS = {4: "10.244.1.2", 6: "fd00:244:1::2"}
FRONTENDS = {4: "10.96.0.10", 6: "fd00:96::10"}
PROGRAMS = ("from_outside", "from_pod", "outward")
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@pytest.fixture
def rig(trial_rig: Rig) -> Rig:
    return trial_rig


@pytest.fixture(autouse=True)
def served(rig: Rig) -> None:
    for family in (4, 6):
        rig.expose(FRONTENDS[family], 80, [Backend(ip_bytes(PODS["b"][family]), PORT)])
        rig.expose(FRONTENDS[family], 8080, [Backend(ip_bytes(PODS["b"][family]), PORT)])


SEGMENTS = {
    "tcp": (TCP, tcp(40000, 80)),
    "udp": (UDP, udp(40000, 80)),
    "sctp": (SCTP, sctp(40000, 80, INIT, 0, bytes(16))),
}


@FAMILIES
@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_packet_cut_at_any_byte_is_dropped_or_left_as_it_is(
    trial: Trial, rig: Rig, family: int, kind: str, program: str
) -> None:
    protocol, segment = SEGMENTS[kind]
    frame = ethernet(ip(protocol, CLIENTS[family], FRONTENDS[family], segment))
    header = 14 + {4: 20, 6: 40}[family]  # shorter ones: the next test
    needed = header + {TCP: 20, UDP: 8, SCTP: 20}[protocol]
    for length in range(header, needed):
        verdict, out, mark = trial.run(program, frame[:length])
        assert verdict == SHOT
        assert out == frame[:length]
        assert mark == 0
    assert rig.counted() == {"packet_malformed": needed - header}
    assert rig.flows() == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_noise_behind_any_ip_header_is_survived(trial: Trial, program: str) -> None:
    chosen = random.Random(20)
    for _ in range(2000):
        family = chosen.choice((4, 6))
        protocol = chosen.choice((TCP, UDP, SCTP, 1, 58, 0, 43, 44, 60, 51, 59))
        packet = bytearray(
            network(protocol, CLIENTS[family], FRONTENDS[family], chosen.randbytes(chosen.randrange(100)))
        )
        for _ in range(chosen.randrange(3)):
            packet[chosen.randrange(len(packet))] = chosen.randrange(256)
        kind = chosen.choice((b"\x08\x00", b"\x86\xdd" if len(packet) >= 40 else b"", b"\x08\x06"))
        frame = bytes(12) + (kind or b"\x08\x00") + bytes(packet)
        verdict, _, _ = trial.run(program, frame)
        assert verdict in (GO_ON, SHOT)


@FAMILIES
def test_a_header_that_lies_about_itself_is_dropped(trial: Trial, rig: Rig, family: int) -> None:
    for first in (0x00, 0x41, 0x44, 0x55, 0x65 if family == 4 else 0x45, 0xF0):
        packet = bytearray(ip(TCP, CLIENTS[family], FRONTENDS[family], tcp(40000, 80)))
        packet[0] = first
        frame = bytes(12) + (b"\x08\x00" if family == 4 else b"\x86\xdd") + bytes(packet)
        assert trial.run("from_pod", frame)[0] == SHOT
    assert rig.counted() == {"packet_malformed": 6}


def test_what_is_not_ip_is_left_alone(trial: Trial, rig: Rig) -> None:
    for program in PROGRAMS:
        assert trial.run(program, bytes(12) + b"\x08\x06" + bytes(28))[0] == GO_ON
    assert rig.counted() == {"packet_not_ip": 3}


@FAMILIES
def test_other_protocols_are_left_alone(trial: Trial, rig: Rig, family: int) -> None:
    for protocol in (47, 50, 51, 59, 4):  # GRE, ESP, AH, none, IP in IP
        for program in PROGRAMS:
            packet = network(protocol, CLIENTS[family], FRONTENDS[family], bytes(40))
            outcome = trial(program, packet)
            assert (outcome.verdict, outcome.packet, outcome.mark) == (GO_ON, packet, 0)
    assert rig.counted() == {"packet_other_protocol": 15}


@pytest.mark.parametrize("flags", [0, 0x3F, 0x03, 0x06, 0x07, 0x12, 0x29])
def test_odd_tcp_flags_open_nothing(trial: Trial, rig: Rig, flags: int) -> None:
    """None, all, SYN with FIN or RST: nobody's first packet."""
    packet = ip(TCP, CLIENTS[4], FRONTENDS[4], tcp(40000, 80, flags))
    outcome = trial("from_pod", packet)
    assert (outcome.verdict, outcome.packet) == (GO_ON, packet)
    assert rig.counted() == {"packet_no_flow": 1}
    assert rig.flows() == []


def test_ip_options_are_passed_over(trial: Trial) -> None:
    for length in range(4, 44, 4):
        packet = ip(TCP, CLIENTS[4], FRONTENDS[4], tcp(40000, 80), options=b"\x01" * length)
        assert read(trial("from_pod", packet).packet).port == PORT


def test_padding_behind_the_packet_is_not_part_of_it(trial: Trial) -> None:
    """Ethernet frames have 60 bytes at least. An SCTP checksum depends on the length."""
    packet = ip(SCTP, CLIENTS[4], FRONTENDS[4], sctp(40000, 80, INIT, 0, bytes(16)))
    _, out, _ = trial.run("from_pod", ethernet(packet) + b"padding")
    assert read(out[14:]).port == PORT
    assert out.endswith(b"padding")


def extensions(*lengths: int, last: int) -> bytes:
    """Destination options, of so many times 8 bytes; the first is called hop-by-hop options by its place."""
    following = [60] * (len(lengths) - 1) + [last]
    return b"".join(
        bytes([after, length - 1, 1, length * 8 - 4]) + bytes(length * 8 - 4)
        for after, length in zip(following, lengths, strict=True)
    )


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("lengths", [(1,), (3,), (1, 1), (2, 1, 4), (1,) * 8], ids=str)
def test_extension_headers_are_passed_over(trial: Trial, kind: str, lengths: tuple[int, ...]) -> None:
    protocol, segment = SEGMENTS[kind]
    whole = ip(protocol, CLIENTS[6], FRONTENDS[6], segment)
    packet = network(0, CLIENTS[6], FRONTENDS[6], extensions(*lengths, last=protocol) + whole[40:])
    found = read(trial("from_pod", packet).packet)
    assert (found.target, found.port) == (PODS["b"][6], PORT)


def test_more_extension_headers_than_are_looked_at_leave_a_packet_alone(trial: Trial, rig: Rig) -> None:
    packet = network(0, CLIENTS[6], FRONTENDS[6], extensions(*(1,) * 9, last=TCP) + tcp(40000, 80))
    assert trial("from_pod", packet).packet == packet
    assert rig.counted() == {"packet_other_protocol": 1}


@pytest.mark.parametrize(("left", "counted"), [(0, {}), (1, {"packet_source_routed": 1})])
def test_a_packet_that_visits_others_first_is_left_alone(
    trial: Trial, rig: Rig, left: int, counted: dict[str, int]
) -> None:
    routing = bytes([TCP, 2, 0, left]) + bytes(4) + ip_bytes("2001:db8::9")
    whole = ip(TCP, CLIENTS[6], FRONTENDS[6], tcp(40000, 80))
    packet = network(43, CLIENTS[6], FRONTENDS[6], routing + whole[40:])
    changed = trial("from_pod", packet).packet != packet
    assert changed == (not left)
    assert {name: n for name, n in rig.counted().items() if name == "packet_source_routed"} == counted


def test_a_piece_of_sctp_keeps_its_port_or_is_dropped(trial: Trial, rig: Rig) -> None:
    """Its checksum is over all pieces, of which the first does not know the length."""
    for family in (4, 6):
        for port, verdict in ((80, SHOT), (PORT, GO_ON)):
            segment = sctp(40000 + port, port, INIT, 0, bytes(16))
            packet = ip(SCTP, CLIENTS[family], FRONTENDS[family], segment, piece=(0, True))
            assert trial("from_pod", packet).verdict == verdict
        counted = rig.counted()
        assert (counted["packet_sctp_fragment"], counted["error_packet_not_rewritten"]) == (1, 1)


def test_answers_to_nobody_and_what_the_node_sends_are_left_alone(trial: Trial, rig: Rig) -> None:
    packet = ip(TCP, PODS["b"][4], CLIENTS[4], tcp(PORT, 40000, SYN))
    assert trial("outward", packet).packet == packet
    assert rig.counted() == {"packet_no_flow_back": 1}


def test_data_of_sctp_is_translated_whatever_its_port(trial: Trial) -> None:
    for port in (80, PORT):
        trial("from_pod", ip(SCTP, CLIENTS[4], FRONTENDS[4], sctp(40000, port, INIT, 0, bytes(16))))
        packet = ip(SCTP, CLIENTS[4], FRONTENDS[4], sctp(40000, port, DATA, 7, b"some data"))
        assert read(trial("from_pod", packet).packet).port == PORT


def test_a_flood_of_first_packets_leaves_the_table_in_order(trial: Trial, rig: Rig) -> None:
    for port in range(1, 400):
        trial("from_outside", ip(TCP, "198.51.100.9", FRONTENDS[4], tcp(port, 80, SYN)))
    assert len(rig.flows()) == 2 * 399
