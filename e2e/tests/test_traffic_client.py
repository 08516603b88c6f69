"""The traffic client against servers on the loopback address that misbehave: each loss under its own name."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from e2e.traffic.client.__main__ import Client, arguments
from e2e.traffic.client.dns import look_up, lookups, question
from e2e.traffic.client.ledger import Ledger, Tally
from e2e.traffic.client.loop import Loop
from e2e.traffic.client.targets import GONE, REFUSED, SERVED, Expectations, Target, ways
from e2e.traffic.client.tcp import HeldConnections, NewConnections, Streams, WrongAnswerError, check_answer
from e2e.traffic.client.udp import Datagrams, Exchange, echo

pytestmark = pytest.mark.unit

Respond = Callable[[bytes], bytes | None]  # request → answer; empty: none; None: reset the connection


def echo_http(request: bytes) -> bytes:
    nonce = request.split(b"msg=")[1].split(b" ")[0]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(nonce), nonce)


class TcpServer:
    """Answers every request with what `respond` makes of it, which a test may change at any time."""

    def __init__(self, respond: Respond = echo_http) -> None:
        self.respond = respond
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            while request := _received(sock):
                answer = self.respond(request)
                if answer is None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                with contextlib.suppress(OSError):  # the client gave up
                    sock.sendall(answer)

    def stop_listening(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def close(self) -> None:
        if self.listener.fileno() >= 0:
            self.stop_listening()
        for sock in self.accepted:
            with contextlib.suppress(OSError):  # closed by its thread, or by the client
                sock.shutdown(socket.SHUT_RDWR)


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except OSError:
        return b""


@pytest.fixture
def server() -> Iterator[TcpServer]:
    made = TcpServer()
    yield made
    made.close()


@contextmanager
def udp_server(respond: Callable[[bytes], bytes], from_elsewhere: bool = False) -> Iterator[int]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere,
    ):
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                datagram, source = sock.recvfrom(4096)
                if not datagram:
                    return
                if answer := respond(datagram):
                    (elsewhere if from_elsewhere else sock).sendto(answer, source)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield sock.getsockname()[1]
        elsewhere.sendto(b"", sock.getsockname())
        thread.join()


def run_until(loop: Loop, condition: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        loop.step(0.05)


def held(server_port: int, answer_within_s: float = 5.0) -> tuple[Loop, Ledger, HeldConnections]:
    loop, ledger = Loop(), Ledger("test")
    streams = Streams(loop, ledger, "n1/pod", answer_within_s)
    return loop, ledger, HeldConnections(streams, [Target("web", "127.0.0.1", server_port)], 4, 0.02)


def new(
    server_port: int, answer_within_s: float = 5.0, targets: list[Target] | None = None
) -> tuple[Loop, Ledger]:
    loop, ledger = Loop(), Ledger("test")
    streams = Streams(loop, ledger, "n1/pod", answer_within_s)
    wanted = targets if targets is not None else [Target("web", "127.0.0.1", server_port)]
    NewConnections(streams, lambda: wanted, 200)
    return loop, ledger


def datagrams(
    exchange: Exchange,
    port: int,
    connected: bool,
    fixed: bool,
    answer_within_s: float = 5.0,
    targets: list[Target] | None = None,
) -> tuple[Loop, Ledger]:
    loop, ledger = Loop(), Ledger("test")
    Datagrams(
        loop,
        ledger,
        exchange,
        lambda: [Target("web", "127.0.0.1", port)] if targets is None else targets,
        100,
        connected,
        fixed,
        answer_within_s,
    )
    return loop, ledger


def seen(ledger: Ledger) -> Tally:
    """All phases and streams together."""
    total = Tally()
    for phase in ledger.phases:
        for tally in phase.tallies.values():
            total.opened += tally.opened
            total.asked += tally.asked
            total.answered += tally.answered
            total.waited += tally.waited
            total.lost += tally.lost
    return total


def test_held_connections_are_opened_once_and_asked_again_and_again(server: TcpServer) -> None:
    loop, ledger, connections = held(server.port)
    run_until(loop, lambda: seen(ledger).answered >= 100)
    assert not seen(ledger).lost
    assert seen(ledger).opened == connections.established == 4


def test_new_connections_are_opened_for_every_request(server: TcpServer) -> None:
    loop, ledger = new(server.port)
    run_until(loop, lambda: seen(ledger).answered >= 30)
    assert not seen(ledger).lost
    assert seen(ledger).opened >= 30
    assert sum(ledger.phases[0].tallies["tcp4 new"].connect.values()) == seen(ledger).opened


def test_a_reset_of_a_held_connection_is_a_loss_and_it_is_opened_anew(server: TcpServer) -> None:
    loop, ledger, connections = held(server.port)
    run_until(loop, lambda: connections.established == 4)
    server.respond = lambda request: None
    run_until(loop, lambda: seen(ledger).lost["reset"] >= 4)
    server.respond = echo_http
    run_until(loop, lambda: connections.established == 4)


def test_a_held_connection_that_ends_at_rest_is_a_loss(server: TcpServer) -> None:
    loop, ledger, connections = held(server.port)
    run_until(loop, lambda: connections.established == 4 and len(server.accepted) == 4)
    server.accepted[0].shutdown(socket.SHUT_RDWR)
    run_until(loop, lambda: seen(ledger).lost.total() == 1)
    tally = seen(ledger)
    assert tally.asked - tally.answered - tally.lost.total() in range(5)


def test_silence_on_a_held_connection_is_a_request_timeout(server: TcpServer) -> None:
    server.respond = lambda request: b""
    loop, ledger, _ = held(server.port, answer_within_s=0.1)
    run_until(loop, lambda: seen(ledger).lost["request-timeout"] >= 4)


def test_silence_on_a_new_connection_is_a_request_timeout(server: TcpServer) -> None:
    server.respond = lambda request: b""
    loop, ledger = new(server.port, answer_within_s=0.1)
    run_until(loop, lambda: seen(ledger).lost["request-timeout"] >= 4)


def test_a_refused_connection_is_a_loss_of_its_kind(server: TcpServer) -> None:
    server.stop_listening()
    for loop, ledger in (new(server.port), held(server.port)[:2]):
        run_until(loop, lambda ledger=ledger: seen(ledger).lost["connect-refused"] >= 4)  # type: ignore[misc]


def test_a_connection_that_nobody_accepts_is_a_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        loop, ledger = new(listener.getsockname()[1], answer_within_s=0.2)
        run_until(loop, lambda: seen(ledger).lost["connect-timeout"] >= 2)


def test_an_answer_to_somebody_else_is_a_wrong_answer(server: TcpServer) -> None:
    server.respond = lambda request: echo_http(b"GET /echo?msg=n2-pod-1 HTTP/1.1")
    for loop, ledger in (new(server.port), held(server.port)[:2]):
        run_until(loop, lambda ledger=ledger: seen(ledger).lost["wrong-answer"] >= 4)  # type: ignore[misc]


def test_an_answer_that_has_arrived_counts_however_late_the_client_looks(server: TcpServer) -> None:
    loop, ledger, connections = held(server.port)
    run_until(loop, lambda: connections.established == 4 and seen(ledger).answered > 40)
    asking: list[socket.socket] = []
    while not asking:
        loop.step(0.05)
        asking = [c.sock for c in connections._held if c is not None and c.asking]
    too_late = time.monotonic() + 0.1
    while len(select.select(asking, [], [], 10)[0]) < len(asking) or time.monotonic() < too_late:
        pass  # as if the machine had no time for this process
    connections.streams.answer_within_s = 0.1
    loop.step(0.0)
    assert not seen(ledger).lost


@pytest.mark.parametrize("cut", [1, 5, 17, 30, 45])
def test_an_answer_in_pieces_is_an_answer(cut: int) -> None:
    whole = echo_http(b"GET /echo?msg=n1-pod-7 HTTP/1.1")
    assert not check_answer(whole[:cut], b"n1-pod-7")
    assert check_answer(whole, b"n1-pod-7")


def test_an_error_of_the_server_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswerError):
        check_answer(b"HTTP/1.1 503 Service Unavailable\r\n", b"n1-pod-7")


def test_an_attempt_stays_in_the_phase_in_which_it_began(server: TcpServer) -> None:
    ignored: list[bytes] = []
    server.respond = lambda request: ignored.append(request) or b""  # type: ignore[func-returns-value]
    loop, ledger = new(server.port, answer_within_s=0.3)
    run_until(loop, lambda: len(ignored) >= 3)
    ledger.enter("after")
    server.respond = echo_http
    run_until(loop, lambda: ledger.tally("tcp4 new").answered > 0)
    first = ledger.phases[0].tallies["tcp4 new"]
    run_until(loop, lambda: first.asked == first.lost["request-timeout"] + first.answered)
    assert first.lost["request-timeout"] >= 3
    assert not ledger.phases[1].tallies["tcp4 new"].lost


def test_what_fails_before_a_new_expectation_is_met_was_waited_for_and_is_a_loss_later(
    server: TcpServer,
) -> None:
    services = Expectations()
    address: dict[str, object] = {"name": "late", "address": "127.0.0.1", "port": server.port}
    services.replace([{**address, "expect": SERVED}])
    targets: list[Target] = list(services.targets.values())
    server.respond = lambda request: None
    loop, ledger = new(server.port, targets=targets)
    run_until(loop, lambda: seen(ledger).waited > 3)
    assert not seen(ledger).lost
    server.respond = echo_http
    run_until(loop, lambda: targets[0].met)
    server.respond = lambda request: None
    run_until(loop, lambda: seen(ledger).lost["reset"] > 3)


def test_what_is_under_way_to_a_target_that_is_dropped_is_nobodys_loss(server: TcpServer) -> None:
    services = Expectations()
    services.replace([{"name": "late", "address": "127.0.0.1", "port": server.port, "expect": REFUSED}])
    targets: list[Target] = list(services.targets.values())
    targets[0].met = True
    arrived = threading.Event()
    answers = threading.Event()

    def late(request: bytes) -> bytes:
        arrived.set()
        answers.wait(10)
        return echo_http(request)

    server.respond = late
    loop, ledger = new(server.port, targets=targets)
    run_until(loop, arrived.is_set)
    targets.clear()
    services.replace([])
    answers.set()
    run_until(loop, lambda: seen(ledger).waited == seen(ledger).asked)
    assert not seen(ledger).lost


def test_where_a_refusal_is_expected_an_answer_is_a_loss(server: TcpServer) -> None:
    target = Target("late", "127.0.0.1", server.port, REFUSED, met=False)
    loop, ledger = new(server.port, targets=[target])
    run_until(loop, lambda: seen(ledger).waited > 3)
    assert not seen(ledger).lost
    target.met = True
    run_until(loop, lambda: seen(ledger).lost["served-but-should-be-refused"] > 3)
    server.stop_listening()
    answered = seen(ledger).answered
    run_until(loop, lambda: seen(ledger).answered > answered)


def test_where_nobody_should_answer_a_refusal_is_right_and_an_answer_is_a_loss(server: TcpServer) -> None:
    target = Target("late", "127.0.0.1", server.port, GONE, met=True)
    loop, ledger = new(server.port, targets=[target])
    run_until(loop, lambda: seen(ledger).lost["served-but-should-be-gone"] > 3)
    server.stop_listening()
    answered = seen(ledger).answered
    run_until(loop, lambda: seen(ledger).answered > answered)


@pytest.mark.parametrize("connected", [True, False])
def test_datagrams_before_the_first_answer_were_waited_for_and_are_lost_later(connected: bool) -> None:
    services, silent = Expectations(), threading.Event()
    silent.set()
    with udp_server(lambda datagram: b"" if silent.is_set() else datagram[5:]) as port:
        services.replace([{"name": "late", "address": "127.0.0.1", "port": port, "protocol": "UDP"}])
        targets = services.of("UDP")
        loop, ledger = datagrams(echo("n1/pod"), port, connected, False, 0.1, targets)
        run_until(loop, lambda: seen(ledger).waited > 3)
        assert not seen(ledger).lost
        silent.clear()
        run_until(loop, lambda: targets[0].met)
        silent.set()
        run_until(loop, lambda: seen(ledger).lost["timeout"] > 3)


def test_a_server_that_does_not_run_is_not_sent_more_than_it_can_keep() -> None:
    arrived: list[bytes] = []
    with udp_server(lambda datagram: arrived.append(datagram) or b"") as port:  # type: ignore[func-returns-value]
        loop, ledger = datagrams(echo("n1/pod"), port, True, False)
        over = time.monotonic() + 0.2
        run_until(loop, lambda: arrived and time.monotonic() > over)
        assert seen(ledger).asked == len(arrived) == 1


def test_datagrams_under_way_to_a_target_that_is_dropped_are_nobodys_loss() -> None:
    services = Expectations()
    with udp_server(lambda datagram: b"") as port:
        services.replace([{"name": "late", "address": "127.0.0.1", "port": port, "protocol": "UDP"}])
        targets = services.of("UDP")
        targets[0].met = True
        loop, ledger = datagrams(echo("n1/pod"), port, True, False, 1.0, targets)
        run_until(loop, lambda: seen(ledger).asked)
        targets.clear()
        services.replace([])
        run_until(loop, lambda: seen(ledger).waited == seen(ledger).asked)
        assert not seen(ledger).lost


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_datagrams_are_answered(connected: bool, fixed: bool) -> None:
    with udp_server(lambda datagram: datagram[5:]) as port:
        loop, ledger = datagrams(echo("n1/Pod"), port, connected, fixed)
        run_until(loop, lambda: seen(ledger).answered >= 10)
        assert not seen(ledger).lost
        assert seen(ledger).opened == (1 if fixed else seen(ledger).asked)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_reply_from_another_address_is_a_loss_of_its_kind(fixed: bool) -> None:
    with udp_server(lambda datagram: datagram[5:], from_elsewhere=True) as port:
        loop, ledger = datagrams(echo("n1/pod"), port, connected=False, fixed=fixed)
        run_until(loop, lambda: seen(ledger).lost["wrong-source"] >= 3)
        assert seen(ledger).answered == 0


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_datagram_without_a_reply_is_a_timeout(connected: bool, fixed: bool) -> None:
    with udp_server(lambda datagram: b"") as port:
        loop, ledger = datagrams(echo("n1/pod"), port, connected, fixed, answer_within_s=0.1)
        run_until(loop, lambda: seen(ledger).lost["timeout"] >= 3)


def test_a_reply_with_another_text_is_a_wrong_answer() -> None:
    with udp_server(lambda datagram: b"someone-" + datagram.rpartition(b"-")[2]) as port:
        loop, ledger = datagrams(echo("n1/pod"), port, connected=True, fixed=True)
        run_until(loop, lambda: seen(ledger).lost["wrong-answer"] >= 3)


def test_a_refused_datagram_is_a_loss_of_its_kind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    loop, ledger = datagrams(echo("n1/pod"), port, connected=True, fixed=True)
    run_until(loop, lambda: seen(ledger).lost["refused"] + seen(ledger).lost["send-refused"] >= 3)


def dns_answer(addresses: list[str], code: int = 0) -> Callable[[bytes], bytes]:
    """A server that knows one name; the record's type is in the question."""

    def respond(datagram: bytes) -> bytes:
        record = int.from_bytes(datagram[-4:-2])
        family = {1: socket.AF_INET, 28: socket.AF_INET6}[record]
        packed = [socket.inet_pton(family, a) for a in addresses if (":" in a) == (record == 28)]
        header = datagram[:2] + (0x8000 | code).to_bytes(2) + b"\0\1" + len(packed).to_bytes(2) + b"\0" * 4
        answers = [
            b"\xc0\x0c" + record.to_bytes(2) + b"\0\1\0\0\0\5" + len(p).to_bytes(2) + p for p in packed
        ]
        return header + datagram[12:] + b"".join(answers)

    return respond


def test_from_outside_each_way_has_streams_of_its_own() -> None:
    server = TcpServer()
    with udp_server(lambda datagram: datagram[5:]) as port:
        given = [
            {"name": name, "tcp": [f"127.0.0.1:{server.port}"], "udp": [f"127.0.0.1:{port}"]}
            for name in ("NodePort", "load balancer")
        ]
        options = arguments().parse_args(
            [
                "--name=outside",
                f"--ways={json.dumps(given)}",
                "--held=4",
                "--new-per-s=100",
                "--control-port=0",
            ]
        )
        loop = Loop()
        client = Client(options, loop)
        client.use_ways(options, ways(given))
        kinds = ("tcp4 held", "tcp4 new", "udp4 fixed connected", "udp4 fresh unconnected")
        streams = [f"{kind} to {way['name']}" for kind in kinds for way in given]

        def seen() -> dict[str, int]:
            (data,) = json.loads(json.dumps(client.report(0)["phases"]))
            return {name: data["streams"].get(name, {}).get("answered", 0) for name in streams}

        run_until(loop, lambda: all(count >= 3 for count in seen().values()))
        report = client.report(0)
        assert (report["held"], report["held_wanted"], report["lost"]) == (4, 4, 0)
        client.control.close()
    server.close()


def test_a_way_names_addresses_of_both_families() -> None:
    (way,) = ways([{"name": "NodePort", "tcp": ["192.0.2.1:30080", "[2001:db8::1]:30080"], "udp": []}])
    assert [(target.address, target.port, target.version) for target in way.tcp] == [
        ("192.0.2.1", 30080, "4"),
        ("2001:db8::1", 30080, "6"),
    ]


ADDRESSES = frozenset({"10.96.7.7", "fd00:96::7"})


def test_look_ups_by_name_give_both_families() -> None:
    with udp_server(dns_answer(["10.96.7.7", "fd00:96::7"])) as port:
        assert look_up("127.0.0.1", port, "web.traffic.svc.cluster.local", 5) == ADDRESSES
        loop, ledger = datagrams(lookups("web", ADDRESSES), port, connected=True, fixed=False)
        run_until(loop, lambda: seen(ledger).answered >= 10)
        assert not seen(ledger).lost


@pytest.mark.parametrize("respond", [dns_answer([], code=3), dns_answer(["10.96.9.9", "fd00:96::9"])])
def test_a_look_up_that_gives_something_else_is_a_wrong_answer(respond: Callable[[bytes], bytes]) -> None:
    with udp_server(respond) as port:
        loop, ledger = datagrams(lookups("web", ADDRESSES), port, connected=True, fixed=True)
        run_until(loop, lambda: seen(ledger).lost["wrong-answer"] >= 3)


def test_a_question_has_the_name_in_labels() -> None:
    assert question(7, "web.svc.", 1) == b"\0\7\1\0\0\1\0\0\0\0\0\0\3web\3svc\0\0\1\0\1"
