"""The reflectors keep the model equal to what the API server has, whatever happens to the connection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from handover_agent.apierrors import Forbidden, Unreachable
from handover_agent.apiserver import Client
from handover_agent.credentials import Address, Credentials
from handover_agent.model import Model
from handover_agent.watch import Backoff, Feed
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.objects import endpoint_json, service_json, slice_json

pytestmark = pytest.mark.unit

SLICES, SERVICES = "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/services"
HEADLESS, OTHERS = {"service.kubernetes.io/headless": ""}, {"service.kubernetes.io/service-proxy-name": "x"}


class Lab:
    """A fake API server, a feed that follows it, and a way to wait."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.api = FakeApiServer()
        self.model = Model()
        self.pauses: list[float] = []

    async def start(self, *, serve: bool = True) -> None:
        self.server = AsyncExitStack()
        await self.stack.enter_async_context(self.server)
        self.address = Address("127.0.0.1", 9)
        if serve:
            self.address = await self.server.enter_async_context(self.api.serving())
        self.client = await self.stack.enter_async_context(Client(Credentials(self.address, scheme="http")))
        self.feed = Feed(self.client, self.model, self._backoff)
        task = asyncio.create_task(self.feed.run())
        self.stack.push_async_callback(self._stop, task)

    async def stop_serving(self) -> None:
        await self.server.aclose()

    async def serve_again(self) -> None:
        await self.server.enter_async_context(self.api.serving(port=self.address.port))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; a deadline fails the test."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the things waited for are not of one kind
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        await self.until(lambda: self.feed.services.synced.is_set() and self.feed.slices.synced.is_set())
        await self.until(lambda: self.api.watches == 2)

    def services(self) -> set[str]:
        return set(self.model.services)

    def _backoff(self) -> Backoff:
        def noted() -> float:
            self.pauses.append(1.0)
            return 1.0

        return Backoff(0.01, 0.05, noted, 0.01)

    @staticmethod
    async def _stop(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        yield Lab(stack)


async def test_the_initial_lists_fill_the_model(lab: Lab) -> None:
    for n in range(1001):
        await lab.api.put(SERVICES, service_json(f"a/s{n}"))
    await lab.api.put(SLICES, slice_json("a/s1-x", "s1", [endpoint_json("10.1.1.1")]))
    await lab.start()
    async with asyncio.timeout(10):
        await lab.feed.synced()
    assert len(lab.model.services) == 1001
    assert [s.name for s in lab.model.slices("a/s1")] == ["s1-x"]
    assert lab.model.complete


async def test_events_are_followed(lab: Lab) -> None:
    await lab.start()
    await lab.settled()
    lab.model.take_dirty()
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.api.put(SLICES, slice_json("a/x-1", "x", [endpoint_json("10.1.1.1")]))
    await lab.until(lambda: lab.services() == {"a/x"} and lab.model.slices("a/x"))
    assert lab.model.take_dirty() == {"a/x"}
    await lab.api.delete(SERVICES, "a/x")
    await lab.until(lambda: lab.services() == set())


@pytest.mark.parametrize("label", [HEADLESS, OTHERS], ids=["headless", "service-proxy-name"])
async def test_a_label_may_be_put_on_and_taken_off_live(lab: Lab, label: dict[str, str]) -> None:
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.api.put(SERVICES, service_json("a/never", labels=label))
    await lab.start()
    await lab.settled()
    assert lab.services() == {"a/x"}
    await lab.api.put(SERVICES, service_json("a/x", labels=label))
    await lab.until(lambda: lab.services() == set())
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.until(lambda: lab.services() == {"a/x"})


async def test_headless_slices_are_not_even_sent(lab: Lab) -> None:
    headless = slice_json("a/x-1", "x", [endpoint_json("10.1.1.1")])
    headless["metadata"]["labels"] |= HEADLESS
    await lab.api.put(SLICES, headless)
    await lab.start()
    await lab.settled()
    assert lab.model.slices_by_service == {}


async def test_a_watch_that_ends_goes_on_where_it_was_without_a_new_list(lab: Lab) -> None:
    await lab.start()
    await lab.settled()
    await lab.api.disconnect()
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.until(lambda: lab.services() == {"a/x"})
    assert sum("watch" not in query for _, path, query in lab.api.requests if path == SERVICES) == 1


async def test_an_expired_watch_lists_again_and_finds_what_vanished(lab: Lab) -> None:
    for name in ("a/x", "a/y"):
        await lab.api.put(SERVICES, service_json(name))
    await lab.start()
    await lab.settled()
    lab.model.take_dirty()
    await lab.stop_serving()
    await lab.api.delete(SERVICES, "a/x")
    await lab.api.put(SERVICES, service_json("a/z"))
    await lab.api.expire()
    await lab.serve_again()
    await lab.until(lambda: lab.services() == {"a/y", "a/z"})
    assert lab.model.take_dirty() == {"a/x", "a/z"}


async def test_agents_whose_watches_expire_together_do_not_all_list_together(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an API server starts anew."""
    waited: list[Backoff] = []

    def apart_s(backoff: Backoff) -> float:
        waited.append(backoff)
        return 60.0 if len(waited) == 2 else 0.0

    await lab.start()
    await lab.settled()
    monkeypatch.setattr(Backoff, "apart_s", apart_s)
    await lab.stop_serving()
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.api.expire()
    lab.api.requests.clear()
    await lab.serve_again()
    await lab.until(
        lambda: len(waited) == 2 and any("watch" not in query for _, _, query in lab.api.requests)
    )
    await asyncio.sleep(0.02)
    lists = [path for _, path, query in lab.api.requests if "watch" not in query]
    assert len(lists) == 1, "the other one waits"


async def test_a_list_that_expires_between_two_pages_begins_again(lab: Lab) -> None:
    for n in range(700):
        await lab.api.put(SERVICES, service_json(f"a/s{n}"))
    lab.api.break_pages = True
    await lab.start()
    await lab.settled()
    assert len(lab.model.services) == 700


async def test_while_the_api_server_is_away_the_model_stays_and_the_reason_is_known(lab: Lab) -> None:
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.start()
    await lab.settled()
    await lab.stop_serving()
    await lab.until(lambda: isinstance(lab.feed.services.error, Unreachable))
    assert lab.services() == {"a/x"}
    await lab.serve_again()
    await lab.until(lambda: lab.feed.error is None)


async def test_a_server_that_ends_every_watch_at_once_is_not_pestered(lab: Lab) -> None:
    lab.api.end_watches_at_once = True
    await lab.start()
    await lab.until(lambda: sum("watch" in query for _, _, query in lab.api.requests) > 4)
    assert lab.pauses, "it came back without a pause"


async def test_nothing_is_complete_before_the_api_server_was_there(lab: Lab) -> None:
    await lab.start(serve=False)
    await lab.until(lambda: lab.feed.error is not None)
    assert not lab.model.complete


async def test_missing_rights_are_named_and_tried_again(lab: Lab) -> None:
    lab.api.failures += [(403, 'services is forbidden: User "x" cannot list')] * 6
    await lab.start()
    await lab.until(lambda: isinstance(lab.feed.error, Forbidden))
    assert "list " in str(lab.feed.error)
    await lab.settled()
    assert lab.feed.error is None


async def test_an_object_that_cannot_be_read_does_not_keep_the_others_out(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    await lab.api.put(SERVICES, service_json("a/x", ports=[{"name": "http", "port": "eighty"}]))
    await lab.api.put(SERVICES, service_json("a/y"))
    with caplog.at_level(logging.ERROR):
        await lab.start()
        await lab.settled()
    assert lab.services() == {"a/y"}
    assert caplog.text.count("left out") == 1


async def test_the_api_servers_own_addresses_are_learnt_as_they_change(lab: Lab) -> None:
    await lab.start()
    await lab.settled()
    ports = [{"name": "https", "port": lab.address.port}]
    kubernetes = slice_json("default/kubernetes", "kubernetes", [endpoint_json("127.0.0.1")], ports)
    await lab.api.put(SLICES, kubernetes)
    await lab.until(lambda: lab.client.servers.known == (lab.address,))
    assert lab.client.direct
    await lab.api.put(SLICES, slice_json("default/kubernetes", "kubernetes", [], ports))
    await lab.api.put(SERVICES, service_json("a/x"))
    await lab.until(lab.services)
    assert lab.client.servers.known == (lab.address,)


def test_pauses_grow_up_to_a_bound_and_are_jittered() -> None:
    pauses = Backoff(0.5, 30.0, jitter=lambda: 1.0)
    assert [pauses.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    pauses.reset()
    assert pauses.next_s() == 0.5
    assert Backoff(0.5, 30.0, jitter=lambda: 0.0).next_s() == 0.25
    assert Backoff(jitter=lambda: 0.5, spread_s=3.0).apart_s() == 1.5
