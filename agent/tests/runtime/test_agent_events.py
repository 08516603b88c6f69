"""Events: one per happening, counted, and never too many."""

import pytest
from handover_agent.apierrors import ApiError, NotFound
from handover_agent.apiserver import Client, Resource
from handover_agent.events import About, Events, Happening
from tests.fakes.clock import Clock

pytestmark = pytest.mark.unit

TAKEN = Happening(
    About.service("shop/web"), "FailedToStartServiceHealthcheck", "Listen", "port 31000: in use"
)


class Api(Client):
    """Takes Events and has every Service, unless it is told otherwise."""

    def __init__(self) -> None:
        self.written: list[dict[str, object]] = []
        self.fail: ApiError | None = None

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, object]:
        if self.fail:
            raise self.fail
        return {"metadata": {"name": name, "uid": f"uid of {resource.text(name, namespace)}"}}

    async def apply(self, resource: Resource, name: str, body: dict, **_: object) -> dict[str, object]:  # type: ignore[type-arg, override]
        self.written.append(body)
        return body


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def events(api: Api, clock: Clock) -> Events:
    return Events(api, "n1", clock)


async def test_an_event_names_the_service_by_its_uid_as_describe_looks_for_it(
    events: Events, api: Api
) -> None:
    events.tell(TAKEN)
    assert events.news.is_set()
    await events.write()
    (event,) = api.written
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "name": "web",
        "namespace": "shop",
        "uid": "uid of services shop/web",
    }
    assert (event["type"], event["reason"], event["action"]) == (
        "Warning",
        "FailedToStartServiceHealthcheck",
        "Listen",
    )
    assert event["source"] == {"component": "handover-agent", "host": "n1"}
    assert event["count"] == 1


async def test_the_same_again_is_one_event_counted_and_written_once_a_minute(
    events: Events, api: Api, clock: Clock
) -> None:
    for _ in range(12):
        events.tell(TAKEN)
        await events.write()
        clock.now += 5
    assert [event["count"] for event in api.written] == [1]
    events.tell(TAKEN)
    await events.write()
    assert [event["count"] for event in api.written] == [1, 13]
    names = {str(event["metadata"]["name"]) for event in api.written}  # type: ignore[index]
    assert len(names) == 1
    clock.now += 1000
    await events.write()
    assert len(api.written) == 2, "nothing new has happened"


async def test_a_flood_is_cut_to_a_few_a_minute_and_goes_on_later(
    events: Events, api: Api, clock: Clock
) -> None:
    for number in range(50):
        events.tell(Happening(About.service(f"shop/web-{number}"), "Reason", "Listen", "trouble"))
    await events.write()
    assert len(api.written) == 20
    clock.now += 61
    await events.write()
    assert len(api.written) == 40


async def test_an_event_that_cannot_be_written_is_dropped_and_one_about_nothing_forgotten(
    events: Events, api: Api, clock: Clock
) -> None:
    api.fail = ApiError("no answer")
    events.tell(TAKEN)
    await events.write()
    api.fail = NotFound("get", "services shop/web", 404, "not found")
    clock.now += 61
    events.tell(TAKEN)
    await events.write()
    api.fail = None
    clock.now += 61
    await events.write()
    assert api.written == []
    events.tell(TAKEN)
    await events.write()
    assert [event["count"] for event in api.written] == [1]


async def test_what_happens_to_a_node_is_told_where_the_api_wants_it(events: Events, api: Api) -> None:
    events.tell(Happening(About("Node", "n1"), "MapFull", "Sync", "frontends: 10 of 10"))
    await events.write()
    (event,) = api.written
    assert event["metadata"]["namespace"] == "default"  # type: ignore[index]
    assert "namespace" not in event["involvedObject"]  # type: ignore[operator]
