"""The API servers are reached by their own addresses, whatever becomes of their ClusterIP."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from handover_operator import places, servers
from handover_operator.access import Access
from handover_operator.api import Api, UnreachableError
from handover_operator.servers import Servers

pytestmark = pytest.mark.unit

TLS = Path(__file__).resolve().parents[3] / "agent/tests/api/tls"
NODE = places.NODE.at("n1")


@asynccontextmanager
async def server(name: str, certificate: str = "server.pem") -> AsyncIterator[int]:
    """An API server that says its name; its port."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": name}})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / certificate)
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def nobody() -> AsyncIterator[int]:
    """A port at which connections are refused: it is bound, and nobody listens."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def access(port: int) -> Access:
    return Access(f"https://127.0.0.1:{port}", "a test", ("127.0.0.1", port), ca=TLS / "ca.pem")


async def asked(way: Access, known: Servers) -> str:
    """Who answers on a new connection."""
    async with Api(way, known) as api:
        name: str = (await api.get(NODE))["metadata"]["name"]
    return name


async def test_the_cluster_ip_is_used_as_long_as_nothing_better_is_known() -> None:
    async with server("by its ClusterIP") as port:
        assert await asked(access(port), Servers(("127.0.0.1", port))) == "by its ClusterIP"


async def test_once_its_own_address_is_known_the_cluster_ip_is_not_used() -> None:
    async with server("by its ClusterIP") as bootstrap, server("by its own") as own:
        known = Servers(("127.0.0.1", bootstrap))
        known.learn([("127.0.0.1", own)])
        assert await asked(access(bootstrap), known) == "by its own"


async def test_a_cluster_ip_that_leads_nowhere_is_no_harm() -> None:
    async with nobody() as bootstrap, server("by its own") as own:
        known = Servers(("127.0.0.1", bootstrap))
        with pytest.raises(UnreachableError):
            await asked(access(bootstrap), known)
        known.learn([("127.0.0.1", own)])
        assert await asked(access(bootstrap), known) == "by its own"


async def test_of_several_servers_one_that_does_not_answer_is_passed_over() -> None:
    async with nobody() as away, server("the other") as other:
        known = Servers(("127.0.0.1", away))
        known.learn([("127.0.0.1", away), ("127.0.0.1", other)])
        assert await asked(access(away), known) == "the other"


async def test_servers_that_have_moved_are_found_again_by_the_cluster_ip() -> None:
    async with server("by its ClusterIP") as bootstrap, nobody() as gone:
        known = Servers(("127.0.0.1", bootstrap))
        known.learn([("127.0.0.1", gone)])
        assert await asked(access(bootstrap), known) == "by its ClusterIP"


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with server("an impostor", "stranger.pem") as port:
        with pytest.raises(UnreachableError, match="certificate"):
            await asked(access(port), Servers(("127.0.0.1", port)))


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (
            {
                "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}],
                "ports": [{"name": "https", "port": 6443}],
            },
            {("10.0.0.1", 6443), ("10.0.0.2", 6443)},
        ),
        ({"endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 443}]}, {("fd00::1", 443)}),
        ({"endpoints": None, "ports": None}, set()),
        ({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "https"}]}, set()),
    ],
)
def test_addresses_are_read_from_the_endpoint_slice(
    item: dict[str, object], found: set[servers.Address]
) -> None:
    assert servers.read(item) == found


def test_what_was_learnt_outlives_the_process(tmp_path: Path) -> None:
    memory = tmp_path / "apiservers.json"
    Servers(("10.96.0.1", 443), memory).learn([("10.0.0.1", 6443), ("fd00::1", 6443)])
    assert Servers(("10.96.0.1", 443), memory).known == (("10.0.0.1", 6443), ("fd00::1", 6443))


def test_that_there_is_no_server_teaches_nothing(tmp_path: Path) -> None:
    known = Servers(("10.96.0.1", 443), tmp_path / "apiservers.json")
    known.learn([("10.0.0.1", 6443)])
    known.learn([])
    assert known.known == (("10.0.0.1", 6443),)


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["10.0.0.1"]]', '[["10.0.0.1", "https"]]', "null"])
def test_a_memory_that_makes_no_sense_is_learnt_anew(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = tmp_path / "apiservers.json"
    memory.write_text(text)
    with caplog.at_level(logging.WARNING):
        known = Servers(("10.96.0.1", 443), memory)
    assert known.known == ()
    assert "unreadable" in caplog.text
    known.learn([("10.0.0.1", 6443)])
    assert json.loads(memory.read_text()) == [["10.0.0.1", 6443]]


def test_a_memory_that_cannot_be_written_is_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = Servers(("10.96.0.1", 443), tmp_path / "not there" / "apiservers.json")
    with caplog.at_level(logging.WARNING):
        known.learn([("10.0.0.1", 6443)])
    assert known.known == (("10.0.0.1", 6443),)
    assert "not remembered" in caplog.text
