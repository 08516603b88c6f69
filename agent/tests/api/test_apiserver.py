"""Calls to the API server: pages, applies, failover, and errors that say what to do."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from handover_agent.apierrors import (
    ApiError,
    Busy,
    Conflict,
    CredentialsError,
    Forbidden,
    Gone,
    NotFound,
    Rejected,
    Unauthorized,
    Unreachable,
)
from handover_agent.apiserver import NODE_MIGRATIONS, PODS, SERVICES, Client
from handover_agent.credentials import Address, Credentials, FileText
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.objects import endpoint_json, service_json, slice_json

pytestmark = pytest.mark.unit

TLS = Path(__file__).parent / "tls"
SLICES_PATH, SERVICES_PATH = "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/services"
NODE_MIGRATIONS_PATH = "/apis/handover.dev/v1alpha1/nodemigrations"


@pytest.fixture
def api() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def plain(address: Address, **kwargs: object) -> Credentials:
    return Credentials(address, scheme="http", **kwargs)  # type: ignore[arg-type]


async def client_of(stack: AsyncExitStack, address: Address, **kwargs: object) -> Client:
    return await stack.enter_async_context(Client(plain(address), **kwargs))  # type: ignore[arg-type]


def unused_address() -> Address:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", probe.getsockname()[1])


async def announce(api: FakeApiServer, *addresses: Address) -> None:
    """Make these the endpoints of default/kubernetes (one slice for each, as ports may differ here)."""
    for n, (host, port) in enumerate(addresses):
        slice_ = slice_json(
            f"default/kubernetes-{n}", "kubernetes", [endpoint_json(host)], [{"name": "https", "port": port}]
        )
        await api.put(SLICES_PATH, slice_)


async def test_connections_ask_whether_the_other_end_is_still_there(
    api: FakeApiServer, stack: AsyncExitStack
) -> None:
    """A server that vanished without a word would be waited for until a watch has been silent for too long."""
    client = await client_of(stack, await stack.enter_async_context(api.serving()))
    async with client.watch(SERVICES, "10"):
        session = client._transport._session
        assert session is not None
        assert session.connector is not None
        (protocol,) = session.connector._acquired
        assert protocol.transport is not None
        connected = protocol.transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle_s, interval_s, count = (connected.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle_s + interval_s * count <= 30


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "text"),
        [
            (401, Unauthorized, "no longer"),
            (403, Forbidden, "RBAC"),
            (404, NotFound, "CRDs"),
            (409, Conflict, "another writer"),
            (410, Gone, "list again"),
            (422, Rejected, "not valid"),
            (429, Busy, "tried again"),
            (500, Busy, "tried again"),
            (503, Busy, "tried again"),
            (418, ApiError, "log"),
        ],
    )
    async def test_a_failure_names_verb_resource_status_and_remedy(
        self, api: FakeApiServer, stack: AsyncExitStack, status: int, kind: type[ApiError], text: str
    ) -> None:
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        api.failures += [(status, "because")] * 2
        with pytest.raises(kind, match=rf"get pods kube-system/x: {status} because; .*{text}"):
            await client.get(PODS, "x", "kube-system")

    async def test_busy_says_when_to_come_back(self, api: FakeApiServer, stack: AsyncExitStack) -> None:
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        api.failures.append((429, "slow down"))
        with pytest.raises(Busy) as caught:
            await client.get(PODS, "x", "kube-system")
        assert caught.value.retry_after_s == 1.0

    async def test_refused_says_where(self, stack: AsyncExitStack) -> None:
        address = unused_address()
        client = await client_of(stack, address)
        with pytest.raises(Unreachable, match=rf"list pods: no API server answers \({address}: .*[Rr]efused"):
            await client.list_objects(PODS)
        assert client.server == ""

    async def test_a_server_that_never_answers_is_given_up(self, stack: AsyncExitStack) -> None:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(hold, "127.0.0.1", 0))
        client = await client_of(
            stack, Address("127.0.0.1", server.sockets[0].getsockname()[1]), timeout_s=0.2
        )
        with pytest.raises(Unreachable, match="timed out"):
            await client.get(PODS, "x", "kube-system")

    async def test_an_answer_that_is_no_json_is_an_error_of_ours(self, stack: AsyncExitStack) -> None:
        async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
            writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(mumble, "127.0.0.1", 0))
        client = await client_of(stack, Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        with pytest.raises(ApiError, match="no JSON"):
            await client.get(PODS, "x", "kube-system")


class TestTokens:
    async def test_a_token_that_was_rotated_meanwhile_is_tried_before_giving_up(
        self, api: FakeApiServer, stack: AsyncExitStack, tmp_path: Path
    ) -> None:
        token = tmp_path / "token"
        token.write_text("old")
        address = await stack.enter_async_context(api.serving())
        credentials = plain(address, token=FileText(token, "token"))
        client = await stack.enter_async_context(Client(credentials))
        api.token = "old"
        await client.list_objects(PODS)
        api.token = "new"
        with pytest.raises(Unauthorized):
            await client.list_objects(PODS)
        token.write_text("new")
        assert await client.list_objects(PODS) == []

    async def test_a_token_that_vanished_is_a_clear_error(
        self, api: FakeApiServer, stack: AsyncExitStack, tmp_path: Path
    ) -> None:
        address = await stack.enter_async_context(api.serving())
        client = await stack.enter_async_context(
            Client(plain(address, token=FileText(tmp_path / "gone", "token")))
        )
        with pytest.raises(CredentialsError, match="cannot be read"):
            await client.list_objects(PODS)


class TestCalls:
    async def test_a_list_is_read_in_pages(self, api: FakeApiServer, stack: AsyncExitStack) -> None:
        for n in range(1201):
            api.objects.setdefault(SERVICES_PATH, {})[f"a/s{n:04}"] = service_json(f"a/s{n:04}")
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        found = await client.list_objects(SERVICES, {"labelSelector": "!x"})
        assert len(found) == 1201
        assert [query.get("continue") for _, _, query in api.requests] == [None, "500", "1000"]
        assert all(query["limit"] == "500" and query["labelSelector"] == "!x" for _, _, query in api.requests)

    async def test_a_version_is_asked_for_on_the_first_page_alone(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        """The real server refuses one beside a continue token."""
        for n in range(501):
            api.objects.setdefault(SERVICES_PATH, {})[f"a/s{n:04}"] = service_json(f"a/s{n:04}")
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        assert len(await client.list_objects(SERVICES, resource_version="0")) == 501
        asked = [(query.get("resourceVersion"), query.get("continue")) for _, _, query in api.requests]
        assert asked == [("0", None), (None, "500")]

    async def test_one_object_is_read(self, api: FakeApiServer, stack: AsyncExitStack) -> None:
        await api.put(NODE_MIGRATIONS_PATH, {"metadata": {"name": "n1"}, "spec": {"rung": "Shadow"}})
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        assert (await client.get(NODE_MIGRATIONS, "n1"))["spec"] == {"rung": "Shadow"}

    async def test_a_status_is_applied_with_our_field_manager(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        body = {"apiVersion": "handover.dev/v1alpha1", "kind": "NodeMigration", "metadata": {"name": "n1"}}
        assert await client.apply(NODE_MIGRATIONS, "n1", body, subresource="status") == body
        assert api.applied == [
            (f"{NODE_MIGRATIONS_PATH}/n1/status", {"fieldManager": "handover-agent", "force": "true"}, body)
        ]

    async def test_a_watch_yields_whole_events_however_they_are_cut(self, stack: AsyncExitStack) -> None:
        events = [
            json.dumps({"type": "ADDED", "object": {"n": n, "fill": "x" * 100_000}}).encode()
            for n in range(3)
        ]
        body = b"\n".join(events) + b"\n"

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            for at in range(0, len(body), 70_001):
                writer.write(body[at : at + 70_001])
                await writer.drain()
                await asyncio.sleep(0)
            writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(drip, "127.0.0.1", 0))
        client = await client_of(stack, Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        async with client.watch(SERVICES, "5") as lines:
            assert [line async for line in lines] == events

    async def test_a_silent_watch_is_dead(self, api: FakeApiServer, stack: AsyncExitStack) -> None:
        client = await client_of(stack, await stack.enter_async_context(api.serving()))
        with pytest.raises(Unreachable, match="the stream broke: "):
            async with client.watch(SERVICES, str(api.version), idle_s=0.1) as lines:
                async for _ in lines:
                    pass


class TestKeptConnections:
    async def test_one_that_the_server_closed_meanwhile_is_not_held_against_it(
        self, stack: AsyncExitStack
    ) -> None:
        """Or the agent would seem to depend on the bootstrap address because a connection idled."""
        closed = 0

        async def request(reader: asyncio.StreamReader) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal closed
            with suppress(asyncio.IncompleteReadError):
                await request(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await request(reader)
                closed += 1
            writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(serve_one, "127.0.0.1", 0))
        own = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        client = await client_of(stack, unused_address())
        client.servers.learn([own])
        for _ in range(3):
            assert await client.apply(NODE_MIGRATIONS, "n1", {}, subresource="status") == {}
            assert (client.server, client.direct) == (str(own), True)
        assert closed


class TestServers:
    async def test_the_bootstrap_address_is_used_only_to_learn_the_servers_own(
        self, api: FakeApiServer, stack: AsyncExitStack, tmp_path: Path
    ) -> None:
        balancer = FakeApiServer(objects=api.objects)
        boot = await stack.enter_async_context(balancer.serving())
        own = await stack.enter_async_context(api.serving())
        await announce(api, own)
        client = await client_of(stack, boot, memory=tmp_path / "servers")
        await client.connect()
        await client.list_objects(PODS)
        assert (client.server, client.direct) == (str(own), True)
        assert [path for _, path, _ in balancer.requests] == [
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        ]

    async def test_a_restarted_agent_needs_no_bootstrap_address(
        self, api: FakeApiServer, stack: AsyncExitStack, tmp_path: Path
    ) -> None:
        own = await stack.enter_async_context(api.serving())
        await announce(api, own)
        await (await client_of(stack, own, memory=tmp_path / "servers")).connect()
        client = await client_of(stack, unused_address(), memory=tmp_path / "servers")
        await client.connect()
        assert (client.server, client.direct) == (str(own), True)

    async def test_servers_that_moved_are_found_through_the_bootstrap_address(
        self, api: FakeApiServer, stack: AsyncExitStack, tmp_path: Path
    ) -> None:
        (tmp_path / "servers").write_text(json.dumps({"servers": [str(unused_address())]}))
        boot = await stack.enter_async_context(FakeApiServer(objects=api.objects).serving())
        own = await stack.enter_async_context(api.serving())
        await announce(api, own)
        client = await client_of(stack, boot, memory=tmp_path / "servers")
        await client.connect()
        assert (client.server, client.direct) == (str(own), True)

    async def test_own_addresses_that_do_not_answer_leave_the_bootstrap_one_and_it_says_so(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        boot = await stack.enter_async_context(api.serving())
        await announce(api, unused_address())
        client = await client_of(stack, boot)
        await client.connect()
        assert (client.server, client.direct) == (str(boot), False)

    async def test_when_a_server_dies_another_one_answers_the_same_call(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        two = FakeApiServer(objects=api.objects)
        second = await stack.enter_async_context(two.serving())
        async with api.serving() as first:
            await announce(api, first, second)
            client = await client_of(stack, first)
            await client.connect()
            in_use = client.server
        assert in_use in (str(first), str(second))
        await client.list_objects(PODS)
        await client.list_objects(PODS)
        assert (client.server, client.direct) == (str(second), True)

    async def test_a_server_that_comes_back_after_all_were_gone_is_used(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        async with api.serving() as first:
            await announce(api, first)
            client = await client_of(stack, first)
            await client.connect()
        with pytest.raises(Unreachable):
            await client.list_objects(PODS)
        assert not client.direct
        await stack.enter_async_context(api.serving(port=first.port))
        await client.list_objects(PODS)
        assert client.direct


class TestTls:
    def server(self, certificate: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=TLS / "ca.pem")
        context.load_cert_chain(TLS / certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self, address: Address, ca: str = "ca.pem") -> Credentials:
        certificate, marker, key = (TLS / "client.pem").read_text().partition("-----BEGIN PRIVATE KEY-----")
        return Credentials(address, ca=(TLS / ca).read_text(), client_certificate=(certificate, marker + key))

    async def test_the_certificate_must_be_for_kubernetes_default_svc(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        address = await stack.enter_async_context(api.serving(self.server("server.pem")))
        client = await stack.enter_async_context(Client(self.credentials(address)))
        assert await client.list_objects(PODS) == []

    async def test_a_certificate_for_another_name_is_refused(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        address = await stack.enter_async_context(api.serving(self.server("stranger.pem")))
        client = await stack.enter_async_context(Client(self.credentials(address)))
        with pytest.raises(Unreachable, match=r"certificate is not trusted.*kubernetes\.default\.svc"):
            await client.list_objects(PODS)

    async def test_a_certificate_of_another_ca_is_refused(
        self, api: FakeApiServer, stack: AsyncExitStack
    ) -> None:
        address = await stack.enter_async_context(api.serving(self.server("server.pem")))
        client = await stack.enter_async_context(Client(self.credentials(address, ca="other-ca.pem")))
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await client.list_objects(PODS)
