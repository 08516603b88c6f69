"""The flow table: what keeps a connection with its backend, and apart from all others. One packet at a time."""

import random
from ipaddress import ip_address

import pytest
from handover_agent.datapath import Datapath
from handover_agent.entries import Direction, FlowFlags
from handover_agent.marks import Mark
from handover_agent.table import Backend, FrontendFlags, FrontendKey, Protocol, Scope, ip_bytes
from msgspec.structs import replace
from tests.datapath.frames import (
    ABORT,
    ACK,
    DATA,
    FIN,
    INIT,
    INIT_ACK,
    RST,
    SCTP,
    SHUTDOWN_COMPLETE,
    SYN,
    TCP,
    UDP,
    Read,
    ip,
    read,
    sctp,
    tcp,
    udp,
)
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, REDIRECT, SHOT, Outcome, Trial

pytestmark = pytest.mark.datapath

CLIENTS = {4: "10.244.1.2", 6: "fd00:244:1::2"}
FRONTENDS = {4: ("10.96.0.10", "10.96.0.11"), 6: ("fd00:96::10", "fd00:96::11")}
BACKENDS = {
    4: [f"10.244.2.{n}" for n in range(2, 10)],
    6: [f"fd00:244:2::{n}" for n in range(2, 10)],
}
MASQUERADED = Mark.OURS | Mark.MASQUERADE
EVERY = pytest.mark.parametrize(("family", "protocol"), [(f, p) for f in (4, 6) for p in (TCP, UDP, SCTP)])
CONNECTED = pytest.mark.parametrize("protocol", [TCP, SCTP])


@pytest.fixture
def rig(trial_rig: Rig) -> Rig:
    return trial_rig


class Talk:
    """A client's packets to a service, and its backend's answers, as the programs see them."""

    def __init__(
        self, trial: Trial, protocol: Protocol, family: int = 4, port: int = 40000, to: str = "", at: int = 80
    ) -> None:
        self.trial, self.protocol = trial, protocol
        self.client, self.port = CLIENTS[family], port
        self.to, self.at = to or FRONTENDS[family][0], at

    def send(self, segment: bytes, program: str = "from_pod") -> Outcome:
        return self.trial(program, ip(self.protocol, self.client, self.to, segment))

    def open(self, program: str = "from_pod", seq: int = 1000) -> Outcome:
        """The first packet."""
        segment = {
            TCP: tcp(self.port, self.at, SYN, seq),
            UDP: udp(self.port, self.at),
            SCTP: sctp(self.port, self.at, INIT, 0, seq.to_bytes(4, "big") + bytes(12)),
        }[self.protocol]
        return self.send(segment, program)

    def more(self) -> Outcome:
        """A packet in the middle."""
        segment = {
            TCP: tcp(self.port, self.at, ACK, 1001, 5001),
            UDP: udp(self.port, self.at, b"more"),
            SCTP: sctp(self.port, self.at, DATA, 77, b"more data"),
        }[self.protocol]
        return self.send(segment)

    def end(self) -> Outcome:
        """The last one, at once."""
        return self.send(
            tcp(self.port, self.at, RST, 1001, 5001)
            if self.protocol == TCP
            else sctp(self.port, self.at, ABORT, 77)
        )

    def answer(self, opened: Outcome, seq: int = 1000) -> Outcome:
        """The backend's answer to the packet that reached it."""
        seen = read(opened.packet)
        segment = {
            TCP: tcp(seen.port, seen.source_port, SYN | ACK, 5000, seq + 1),
            UDP: udp(seen.port, seen.source_port, b"answer"),
            SCTP: sctp(seen.port, seen.source_port, INIT_ACK, seq, bytes(16)),
        }[self.protocol]
        return self.back(seen, segment)

    def back(self, seen: Read, segment: bytes) -> Outcome:
        return self.trial("outward", ip(self.protocol, seen.target, seen.source, segment))


def ends_after(talk: Talk, rig: Rig, seconds: int) -> None:
    """A flow without packets for so long is over, and not much earlier."""
    rig.age_flows(seconds - 10)
    talk.open()
    assert "flow_ended" not in rig.counted()
    rig.age_flows(seconds + 1)
    talk.open()
    assert rig.counted()["flow_ended"] == 1


def backends(family: int = 4, count: int = 8, port: int = 8080) -> list[Backend]:
    return [Backend(ip_bytes(address), port) for address in BACKENDS[family][:count]]


def reached(outcome: Outcome) -> tuple[str, int]:
    assert outcome.verdict == GO_ON
    found = read(outcome.packet)
    return found.target, found.port


def came_from(outcome: Outcome) -> tuple[str, int, int]:
    """Source address and port, and the port that it is for."""
    assert outcome.verdict == GO_ON
    found = read(outcome.packet)
    return found.source, found.source_port, found.port


@EVERY
def test_a_connection_there_and_back_with_right_checksums(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1))
    talk = Talk(trial, protocol, family)
    opened = talk.open()
    assert reached(opened) == (BACKENDS[family][0], 8080)
    assert opened.mark == Mark.OURS
    assert came_from(talk.answer(opened)) == (FRONTENDS[family][0], 80, 40000)
    assert reached(talk.more()) == (BACKENDS[family][0], 8080)
    assert rig.counted() | {"backend_gone": 0} == {
        "flow_opened": 1,
        "packet_forwarded": 2,
        "packet_restored": 1,
        "backend_gone": 0,
    }
    assert len(rig.flows()) == 2


@EVERY
def test_a_packet_repeated_stays_with_its_backend(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    """A lost SYN or INIT is sent again; with another choice, two backends would answer one client."""
    rig.expose(FRONTENDS[family][0], 80, backends(family))
    talk = Talk(trial, protocol, family)
    assert len({reached(talk.open()) for _ in range(20)}) == 1
    assert rig.counted()["flow_opened"] == 1
    assert len(rig.flows()) == 2


@EVERY
def test_new_flows_spread(trial: Trial, rig: Rig, family: int, protocol: Protocol) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 4))
    found = [reached(Talk(trial, protocol, family, port).open())[0] for port in range(40000, 40100)]
    # Each has 25 on average; fewer than 4 happens once in 10^9 runs.
    assert min(found.count(address) for address in BACKENDS[family][:4]) >= 4


@EVERY
def test_a_change_of_addresses_alone_leaves_ports_alone(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1, port=80))
    talk = Talk(trial, protocol, family)
    opened = talk.open()
    assert reached(opened) == (BACKENDS[family][0], 80)
    assert came_from(talk.answer(opened)) == (FRONTENDS[family][0], 80, 40000)


def test_a_checksum_that_was_wrong_stays_wrong(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    for protocol, segment in ((TCP, tcp(1, 80)), (UDP, udp(1, 80)), (SCTP, sctp(1, 80, INIT, 0, bytes(16)))):
        made = bytearray(ip(protocol, CLIENTS[4], FRONTENDS[4][0], segment))
        made[20 + 4] ^= 1  # sequence number, length, tag: what the checksum covers, and we do not change
        with pytest.raises(AssertionError, match="the transport's checksum"):
            reached(trial("from_pod", bytes(made)))


def test_udp_without_a_checksum_stays_without(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    outcome = trial("from_pod", ip(UDP, CLIENTS[4], FRONTENDS[4][0], udp(1, 80), summed=False))
    assert read(outcome.packet).data[6:8] == bytes(2)


@pytest.mark.parametrize("family", [4, 6])
def test_a_udp_checksum_that_becomes_zero_is_written_as_ones(trial: Trial, rig: Rig, family: int) -> None:
    """Zero would mean that there is none."""
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1))
    other = ip(UDP, CLIENTS[family], BACKENDS[family][0], udp(1, 8080, bytes(2)))
    data = read(other).data[6:8]  # what is missing to zero
    after = ip(UDP, CLIENTS[family], BACKENDS[family][0], udp(1, 8080, data))
    assert read(after).data[6:8] == b"\xff\xff"
    outcome = trial("from_pod", ip(UDP, CLIENTS[family], FRONTENDS[family][0], udp(1, 80, data)))
    assert read(outcome.packet).data[6:8] == b"\xff\xff"


def test_sctp_checksums_of_every_length(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, SCTP)
    talk.open()
    chosen = random.Random(4)
    for length in [*range(24), *(chosen.randrange(24, 3000) for _ in range(30))]:
        data = chosen.randbytes(length)
        assert reached(talk.send(sctp(talk.port, 80, DATA, 77, data))) == (BACKENDS[4][0], 8080)


def test_an_sctp_checksum_left_to_the_device_is_left_to_it(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    segment = sctp(40000, 80, INIT, 0, bytes(16))
    outcome = trial("from_pod", ip(SCTP, CLIENTS[4], FRONTENDS[4][0], segment, summed=False))
    assert outcome.packet[28:32] == bytes(4)


@CONNECTED
def test_a_packet_in_the_middle_without_a_flow_is_left_alone(
    trial: Trial, rig: Rig, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    outcome = Talk(trial, protocol).more()
    assert (reached(outcome), outcome.mark) == ((FRONTENDS[4][0], 80), 0)
    assert rig.counted() == {"packet_no_flow": 1}
    assert rig.flows() == []


@CONNECTED
def test_a_port_used_again_after_the_end_gets_a_new_flow(trial: Trial, rig: Rig, protocol: Protocol) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, protocol)
    talk.answer(talk.open())
    talk.end()
    rig.expose(FRONTENDS[4][0], 80, [Backend(ip_bytes(BACKENDS[4][1]), 8080)])
    rig.counted()
    opened = talk.open(seq=2000)
    assert reached(opened) == (BACKENDS[4][1], 8080)
    assert came_from(talk.answer(opened, 2000))[:2] == (FRONTENDS[4][0], 80)
    counted = rig.counted()
    assert (counted["flow_ended"], counted["flow_opened"]) == (1, 1)


def test_both_ends_have_to_finish_before_a_tcp_flow_has_ended(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, TCP)
    opened = talk.open()
    talk.answer(opened)
    seen = read(opened.packet)
    for segment, ended in ((tcp(talk.port, 80, FIN | ACK, 1001, 5001), 0), (None, 1)):
        if segment:
            talk.send(segment)
        else:
            talk.back(seen, tcp(seen.port, seen.source_port, FIN | ACK, 5001, 1002))
        assert came_from(talk.back(seen, tcp(seen.port, seen.source_port, ACK, 5002, 1002)))[1] == 80
        rig.counted()
        talk.open(seq=2000)
        assert rig.counted().get("flow_ended", 0) == ended


def test_an_sctp_association_ends_with_its_last_chunk(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, SCTP)
    talk.answer(talk.open())
    talk.send(sctp(talk.port, 80, SHUTDOWN_COMPLETE, 77))
    talk.open()
    assert rig.counted()["flow_ended"] == 1


@pytest.mark.parametrize(
    ("protocol", "answered", "seconds"),
    [
        (TCP, False, 120),
        (TCP, True, 432_000),
        (UDP, False, 30),
        (SCTP, False, 60),
        (SCTP, True, 432_000),
    ],
)
def test_a_flow_without_packets_ends_by_time(
    trial: Trial, rig: Rig, protocol: Protocol, answered: bool, seconds: int
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, protocol)
    opened = talk.open()
    if answered:
        talk.answer(opened)
    ends_after(talk, rig, seconds)


@pytest.mark.parametrize("by", ["client", "backend"])
def test_datagrams_that_go_on_are_remembered_for_longer_than_a_question_and_its_answer(
    trial: Trial, rig: Rig, by: str
) -> None:
    """As by conntrack: or a port that another socket has a minute later would lead to the backend of the first."""
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    opened = talk.open()
    for _ in range(5):
        talk.answer(opened)
        talk.open()
    assert [flow.stream for flow in rig.flows()] == [False, False]
    rig.age_flows(2)
    talk.open() if by == "client" else talk.answer(opened)
    assert [flow.stream for flow in rig.flows()] == [True, True]
    ends_after(talk, rig, 120)


def test_a_question_and_its_answer_are_forgotten_as_soon_as_a_question_alone(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    talk.answer(talk.open())
    rig.age_flows(31)
    talk.open()
    assert rig.counted()["flow_ended"] == 1


def test_datagrams_that_nobody_answers_are_no_stream(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    for _ in range(3):
        talk.open()
        rig.age_flows(20)
    assert not any(flow.stream or flow.answered for flow in rig.flows())


@pytest.mark.parametrize("by", ["client", "backend"])
def test_a_connection_that_one_end_has_finished_ends_by_a_shorter_time(
    trial: Trial, rig: Rig, by: str
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, TCP)
    opened = talk.open()
    talk.answer(opened)
    if by == "client":
        talk.send(tcp(talk.port, 80, FIN | ACK, 1001, 5001))
    else:
        seen = read(opened.packet)
        talk.back(seen, tcp(seen.port, seen.source_port, FIN | ACK, 5001, 1001))
    ends_after(talk, rig, 120)


def test_answers_keep_a_flow_of_datagrams_alive(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    opened = talk.open()
    talk.answer(opened)
    rig.age_flows(20)
    talk.answer(opened)
    for _ in range(3):
        rig.age_flows(100)
        talk.answer(opened)
    rig.age_flows(100)
    assert reached(talk.open()) == reached(opened)
    assert "flow_ended" not in rig.counted()


def test_a_flow_of_datagrams_that_was_seen_before_new_ones_are_accepted_is_conntracks(
    trial: Trial, rig: Rig
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    older, newer, stream = Talk(trial, UDP), Talk(trial, UDP, port=40001), Talk(trial, TCP)
    with rig.standing_by():
        for talk in (older, stream):
            assert reached(talk.open()) == (talk.to, 80)
    assert [flow.flags for flow in rig.flows()] == [FlowFlags.LEFT]
    for _ in range(3):
        assert reached(older.open()) == (older.to, 80)
    assert reached(newer.open()) != (newer.to, 80)
    assert reached(stream.open()) != (stream.to, 80)
    counted = rig.counted()
    assert (counted["packet_left"], counted["flow_opened"]) == (3, 2)


def test_it_is_forgotten_no_later_than_by_conntrack(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    with rig.standing_by():
        talk.open()
    for _ in range(3):
        rig.age_flows(29)
        assert reached(talk.open()) == (talk.to, 80)
    rig.age_flows(30)
    assert reached(talk.open()) != (talk.to, 80)
    assert rig.counted()["flow_ended"] == 1
    assert len(rig.flows()) == 2


@pytest.mark.parametrize("way", ["question", "answer"])
def test_datagrams_of_a_flow_that_is_being_handed_over_arrive_once_more_but_not_for_ever(
    trial: Trial, rig: Rig, way: str
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, UDP)
    seen = read(talk.open().packet)
    answer = ip(UDP, seen.target, seen.source, udp(seen.port, seen.source_port, b"answer"))

    def arrives() -> Outcome:
        return talk.open() if way == "question" else trial("from_pod", answer)

    rig.hold_flows()
    rig.counted()
    assert arrives().verdict == REDIRECT
    assert rig.counted() == {"packet_held": 1}
    rig.age_flows(1)
    assert arrives().verdict == GO_ON
    assert "packet_held" not in rig.counted()


@EVERY
def test_two_frontends_of_one_backend_from_one_port_are_two_flows(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    """Behind the translation they would be one connection: the second has another port there."""
    first, second = (Talk(trial, protocol, family, to=address) for address in FRONTENDS[family])
    for talk in (first, second):
        rig.expose(talk.to, 80, backends(family, 1))
    opened = [talk.open() for talk in (first, second)]
    assert reached(opened[0]) == reached(opened[1])
    ports = [read(outcome.packet).source_port for outcome in opened]
    assert ports[0] == 40000
    assert 1024 <= ports[1] < 30000
    assert rig.counted()["flow_port_changed"] == 1
    for talk, outcome in zip((first, second), opened, strict=True):
        assert came_from(talk.answer(outcome)) == (talk.to, 80, 40000)
    assert [read(talk.more().packet).source_port for talk in (first, second)] == ports


@CONNECTED
def test_a_direct_connection_ends_what_a_flow_that_ended_left(
    trial: Trial, rig: Rig, protocol: Protocol
) -> None:
    """Its answers would come from the frontend else."""
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk, direct = Talk(trial, protocol), Talk(trial, protocol, to=BACKENDS[4][0], at=8080)
    talk.answer(talk.open())
    talk.end()
    opened = direct.open(seq=2000)
    assert (reached(opened), opened.mark) == ((BACKENDS[4][0], 8080), 0)
    assert came_from(direct.answer(opened, 2000)) == (BACKENDS[4][0], 8080, 40000)
    assert rig.flows() == []


@EVERY
def test_a_direct_connection_from_the_port_of_a_flow_gets_another_port(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1))
    talk = Talk(trial, protocol, family)
    direct = Talk(trial, protocol, family, to=BACKENDS[family][0], at=8080)
    through = talk.open()
    talk.answer(through)
    opened = direct.open(seq=2000)
    assert reached(opened) == (BACKENDS[family][0], 8080)
    port = read(opened.packet).source_port
    assert 1024 <= port < 30000
    assert opened.mark == Mark.OURS
    assert rig.counted()["flow_direct_changed"] == 1
    for _ in range(2):
        assert came_from(direct.answer(opened, 2000)) == (BACKENDS[family][0], 8080, 40000)
        assert came_from(talk.answer(through)) == (FRONTENDS[family][0], 80, 40000)
        assert (
            read(direct.more().packet).source_port == read(direct.open(seq=2000).packet).source_port == port
        )
        assert read(talk.more().packet).source_port == 40000


@CONNECTED
def test_a_direct_connection_that_was_there_before_is_not_mistaken(
    trial: Trial, rig: Rig, protocol: Protocol
) -> None:
    """We do not know of it, until the backend answers a new flow's first packet in another way than as one."""
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, protocol)
    seen = read(talk.open().packet)
    of_direct = {
        TCP: tcp(seen.port, seen.source_port, ACK, 900_000, 800_000),
        SCTP: sctp(seen.port, seen.source_port, DATA, 12, b"data"),
    }[protocol]
    for _ in range(2):
        assert came_from(talk.back(seen, of_direct)) == (BACKENDS[4][0], 8080, 40000)
    assert rig.counted()["flow_confused"] == 2
    again = talk.open()
    assert read(again.packet).source_port != 40000
    assert rig.counted()["flow_port_changed"] == 1
    assert came_from(talk.answer(again)) == (FRONTENDS[4][0], 80, 40000)
    assert came_from(talk.back(seen, of_direct)) == (BACKENDS[4][0], 8080, 40000)


def test_an_answer_with_fast_open_acknowledges_data_too(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, TCP)
    seen = read(talk.open(seq=0xFFFFFFF0).packet)
    answer = tcp(seen.port, seen.source_port, SYN | ACK, 1, 0xFFFFFFF1 + 400 & 0xFFFFFFFF)
    assert came_from(talk.back(seen, answer))[:2] == (FRONTENDS[4][0], 80)


def test_a_refusal_by_the_backend_comes_from_the_frontend(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    for protocol in (TCP, SCTP):
        talk = Talk(trial, protocol)
        seen = read(talk.open().packet)
        refusal = {
            TCP: tcp(seen.port, seen.source_port, RST | ACK, 0, 1001),
            SCTP: sctp(seen.port, seen.source_port, ABORT, 1000),
        }[protocol]
        assert came_from(talk.back(seen, refusal))[:2] == (FRONTENDS[4][0], 80)


@CONNECTED
def test_another_attempt_from_the_same_port_has_another_answer(
    trial: Trial, rig: Rig, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4))
    talk = Talk(trial, protocol)
    talk.open(seq=1000)
    opened = talk.open(seq=77_000_000)
    assert came_from(talk.answer(opened, 77_000_000))[:2] == (FRONTENDS[4][0], 80)


@EVERY
def test_a_flow_whose_backend_left_the_frontend_moves_with_its_next_first_packet(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1))
    talk = Talk(trial, protocol, family)
    talk.open()
    rig.expose(FRONTENDS[family][0], 80, backends(family)[1:2])
    assert reached(talk.open()) == (BACKENDS[family][1], 8080)
    assert rig.counted()["flow_moved"] == 1


@EVERY
def test_a_backend_that_has_another_port_now_is_another(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1, port=8080))
    talk = Talk(trial, protocol, family)
    talk.open()
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1, port=8081))
    assert reached(talk.open()) == (BACKENDS[family][0], 8081)


@pytest.mark.parametrize("family", [4, 6])
def test_a_backend_is_found_again_wherever_it_is_in_another_region(
    trial: Trial, rig: Rig, family: int
) -> None:
    """Regions are in the order of bytes. Read as the machine reads numbers, most of these would be in another one."""
    chance = random.Random(family)
    prefix, rest = (b"\x0a", 3) if family == 4 else (b"\xfd\x00", 14)
    hosts = [prefix + bytes(chance.choices((0, 1, 2, 254, 255), k=rest)) for _ in range(20)]
    ends = [(str(ip_address(host)), port) for host in hosts for port in (255, 256, 8080, 36895)]
    region = sorted({Backend(ip_bytes(host), port) for host, port in ends})
    opened = {}
    for number, backend in enumerate(region):
        rig.expose(FRONTENDS[family][0], 80, [backend])
        talk = Talk(trial, UDP, family, 40000 + number)
        opened[talk] = reached(talk.open())
    rig.expose(FRONTENDS[family][0], 80, region)
    assert {talk: reached(talk.open()) for talk in opened} == opened
    assert "flow_moved" not in rig.counted()


@CONNECTED
def test_a_connection_goes_on_when_its_backend_left_the_frontend(
    trial: Trial, rig: Rig, protocol: Protocol
) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, protocol)
    opened = talk.open()
    talk.answer(opened)
    rig.expose(FRONTENDS[4][0], 80, backends(4)[1:2])
    assert reached(talk.more()) == reached(opened)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("chosen", [0, 1], ids=["no-other", "others"])
def test_datagrams_stay_with_a_backend_that_gets_no_new_ones_as_long_as_it_serves(
    trial: Trial, rig: Rig, family: int, chosen: int
) -> None:
    """Terminating, behind a Local policy, or in another zone by now: kube-proxy leaves its flows alone, too."""
    ends = backends(family)
    rig.expose(FRONTENDS[family][0], 80, ends[:1])
    talk, new = Talk(trial, UDP, family), Talk(trial, UDP, family, 40001)
    opened = talk.open()
    flags = FrontendFlags.NONE if chosen else FrontendFlags.DROP
    rig.expose(FRONTENDS[family][0], 80, ends[2 : 2 + chosen], flags, draining=ends[:2])
    rig.age_flows(20)
    assert reached(talk.open()) == reached(opened)
    assert not {"flow_moved", "flow_draining"} & rig.counted().keys()
    if chosen:
        assert reached(new.open()) == (BACKENDS[family][2], 8080)
    else:
        assert new.open().verdict == SHOT
    rig.expose(FRONTENDS[family][0], 80, ends[2:3], draining=ends[1:2])
    assert reached(talk.open()) == (BACKENDS[family][2], 8080)
    assert rig.counted()["flow_moved"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_a_draining_backend_is_found_wherever_it_is_behind_the_others(
    trial: Trial, rig: Rig, family: int
) -> None:
    ends = [replace(backends(family)[0], port=port) for port in range(8000, 8040)]
    talks = [Talk(trial, UDP, family, 40000 + number) for number in range(len(ends))]
    opened = []
    for talk, end in zip(talks, ends, strict=True):
        rig.expose(FRONTENDS[family][0], 80, [end])
        opened.append(reached(talk.open()))
    for chosen in (0, 1, 7, 39):
        rig.expose(FRONTENDS[family][0], 80, ends[:chosen], draining=ends[chosen:])
        assert [reached(talk.open()) for talk in talks] == opened
    assert "flow_moved" not in rig.counted()


def test_datagrams_stay_with_a_backend_that_left_the_frontend_as_long_as_it_answers(
    trial: Trial, rig: Rig
) -> None:
    """A server that is about to end answers those that it knows: QUIC would not survive a move."""
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, UDP)
    opened = talk.open()
    talk.answer(opened)
    rig.expose(FRONTENDS[4][0], 80, backends(4)[1:2])
    assert reached(talk.open()) == reached(opened)
    assert rig.counted()["flow_draining"] == 1
    rig.age_flows(3)
    assert reached(talk.open()) == (BACKENDS[4][1], 8080)


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_leave_a_backend_that_answers_but_serves_no_more(
    trial: Trial, rig: Rig, trial_datapath: Datapath, family: int
) -> None:
    """As with kube-proxy: what is not in any EndpointSlice has no clients, whatever it answers."""
    stays, leaves = Talk(trial, UDP, family), Talk(trial, UDP, family, 40001)
    for talk, backend in ((stays, 1), (leaves, 0)):
        rig.expose(FRONTENDS[family][0], 80, backends(family)[backend : backend + 1])
        talk.answer(talk.open())
    rig.expose(FRONTENDS[family][0], 80, backends(family)[2:3])
    frontend = FrontendKey(ip_bytes(FRONTENDS[family][0]), 80, UDP)
    assert trial_datapath.remembered.forget_udp_flows({frontend: set(backends(family)[1:3])}) == 2
    assert reached(stays.open()) == (BACKENDS[family][1], 8080)
    assert reached(leaves.open()) == (BACKENDS[family][2], 8080)


def test_a_packet_with_some_bits_of_our_mark_is_anybodys(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    packet = ip(TCP, CLIENTS[4], FRONTENDS[4][0], tcp(40000, 80))
    for mark in (0x100, 0x400, 0xFFFFFAFF):
        assert reached(trial("from_pod", packet, mark)) == (BACKENDS[4][0], 8080)
    assert trial("from_pod", packet, Mark.OURS).packet == packet  # sent there by ourselves


def test_datagrams_of_a_frontend_that_is_gone_are_left_alone(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, UDP)
    talk.answer(talk.open())
    rig.withdraw(FRONTENDS[4][0], 80)
    assert reached(talk.open()) == (FRONTENDS[4][0], 80)
    assert rig.flows() == []


def test_an_answer_is_not_taken_for_a_request_where_its_port_is_a_frontends(trial: Trial, rig: Rig) -> None:
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    talk = Talk(trial, UDP)
    seen = read(talk.open("from_outside").packet)
    rig.expose(talk.client, talk.port, backends(4))
    answer = ip(UDP, seen.target, seen.source, udp(seen.port, seen.source_port))
    outcome = trial("from_outside", answer)
    assert (outcome.packet, outcome.mark) == (answer, 0)
    assert rig.counted()["packet_answers"] == 1


@pytest.mark.parametrize("lost", Direction)
@EVERY
def test_an_entry_that_a_full_map_lost_is_written_again(
    trial: Trial, rig: Rig, family: int, protocol: Protocol, lost: Direction
) -> None:
    rig.expose(FRONTENDS[family][0], 80, backends(family, 1))
    talk = Talk(trial, protocol, family)
    opened = talk.open()
    talk.answer(opened)
    before = rig.flows()
    rig.age_flows(2)
    rig.lose_flows(lost)
    if lost is Direction.BACKWARD:
        talk.more()
    else:
        talk.answer(opened)
    assert rig.counted()["flow_repaired"] == 1

    def shape(flows: list[object]) -> object:
        return sorted(str(flow).split("last_seen")[0] for flow in flows)

    assert shape([*rig.flows()]) == shape([*before])
    assert reached(talk.more()) == reached(opened)
    assert came_from(talk.answer(opened)) == (FRONTENDS[family][0], 80, 40000)


def test_no_port_free_is_an_error_and_the_packet_dropped(trial: Trial, rig: Rig) -> None:
    """Nearly: where 1 of 28976 ports is free, eight tries find none."""
    rig.expose(FRONTENDS[4][0], 80, backends(4, 1))
    rig.expose(FRONTENDS[4][1], 80, backends(4, 1))
    Talk(trial, TCP).open()
    rig.occupy(Talk(trial, TCP).client, BACKENDS[4][0], 8080, range(1024, 30000))
    rig.counted()
    second = Talk(trial, TCP, to=FRONTENDS[4][1])
    assert second.open().verdict == SHOT
    assert rig.counted()["error_flow_ports"] == 1
    assert all(flow.destination.port != 80 or flow.source.port == 40000 for flow in rig.flows())


def test_ports_of_flows_that_have_ended_are_used_again(trial: Trial, rig: Rig) -> None:
    """Nobody sweeps the flows, and thousands of short connections leave one at every port."""
    for frontend in FRONTENDS[4][:2]:
        rig.expose(frontend, 80, backends(4, 1))
    ended = Talk(trial, TCP)
    ended.open()
    ended.end()
    rig.occupy(ended.client, BACKENDS[4][0], 8080, range(1024, 30000))
    Talk(trial, TCP, to=FRONTENDS[4][1]).open()
    rig.counted()
    assert ended.open().verdict != SHOT
    counted = rig.counted()
    assert counted["flow_port_changed"] == 1
    assert "error_flow_ports" not in counted


@EVERY
def test_marks_tell_what_the_kernel_has_to_do(
    trial: Trial, rig: Rig, family: int, protocol: Protocol
) -> None:
    frontend = FRONTENDS[family][0]
    mine = [Backend(ip_bytes(CLIENTS[family]), 8080)]
    for scope, program, endpoints, flags, mark in (
        (Scope.INTERNAL, "from_pod", backends(family, 1), FrontendFlags.NONE, Mark.OURS),
        (Scope.INTERNAL, "from_pod", backends(family, 1), FrontendFlags.MASQUERADE, MASQUERADED),
        (Scope.INTERNAL, "from_pod", mine, FrontendFlags.NONE, MASQUERADED),
        (Scope.INTERNAL, "from_outside", backends(family, 1), FrontendFlags.NONE, MASQUERADED),
        (Scope.EXTERNAL, "from_outside", backends(family, 1), FrontendFlags.NONE, Mark.OURS),
        (Scope.EXTERNAL, "from_outside", backends(family, 1), FrontendFlags.MASQUERADE, MASQUERADED),
        (Scope.INTERNAL, "from_pod", [], FrontendFlags.REFUSE, Mark.REFUSE),
    ):
        rig.lose_flows()
        rig.expose(frontend, 80, endpoints, flags, scope)
        talk = Talk(trial, protocol, family)
        assert talk.open(program).mark == mark
        if mark != Mark.REFUSE:
            assert talk.more().mark == mark
            packet = ip(
                protocol, talk.client, frontend, tcp(talk.port, 80) if protocol == TCP else udp(40000, 80)
            )
            if protocol != SCTP:
                assert trial(program, packet, mark=0x4000_0001).mark == mark | 0x4000_0001
