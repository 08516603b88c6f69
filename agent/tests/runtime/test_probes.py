"""Probes against real sockets on the loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from handover_agent.probe.attempt import Outcome, ProbeFailed, attempt, check_answer, question
from handover_agent.probe.rounds import Plan, Rounds, quantile, summary
from handover_agent.probe.targets import Target, Targets
from handover_agent.table import Backend, Entry, FrontendKey, Protocol, Scope, ip_bytes
from handover_api.base import ProbeSettings
from handover_api.nodemigration import Probes
from tests.fakes.objects import service

pytestmark = pytest.mark.unit

FAST = Plan(count=6, interval_s=0.0, timeout_s=2.0)


class Dns(asyncio.DatagramProtocol):
    """Answers every question, but not before it was asked often enough."""

    def __init__(self, silent: int = 0) -> None:
        self.silent = silent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.silent:
            self.silent -= 1
        else:
            self.transport.sendto(data[:2] + b"\x81\x80" + data[4:], addr)


@pytest.fixture(params=["127.0.0.1", "::1"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    made = await asyncio.start_server(lambda _, writer: writer.close(), request.param, 0)
    async with made:
        yield Target("default/web:http/TCP", request.param, made.sockets[0].getsockname()[1], Protocol.TCP)


def nobody(count: int) -> list[Target]:
    return []


def closed_port() -> Target:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Target("default/gone:http/TCP", "127.0.0.1", sock.getsockname()[1], Protocol.TCP)


async def test_a_connection_that_is_accepted_succeeds_in_both_families(server: Target) -> None:
    outcome = await attempt(server, 2.0)
    assert outcome.error == ""
    assert outcome.microseconds > 0


async def test_a_refused_connection_says_so() -> None:
    assert (await attempt(closed_port(), 2.0)).error == "Connection refused"


@pytest.mark.parametrize("silent", [0, 1])
async def test_a_dns_server_that_answers_the_first_or_second_time_is_reached(silent: int) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Dns(silent), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    outcome = await attempt(Target("kube-system/kube-dns:dns/UDP", "127.0.0.1", port, Protocol.UDP), 0.4)
    transport.close()
    assert outcome.error == ""


async def test_silence_fails_within_the_timeout() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        target = Target("kube-system/kube-dns:dns/UDP", "127.0.0.1", sock.getsockname()[1], Protocol.UDP)
        assert (await attempt(target, 0.1)).error == "no answer within 0.1 s"


def test_an_answer_to_another_question_is_no_answer() -> None:
    asked = question(0x1234)
    answer = asked[:2] + b"\x81\x80" + asked[4:]
    check_answer(answer, 0x1234)
    for wrong in (answer[:5], b"\0\0" + answer[2:], asked):
        with pytest.raises(ProbeFailed):
            check_answer(wrong, 0x1234)


def key(
    address: str, port: int, protocol: Protocol = Protocol.TCP, scope: Scope = Scope.INTERNAL
) -> FrontendKey:
    return FrontendKey(ip_bytes(address), port, protocol, scope)


BACKENDS = (Backend(ip_bytes("10.244.0.5"), 8080),)


def ports(*numbers: int, protocol: str = "TCP") -> list[dict[str, Any]]:
    return [{"name": f"p{number}", "protocol": protocol, "port": number} for number in numbers]


def test_targets_are_cluster_ips_with_backends_and_udp_only_where_dns_answers() -> None:
    udp, sctp = ports(53, 5353, 90, protocol="UDP"), ports(91, protocol="SCTP")
    web = service("default/web", "10.96.0.20", [*ports(80, 81, 92), *udp, *sctp])
    table = {
        key("10.96.0.20", 80): Entry(BACKENDS, "default/web:http/TCP"),
        key("10.96.0.20", 81): Entry((), "default/web:none/TCP"),
        key("10.96.0.20", 53, Protocol.UDP): Entry(BACKENDS, "default/web:x/UDP"),
        key("10.96.0.20", 5353, Protocol.UDP): Entry(BACKENDS, "default/web:dns/UDP"),
        key("10.96.0.20", 90, Protocol.UDP): Entry(BACKENDS, "default/web:game/UDP"),
        key("10.96.0.20", 91, Protocol.SCTP): Entry(BACKENDS, "default/web:sctp/SCTP"),
        key("10.96.0.20", 92, scope=Scope.EXTERNAL): Entry(BACKENDS, "default/web:out/TCP"),
        key("192.0.2.1", 30080): Entry(BACKENDS, "default/web:http/TCP"),
    }
    found = Targets(lambda: table, lambda: {web.key: web}).following(3)
    assert [(t.port, t.protocol) for t in found] == [
        (53, Protocol.UDP),
        (80, Protocol.TCP),
        (5353, Protocol.UDP),
    ]


class Table(dict[FrontendKey, Entry]):
    """Counts what it is asked for, and may not be read as a whole."""

    asked = 0

    def get(self, key: FrontendKey, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[FrontendKey]:
        raise AssertionError("the whole table was read")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_rounds_go_around_all_targets_and_look_up_no_more_than_they_need() -> None:
    services = [
        service(f"default/s{n}", f"10.96.0.{n}", ports(*((2, 1) if n == 2 else (1,)))) for n in (3, 1, 2, 4)
    ]
    table = Table()
    for each in services:
        for port in each.ports:
            table[FrontendKey(each.cluster_ips[0], port.port, Protocol.TCP)] = Entry(BACKENDS, each.key)
    around = Targets(lambda: table, lambda: {each.key: each for each in services})

    def following(count: int) -> list[str]:
        return [f"{t.host.rpartition('.')[2]}:{t.port}" for t in around.following(count)]

    assert following(2) == ["1:1", "2:1"]
    assert table.asked == 2
    assert following(2) == ["2:2", "3:1"]
    assert following(3) == ["4:1", "1:1", "2:1"]
    assert following(7) == ["2:2", "3:1", "4:1", "1:1", "2:1", "2:2", "3:1"]
    del services[0]  # 3, the last one: the next one follows
    assert following(2) == ["4:1", "1:1"]
    del services[:]
    assert following(2) == []


async def test_a_round_counts_failures_and_names_the_service(tmp_path: Path) -> None:
    made = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    good = Target("default/web:http/TCP", "127.0.0.1", made.sockets[0].getsockname()[1], Protocol.TCP)
    told: list[Probes] = []
    rounds = Rounds(
        lambda count: [good, closed_port()] * (count // 2), tmp_path / "baseline.json", told.append, FAST
    )
    async with made:
        await rounds.latest("ebpf")
    latest = told[-1].latest
    assert latest is not None
    assert (latest.attempts, latest.failures, latest.path) == (6, 3, "ebpf")
    assert latest.failed[0].service == "default/gone:http/TCP"
    assert latest.failed[0].address.startswith("TCP/127.0.0.1:")
    assert 0 < latest.p50_microseconds <= latest.p99_microseconds


async def test_the_baseline_outlives_the_agent_and_is_forgotten_on_the_way_down(tmp_path: Path) -> None:
    memory = tmp_path / "baseline.json"
    first = Rounds(lambda count: [closed_port()], memory, lambda probes: None, FAST)
    await first.baseline()
    again = Rounds(nobody, memory, lambda probes: None)
    assert again.probes.baseline == first.probes.baseline
    await again.forget()
    assert Rounds(nobody, memory, lambda probes: None).probes.baseline is None


def test_an_unreadable_baseline_is_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text("{")
    assert Rounds(nobody, tmp_path / "baseline.json", lambda probes: None).probes.baseline is None


def test_failures_do_not_count_as_times() -> None:
    target = closed_port()
    found = summary(
        [Outcome(target, 100), Outcome(target, 300), Outcome(target, 9_000_000, "no answer")],
        "ebpf",
        datetime(2026, 5, 1, tzinfo=UTC),
    )
    assert (found.attempts, found.failures, found.p99_microseconds) == (3, 1, 300)


def test_quantiles_of_nothing_are_zero() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([1, 2, 3, 4], 0.5) == 3


def test_the_plan_comes_from_the_spec() -> None:
    assert Plan.of(ProbeSettings(count=3, interval="5ms", timeout="1s500ms")) == Plan(3, 0.005, 1.5)
