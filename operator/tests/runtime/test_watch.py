"""A copy follows what it copies, knows when it does not, and keeps no ghosts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from handover_operator import places
from handover_operator.api import Api, ForbiddenError, GoneError, Object, UnreachableError
from handover_operator.watch import Collection, Watched

from e2e.fakeapi import FakeApi

from .objects import node, pod

pytestmark = pytest.mark.unit

PATIENCE_S = 10.0
NODES = Collection(places.NODE)


class Copy:
    """A copy that runs, and a way to wait for it to change."""

    def __init__(self, api: FakeApi, collection: Collection) -> None:
        self._news = asyncio.Event()
        self.watched: Watched[Object] = Watched(cast(Api, api), collection, lambda item: item, self._news.set)

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await self._news.wait()
                self._news.clear()

    def names(self) -> set[str]:
        return {name for _, name in self.watched.objects}


@asynccontextmanager
async def running(api: FakeApi, collection: Collection = NODES) -> AsyncIterator[Copy]:
    copy = Copy(api, collection)
    task = asyncio.create_task(copy.watched.run())
    try:
        await copy.until(lambda: copy.watched.live)
        yield copy
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_has_what_is_there_and_follows_what_changes() -> None:
    api = FakeApi()
    first = api.put(places.NODE.at("n1"), node("n1"))
    async with running(api) as copy:
        assert copy.names() == {"n1"}
        api.put(places.NODE.at("n2"), node("n2"))
        await copy.until(lambda: copy.names() == {"n1", "n2"})
        await api.delete(places.NODE.at("n1"), first["metadata"]["uid"])
        await copy.until(lambda: copy.names() == {"n2"})


async def test_what_vanished_while_the_watch_was_broken_does_not_stay() -> None:
    api = FakeApi()
    for name in ("n1", "ghost"):
        api.put(places.NODE.at(name), node(name))
    async with running(api) as copy:
        del api.objects["nodes", "", "ghost"]  # without an event, as during an outage
        api.refuse("watch nodes", GoneError("watch nodes", 410, "Expired", "too old"))
        await api.tell()
        await copy.until(lambda: copy.names() == {"n1"})
        assert copy.watched.live


@pytest.mark.parametrize("error", [UnreachableError, ForbiddenError])
async def test_while_it_cannot_follow_it_says_so(error: Any) -> None:
    api = FakeApi()
    api.put(places.NODE.at("n1"), node("n1"))
    async with running(api) as copy:
        api.refuse("watch nodes", error("watch nodes", 0, "", "gone away"))
        await api.tell()
        await copy.until(lambda: not copy.watched.live)
        assert isinstance(copy.watched.trouble, error)
        assert copy.names() == {"n1"}, "the last that was known is still there to look at"
        await copy.until(lambda: copy.watched.live)
        assert copy.watched.trouble is None


async def test_it_copies_only_what_it_is_asked_for() -> None:
    api = FakeApi()
    api.put(places.POD.at("one", "a"), pod("one", "n1", namespace="a"))
    api.put(places.POD.at("two", "a"), pod("two", "n1", namespace="a", labels={"other": "1"}))
    api.put(places.POD.at("three", "b"), pod("three", "n1", namespace="b"))
    async with running(api, Collection(places.POD, "a", labels="k8s-app=kube-proxy")) as copy:
        assert copy.names() == {"one"}


async def test_an_answer_to_a_write_is_known_before_the_watch_brings_it() -> None:
    api = FakeApi()
    api.put(places.NODE.at("n1"), node("n1"))
    copy = Copy(api, Collection(places.NODE))
    items, version = await api.list_all(places.NODE)
    copy.watched._objects = {("", "n1"): items[0]}
    copy.watched._listed, copy.watched._version = True, int(version)
    newer = {**items[0], "metadata": {**items[0]["metadata"], "resourceVersion": str(int(version) + 5)}}

    copy.watched.learn(newer)
    assert copy.watched.objects["", "n1"] is newer

    between = {**items[0], "metadata": {**items[0]["metadata"], "resourceVersion": str(int(version) + 2)}}
    copy.watched._take_in({"type": "MODIFIED", "object": between})
    assert copy.watched.objects["", "n1"] is newer, "an older event does not take it back"

    last = {**items[0], "metadata": {**items[0]["metadata"], "resourceVersion": str(int(version) + 9)}}
    copy.watched._take_in({"type": "MODIFIED", "object": last})
    copy.watched.learn(newer)
    assert copy.watched.objects["", "n1"] is last, "an answer that is older than the watch is ignored"


async def test_an_answer_never_brings_back_what_is_gone() -> None:
    api = FakeApi()
    async with running(api) as copy:
        copy.watched.learn({"metadata": {"name": "gone", "resourceVersion": "999"}})
        assert copy.names() == set()
