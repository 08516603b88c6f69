"""Datagrams in pieces, of which only the first has ports."""

import pytest
from handover_agent.marks import Mark
from handover_agent.table import Backend, FrontendFlags, ip_bytes
from tests.datapath.frames import TCP, UDP, Read, ip, network, read, tcp, udp
from tests.datapath.node import LINKS, NODES, PODS, PORT, Namespaces, text
from tests.datapath.pods import UDP as DATAGRAM
from tests.datapath.pods import VIPS
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, SHOT, Trial

pytestmark = pytest.mark.datapath

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
CLIENTS = {4: "10.244.1.2", 6: "fd00:244:1::2"}
BACKENDS = {4: "10.244.2.2", 6: "fd00:244:2::2"}
MASQUERADE = FrontendFlags.MASQUERADE
PIECE = 1480  # bytes; what does not end a datagram is a multiple of 8


def pieces(source: str, target: str, segment: bytes, number: int = 7) -> list[bytes]:
    """A datagram cut up, its checksum right."""
    head = 20 if ":" not in source else 40
    summed = ip(UDP, source, target, segment)[head:]
    return [
        network(
            UDP,
            source,
            target,
            summed[at : at + PIECE],
            piece=(at // 8, at + PIECE < len(summed)),
            number=number,
        )
        for at in range(0, len(summed), PIECE)
    ]


def whole(found: list[bytes]) -> Read:
    """The datagram that pieces make; AssertionError when its checksum, or an IP header's, is wrong."""
    reads = [read(packet, whole=False) for packet in found]
    ends = {(each.source, each.target) for each in reads}
    assert len(ends) == 1, ends
    source, target = ends.pop()
    return read(network(UDP, source, target, b"".join(each.data for each in reads)))


@FAMILIES
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=str)
def test_all_pieces_go_where_the_first_goes(
    trial: Trial, trial_rig: Rig, family: int, order: tuple[int, ...]
) -> None:
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)], MASQUERADE)
    there = pieces(CLIENTS[family], vip, udp(40000, 80, b"a" * 4000))
    outcomes = {at: trial("from_pod", there[at]) for at in order}
    assert {outcome.mark for outcome in outcomes.values()} == {Mark.OURS | Mark.MASQUERADE}
    arrived = whole([outcomes[at].packet for at in range(3)])
    assert (arrived.target, arrived.port, len(arrived.data)) == (BACKENDS[family], PORT, 4008)

    back = pieces(BACKENDS[family], CLIENTS[family], udp(PORT, 40000, b"b" * 4000))
    answers = {at: trial("outward", back[at]) for at in order}
    answer = whole([answers[at].packet for at in range(3)])
    assert (answer.source, answer.source_port, answer.port) == (vip, 80, 40000)
    assert trial_rig.counted() == {
        "flow_opened": 1,
        "packet_forwarded": 3,
        "packet_restored": 3,
    }


@FAMILIES
def test_a_piece_before_the_first_is_left_alone(trial: Trial, trial_rig: Rig, family: int) -> None:
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    there = pieces(CLIENTS[family], vip, udp(40000, 80, b"a" * 2000))
    outcome = trial("from_pod", there[1])
    assert (outcome.verdict, outcome.packet, outcome.mark) == (GO_ON, there[1], 0)
    assert trial_rig.counted() == {"packet_fragment": 1}


@FAMILIES
def test_pieces_of_another_datagram_are_not_taken_for_this_ones(
    trial: Trial, trial_rig: Rig, family: int
) -> None:
    """Another number, another protocol, another client, the other way: each is another datagram."""
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    segment = udp(40000, 80, b"a" * 2000)
    trial("from_pod", pieces(CLIENTS[family], vip, segment)[0])
    other = {4: "10.244.1.9", 6: "fd00:244:1::9"}[family]
    for program, piece in (
        ("from_pod", pieces(CLIENTS[family], vip, segment, number=8)[1]),
        ("from_pod", pieces(other, vip, segment)[1]),
        ("from_pod", network(TCP, CLIENTS[family], vip, bytes(500), piece=(185, False))),
        ("outward", pieces(CLIENTS[family], vip, segment)[1]),
    ):
        assert trial(program, piece).packet == piece


@FAMILIES
def test_a_number_used_again_for_what_is_not_translated_is_left_alone(
    trial: Trial, trial_rig: Rig, family: int
) -> None:
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    for piece in pieces(CLIENTS[family], vip, udp(40000, 80, b"a" * 2000)):
        assert read(trial("from_pod", piece).packet, whole=False).target == BACKENDS[family]
    for piece in pieces(CLIENTS[family], vip, udp(40000, 81, b"a" * 2000)):
        assert trial("from_pod", piece).packet == piece


@FAMILIES
def test_the_first_piece_counts_for_half_a_minute(trial: Trial, trial_rig: Rig, family: int) -> None:
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    first, last = pieces(CLIENTS[family], vip, udp(40000, 80, b"a" * 2000))
    trial("from_pod", first)
    trial_rig.age_fragments(29)
    assert trial("from_pod", last).packet != last
    trial_rig.age_fragments(2)
    assert trial("from_pod", last).packet == last


@FAMILIES
def test_a_first_piece_too_short_for_its_header_is_dropped(trial: Trial, trial_rig: Rig, family: int) -> None:
    """What hides a TCP header's flags in the second piece does it on purpose."""
    vip = VIPS[family][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[family]), PORT)])
    packet = network(TCP, CLIENTS[family], vip, tcp(40000, 80)[:8], piece=(0, True))
    assert trial("from_pod", packet).verdict == SHOT
    assert trial_rig.counted() == {"packet_malformed": 1}


def test_options_behind_the_fragment_header_are_passed_over(trial: Trial, trial_rig: Rig) -> None:
    """Pieces then say that they are options, and not UDP."""
    vip = VIPS[6][0]
    trial_rig.expose(vip, 80, [Backend(ip_bytes(BACKENDS[6]), PORT)])
    options = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    summed = ip(UDP, CLIENTS[6], vip, udp(40000, 80, b"a" * 2000))[40:]
    first = network(60, CLIENTS[6], vip, options + summed[:1472], piece=(0, True))
    last = network(60, CLIENTS[6], vip, summed[1472:], piece=(185, False))
    for packet in (first, last):
        assert read(trial("from_pod", packet).packet, whole=False).target == BACKENDS[6]


@LINKS
@FAMILIES
@pytest.mark.parametrize("size", [1400, 8000, 60000])
@pytest.mark.parametrize("backend", ["b", "c"], ids=["same-node", "other-node"])
def test_large_datagrams_arrive_and_are_answered(
    net: Namespaces, rig: Rig, family: int, size: int, backend: str
) -> None:
    endpoint = [Backend(ip_bytes(PODS[backend][family]), PORT)]
    rig.expose(VIPS[family][0], 80, endpoint)
    rig.expose(NODES[family], 30080, endpoint, MASQUERADE)
    for machine, address, port in (("a", VIPS[family][0], 80), ("client", NODES[family], 30080)):
        with net.connect(machine, DATAGRAM, address, port) as asking:
            for _ in range(3):
                answer = asking.ask(size)
                assert (answer.server, answer.source, answer.size) == (
                    text(PODS[backend][family], PORT),
                    text(address, port),
                    size,
                )
