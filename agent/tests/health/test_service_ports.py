"""The health check ports of Services: opened, answered, followed and closed."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from handover_agent.compile import NodeInfo
from handover_agent.health.listening import NotListening
from handover_agent.health.local import HealthCheck
from handover_agent.health.services import EVERYWHERE, ServicePorts, places
from handover_agent.table import ip_bytes
from tests.health.ports import ask, free_port, refused

pytestmark = pytest.mark.unit


class Proxy:
    """What the ports ask of their surroundings, and tell them."""

    def __init__(self) -> None:
        self.healthy = True
        self.failures: list[tuple[str, int, str]] = []
        self.ports = ServicePorts(lambda: self.healthy, self.failed)

    def failed(self, service: str, port: int, error: NotListening) -> None:
        self.failures.append((service, port, str(error)))


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    yield made
    await made.ports.close()


def check(port: int, v4: int = 0, v6: int = 0) -> HealthCheck:
    return HealthCheck(port, {"IPv4": v4, "IPv6": v6})


async def test_an_answer_is_kube_proxys_to_the_letter(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"shop/web": check(port, 2)}, EVERYWHERE)
    status, body, headers = await ask(port, "/any/path")
    assert status == 200
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    # As service_health.go of kube-proxy 1.36 prints it.
    assert body == (
        '{\n\t"service": {\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": 2,\n'
        '\t"serviceProxyHealthy": true\n}'
    )


async def test_each_family_answers_for_its_own_endpoints(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"shop/web": check(port, 0, 3)}, EVERYWHERE)
    assert (await ask(port))[0] == 503
    status, _, headers = await ask(port, host="[::1]")
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "3")


async def test_a_service_of_one_family_does_not_listen_in_the_other(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"shop/web": HealthCheck(port, {"IPv6": 1})}, EVERYWHERE)
    assert await refused(port)
    assert (await ask(port, host="[::1]"))[0] == 200


async def test_a_proxy_that_is_not_healthy_turns_every_load_balancer_away(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"shop/web": check(port, 2)}, EVERYWHERE)
    proxy.healthy = False
    status, body, headers = await ask(port)
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (503, "2")
    assert '"serviceProxyHealthy": false' in body


async def test_endpoints_ports_and_services_are_followed_live(proxy: Proxy) -> None:
    first, second = free_port(), free_port()
    await proxy.ports.follow({"shop/web": check(first)}, EVERYWHERE)
    assert (await ask(first))[0] == 503
    await proxy.ports.follow({"shop/web": check(first, 1)}, EVERYWHERE)
    assert (await ask(first))[0] == 200
    await proxy.ports.follow({"shop/web": check(second, 1)}, EVERYWHERE)
    assert await refused(first)
    assert (await ask(second))[0] == 200
    await proxy.ports.follow({}, EVERYWHERE)
    assert await refused(second)


async def test_a_connection_that_is_kept_alive_does_not_outlive_its_port(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"shop/web": check(port, 1)}, EVERYWHERE)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}") as response:
            await response.read()
        await proxy.ports.follow({}, EVERYWHERE)
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"http://127.0.0.1:{port}")


async def test_a_port_can_go_from_one_service_to_another_at_once(proxy: Proxy) -> None:
    port = free_port()
    await proxy.ports.follow({"z/old": check(port, 1)}, EVERYWHERE)
    await proxy.ports.follow({"a/new": check(port, 1)}, EVERYWHERE)
    assert '"namespace": "a"' in (await ask(port))[1]
    assert proxy.failures == []


async def test_a_port_that_is_taken_is_told_and_tried_again(proxy: Proxy) -> None:
    free = free_port()
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::1", 0))
        other.listen()
        port = other.getsockname()[1]
        wanted = {"shop/web": check(port, 1), "shop/more": check(free, 1)}
        await proxy.ports.follow(wanted, EVERYWHERE)
        assert proxy.failures == [("shop/web", port, f"cannot listen on [::]:{port}: Address already in use")]
        assert await refused(port), "the other family's port is closed again: half a port would half answer"
        assert (await ask(free))[0] == 200, "one Service's trouble is not another one's"
    await proxy.ports.follow(wanted, EVERYWHERE)
    assert len(proxy.failures) == 1
    assert (await ask(port))[0] == 200
    await asyncio.sleep(0)


async def test_ports_are_where_node_ports_are(proxy: Proxy) -> None:
    local = frozenset(map(ip_bytes, ("127.0.0.1", "127.0.0.2", "192.0.2.1", "fd00::1")))
    assert places(NodeInfo("n1", local_addresses=local)) == EVERYWHERE
    somewhere = NodeInfo(
        "n1", local_addresses=local, node_port_addresses=("192.0.2.0/24",), localhost_node_ports=False
    )
    assert places(somewhere) == {"IPv4": ["192.0.2.1"], "IPv6": ["fd00::1"]}
    port = free_port()
    await proxy.ports.follow({"shop/web": check(port, 1)}, {"IPv4": ["127.0.0.2"], "IPv6": []})
    assert (await ask(port, host="127.0.0.2"))[0] == 200
    assert await refused(port)
    await proxy.ports.follow({"shop/web": check(port, 1)}, {"IPv4": ["127.0.0.1"], "IPv6": []})
    assert (await ask(port))[0] == 200
    assert await refused(port, "127.0.0.2")
