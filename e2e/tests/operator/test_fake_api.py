"""The same questions to the API server in a dictionary and to the real one: what the unit tests believe is true."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from handover_operator import access, places
from handover_operator.api import Api, ConflictError, InvalidError, NotFoundError, Object

from e2e.fakeapi import FakeApi
from e2e.lab import Lab
from e2e.netns import Inside

FINALIZER = "handover.dev/cleanup"
PLACE = places.PROXY_MIGRATION.at("contract")
ORDER = places.NODE_MIGRATION.at("contract")
NAME = {"name": "contract"}
PROBES = {"spec": {"target": "KubeProxy", "nodeSelector": {"a": "1", "b": "2"}}}

Ask = Callable[[Callable[[Api], Any]], None]


@pytest.fixture(
    params=[pytest.param("fake", marks=pytest.mark.unit), pytest.param("real", marks=pytest.mark.e2e)]
)
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Runs a question on one of the two; nothing of the question stays."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Api]:
        if request.param == "fake":
            yield cast(Api, FakeApi())
            return
        async with Api(access.find(str(request.getfixturevalue("lab").kubeconfig))) as api:
            await clean(api)
            yield api
            await clean(api)

    async def run(question: Callable[[Api], Any]) -> None:
        async with opened() as api:
            await question(api)

    if request.param == "fake":
        yield lambda question: asyncio.run(run(question))
        return
    lab: Lab = request.getfixturevalue("lab")
    with Inside(lab.plan.fabric_netns, threads=1) as inside:
        yield lambda question: inside.call(asyncio.run, run(question))


async def clean(api: Api) -> None:
    for place in (PLACE, ORDER):
        try:
            item = await api.get(place)
            await api.merge_patch(place, {"metadata": {"finalizers": None}})
            await api.delete(place, item["metadata"]["uid"])
        except NotFoundError:
            continue


async def made(api: Api) -> Object:
    return await api.apply(PLACE, {"metadata": NAME, **PROBES})


def test_the_same_apply_again_changes_nothing(ask: Ask) -> None:
    async def question(api: Api) -> None:
        first = await made(api)
        second = await made(api)
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert second["metadata"]["generation"] == 1

    ask(question)


def test_what_is_left_out_goes_away(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await made(api)
        spec = {"target": "KubeProxy", "nodeSelector": {"b": "2"}}
        item = await api.apply(PLACE, {"metadata": NAME, "spec": spec})
        assert item["spec"]["nodeSelector"] == {"b": "2"}
        assert item["metadata"]["generation"] == 2

    ask(question)


def test_an_apply_with_a_uid_never_creates(ask: Ask) -> None:
    async def question(api: Api) -> None:
        with pytest.raises(ConflictError):
            await api.apply(PLACE, {"metadata": {**NAME, "uid": "another"}, **PROBES})
        with pytest.raises(NotFoundError):
            await api.get(PLACE)

    ask(question)


def test_an_apply_to_another_uid_or_an_older_version_is_refused(ask: Ask) -> None:
    async def question(api: Api) -> None:
        first = await made(api)
        with pytest.raises(ConflictError):
            await api.apply(PLACE, {"metadata": {**NAME, "uid": "another"}, **PROBES})
        await api.apply(PLACE, {"metadata": NAME, "spec": {"target": "KubeProxy"}})
        old = first["metadata"]["resourceVersion"]
        with pytest.raises(ConflictError):
            await api.apply(PLACE, {"metadata": {**NAME, "resourceVersion": old}, **PROBES})

    ask(question)


def test_a_status_is_written_apart_from_the_spec(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await made(api)
        body = {"metadata": NAME, "spec": {"target": "eBPF"}, "status": {"message": "here"}}
        item = await api.apply(PLACE, body, subresource="status")
        assert item["status"]["message"] == "here"
        assert item["spec"]["target"] == "KubeProxy"
        assert item["metadata"]["generation"] == 1
        item = await api.apply(PLACE, {"metadata": NAME, **PROBES, "status": {"message": "there"}})
        assert item["status"]["message"] == "here"
        item = await api.apply(PLACE, {"metadata": NAME, "status": {"phase": "Paused"}}, subresource="status")
        assert item["status"] == {"phase": "Paused"}

    ask(question)


def test_our_finalizer_comes_and_goes_beside_others(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await made(api)
        await api.merge_patch(PLACE, {"metadata": {"finalizers": ["example.org/other"]}})
        item = await api.apply(PLACE, {"metadata": {**NAME, "finalizers": [FINALIZER]}, **PROBES})
        assert sorted(item["metadata"]["finalizers"]) == ["example.org/other", FINALIZER]
        item = await api.apply(PLACE, {"metadata": NAME, **PROBES})
        assert item["metadata"]["finalizers"] == ["example.org/other"]

    ask(question)


def test_a_deleted_object_waits_for_its_finalizer(ask: Ask) -> None:
    async def question(api: Api) -> None:
        item = await api.apply(PLACE, {"metadata": {**NAME, "finalizers": [FINALIZER]}, **PROBES})
        with pytest.raises(ConflictError):
            await api.delete(PLACE, "another")
        await api.delete(PLACE, item["metadata"]["uid"])
        assert "deletionTimestamp" in (await api.get(PLACE))["metadata"]
        await api.apply(PLACE, {"metadata": NAME, **PROBES})
        with pytest.raises(NotFoundError):
            await api.get(PLACE)

    ask(question)


def test_a_json_patch_is_all_or_nothing(ask: Ask) -> None:
    async def question(api: Api) -> None:
        first = await made(api)
        replace = {"op": "replace", "path": "/spec/target", "value": "eBPF"}
        with pytest.raises(InvalidError):
            await api.json_patch(
                PLACE, [replace, {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
            )
        assert (await api.get(PLACE))["spec"] == first["spec"]
        assert (await api.json_patch(PLACE, [replace]))["spec"]["target"] == "eBPF"

    ask(question)


def test_a_merge_patch_takes_away_what_an_apply_put_there(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await api.apply(PLACE, {"metadata": {**NAME, "labels": {"one": "1", "two": "2"}}, **PROBES})
        item = await api.merge_patch(PLACE, {"metadata": {"labels": {"one": None}}})
        assert item["metadata"]["labels"] == {"two": "2"}
        with pytest.raises(ConflictError):
            await api.merge_patch(PLACE, {"metadata": {"uid": "another", "labels": {"two": None}}})

    ask(question)


def test_what_exists_is_not_created_again(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await api.create(places.PROXY_MIGRATION, {"metadata": NAME, **PROBES})
        with pytest.raises(ConflictError):
            await api.create(places.PROXY_MIGRATION, {"metadata": NAME, **PROBES})

    ask(question)


def test_a_watch_tells_what_came_after_the_list(ask: Ask) -> None:
    async def question(api: Api) -> None:
        _, version = await api.list_all(places.PROXY_MIGRATION)
        item = await made(api)
        await api.apply(PLACE, {"metadata": NAME, "spec": {"target": "eBPF"}})
        await api.delete(PLACE, item["metadata"]["uid"])
        seen = []
        async with asyncio.timeout(20):
            async for event in api.watch(places.PROXY_MIGRATION, version):
                if event["type"] != "BOOKMARK":
                    seen.append((event["type"], event["object"]["metadata"]["generation"]))
                if event["type"] == "DELETED":
                    break
        # A deletion raises the generation on the real one only; nobody here looks at it then.
        assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert [generation for _, generation in seen][:2] == [1, 2]

    ask(question)


def test_a_list_of_one_name_has_that_one(ask: Ask) -> None:
    async def question(api: Api) -> None:
        await made(api)
        by_name = {"fieldSelector": "metadata.name=contract"}
        items, _ = await api.list_all(places.PROXY_MIGRATION, selectors=by_name)
        assert [item["metadata"]["name"] for item in items] == ["contract"]
        none, _ = await api.list_all(places.PROXY_MIGRATION, selectors={"labelSelector": "no=such"})
        assert none == []

    ask(question)
