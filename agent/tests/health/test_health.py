"""The health ports: what is answered, and who may hold them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from handover_agent.health.listening import listeners, listening_in
from handover_agent.health.own import OwnPort, OwnPortInUse
from handover_agent.health.proxy import ProxyHealth, ProxyPort, body
from handover_agent.ladder.ports import Blocked
from prometheus_client import CollectorRegistry
from tests.health.ports import free_port

pytestmark = pytest.mark.unit

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WELL = ProxyHealth(last_synced=NOW, waiting_since=None, node_eligible=True)


LONG_AGO = NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("health", "healthz", "livez"),
    [
        (WELL, 200, 200),
        (ProxyHealth(NOW, None, node_eligible=False), 503, 200),
        (ProxyHealth(NOW, NOW - timedelta(seconds=59), node_eligible=True), 200, 200),
        (ProxyHealth(NOW, NOW - timedelta(seconds=60), node_eligible=True), 503, 503),
    ],
)
def test_the_node_counts_for_healthz_alone_and_a_change_may_wait_for_less_than_a_minute(
    health: ProxyHealth, healthz: int, livez: int
) -> None:
    assert body(health, NOW, with_node=True)[0] == healthz
    assert body(health, NOW, with_node=False)[0] == livez


def test_a_good_answer_is_kube_proxys_and_says_that_it_is_up_to_date_now() -> None:
    status, answer = body(ProxyHealth(LONG_AGO, None, node_eligible=True), NOW, with_node=True)
    assert status == 200
    # As kube-proxy 1.36 writes it (ProxyHealth in pkg/proxy/healthcheck/proxy_health.go), in its order.
    assert json.dumps(answer) == (
        '{"lastUpdated": "2026-05-01T12:00:00Z", "currentTime": "2026-05-01T12:00:00Z", "nodeEligible": true, '
        '"healthy": true, "status": {"IPv4": {"lastUpdated": "2026-05-01T11:00:00Z", "healthy": true}, '
        '"IPv6": {"lastUpdated": "2026-05-01T11:00:00Z", "healthy": true}}}'
    )


def test_a_bad_answer_says_when_it_last_was_up_to_date_and_livez_leaves_the_node_out() -> None:
    late = ProxyHealth(LONG_AGO, LONG_AGO, node_eligible=False)
    status, answer = body(late, NOW, with_node=False)
    assert status == 503
    assert answer == {
        "lastUpdated": "2026-05-01T11:00:00Z",
        "currentTime": "2026-05-01T12:00:00Z",
        "healthy": False,
        "status": {
            family: {"lastUpdated": "2026-05-01T11:00:00Z", "healthy": False} for family in ("IPv4", "IPv6")
        },
    }
    assert body(late, NOW, with_node=True)[1]["nodeEligible"] is False


@pytest.fixture
async def port() -> AsyncIterator[ProxyPort]:
    made = ProxyPort(free_port(), lambda: WELL)
    yield made
    await made.release()


async def test_the_port_answers_in_both_families_while_it_is_held(port: ProxyPort) -> None:
    await port.bind()
    await port.bind()
    assert port.held
    assert not await port.foreign()
    async with aiohttp.ClientSession() as session:
        for host in ("127.0.0.1", "[::1]"):
            async with session.get(f"http://{host}:{port._port}/healthz") as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "application/json"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert json.loads(await response.text())["healthy"] is True
    assert port.answers == {("/healthz", 200): 2}
    await port.release()
    assert not listeners(port._port)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
async def test_a_port_that_another_process_has_is_not_taken(host: str) -> None:
    with socket.socket() as other:
        other.bind((host, 0))
        other.listen()
        port = ProxyPort(other.getsockname()[1], lambda: WELL)
        assert await port.foreign()
        with pytest.raises(Blocked) as caught:
            await port.bind()
        assert caught.value.reason == "HealthPortInUse"
        assert not port.held


async def test_after_the_release_another_process_can_bind_at_once(port: ProxyPort) -> None:
    await port.bind()
    async with aiohttp.ClientSession() as session:
        await (await session.get(f"http://127.0.0.1:{port._port}/livez")).read()
        await port.release()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("0.0.0.0", port._port))
            other.listen()


def test_listening_is_read_from_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n"
        "   1: 0100007F:2811 0100007F:2810 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0\n"
    )
    assert list(listening_in(table.splitlines(), 0x2810)) == ["0.0.0.0"]
    assert list(listening_in(table.splitlines(), 0x2811)) == []
    v6 = table.replace("00000000:2810", "00000000000000000000000001000000:2812")
    assert list(listening_in(v6.splitlines(), 0x2812)) == ["::1"]
    rest = iter((*table.splitlines(), "never read"))
    assert list(listening_in(rest, 0x2810)) == ["0.0.0.0"]
    assert list(rest) == ["never read"]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_names_those_who_listen_before_all_connections(
    family: socket.AddressFamily, host: str
) -> None:
    """By which the table need not be read to its end, here of this machine's own kernel and whatever else it has."""
    table = Path("/proc/net/tcp" if family is socket.AF_INET else "/proc/net/tcp6")
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(8)]
        for server in servers:
            client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
            stack.enter_context(server.accept()[0])
            assert listeners(client.getsockname()[1]) == frozenset()
        states = [line.split()[3] for line in table.read_text().splitlines()[1:]]
        begun = [state == "0A" for state in states]
        assert begun == sorted(begun, reverse=True)
        assert begun.count(True) >= len(servers)
        assert begun.count(False) >= 2 * len(servers)
        for server in servers:
            assert listeners(server.getsockname()[1]) == {host}


async def test_the_agents_own_port_says_what_is_wrong() -> None:
    number, problem = free_port(), ""
    own = OwnPort(number, unlively=lambda: "", unready=lambda: problem, registry=CollectorRegistry())
    await own.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{number}/readyz") as response:
            assert (response.status, await response.text()) == (200, "ok\n")
        problem = "the maps are not followed yet"
        async with session.get(f"http://127.0.0.1:{number}/readyz") as response:
            assert (response.status, await response.text()) == (503, "the maps are not followed yet\n")
        async with session.get(f"http://127.0.0.1:{number}/metrics") as response:
            assert response.status == 200
    with pytest.raises(OwnPortInUse):
        await OwnPort(number, unlively=str, unready=str, registry=CollectorRegistry()).start()
    await own.stop()
    await asyncio.sleep(0)
