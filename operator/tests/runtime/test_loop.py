"""Passes over a cluster: what is written, what is said, and what is left alone."""

import pytest
from handover_operator import places
from handover_operator.api import ForbiddenError, UnreachableError
from handover_operator.loop import Trouble
from handover_operator.observe import FINALIZER

from .conftest import Bench
from .objects import SYSTEM, migration

pytestmark = pytest.mark.unit


def wish(bench: Bench, name: str = "cluster", **spec: object) -> None:
    bench.api.put(places.PROXY_MIGRATION.at(name), migration(name, **spec))


def condition(status: dict[str, object], kind: str) -> dict[str, str]:
    conditions = status["conditions"]
    assert isinstance(conditions, list)
    return next(c for c in conditions if c["type"] == kind)


async def test_nothing_is_written_when_nothing_is_wished_for(bench: Bench) -> None:
    assert await bench.pass_over(3) == ""
    assert bench.api.writes == []


async def test_first_the_finalizer_then_orders_for_every_node(bench: Bench) -> None:
    wish(bench)
    await bench.settled()
    await bench.pass_over()  # learns which DaemonSet it is about
    await bench.pass_over(5)
    assert bench.migration()["metadata"]["finalizers"] == [FINALIZER]
    orders = {name for kind, _, name in bench.api.objects if kind == "nodemigrations"}
    assert orders == {"n1", "n2", "n3"}
    assert bench.api.writes[0].startswith("apply ProxyMigration cluster")
    assert bench.status()["phase"] == "Preflight"
    assert bench.status()["observedGeneration"] == 1


async def test_a_quiet_cluster_is_not_written_to(bench: Bench) -> None:
    wish(bench)
    await bench.settled()
    await bench.pass_over(6)
    theirs = {"type": "Theirs", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    bench.status()["conditions"].insert(0, theirs)
    bench.api.put(places.PROXY_MIGRATION.at("cluster"), bench.migration())
    await bench.settled()
    asked = len(bench.api.requests)
    await bench.pass_over(5)
    assert bench.api.requests[asked:] == [], "not even with what is there already"


async def test_another_migration_is_turned_away_and_not_touched(bench: Bench) -> None:
    wish(bench, "a-first")
    wish(bench, "b-second")
    await bench.settled()
    await bench.pass_over(4)
    status = bench.status("b-second")
    assert status["phase"] == "Stalled"
    assert condition(status, "Stalled")["reason"] == "AnotherMigration"
    assert "a-first" in str(status["message"])
    assert "finalizers" not in bench.migration("b-second")["metadata"]


async def test_an_unreadable_migration_stops_everything_and_is_named(bench: Bench) -> None:
    wish(bench, "good")
    wish(bench, "odd", target="Something")
    await bench.settled()
    bench.loop.wake()
    await bench.loop._guarded()
    assert "ProxyMigration odd cannot be read" in bench.loop._said
    assert bench.api.writes == []


async def test_nothing_is_planned_on_a_view_that_is_not_kept_up(bench: Bench) -> None:
    wish(bench)
    await bench.settled()
    await bench.pass_over(2)
    bench.api.refuse("watch nodes", UnreachableError("watch nodes", 0, "", "gone away"))
    await bench.api.tell()
    await bench.until(lambda: bool(bench.cluster.errors()))
    done = list(bench.api.writes)
    assert "nothing is planned: watch nodes: gone away" in await bench.loop.once()
    assert bench.api.writes == done


async def test_a_refused_action_is_told_in_the_status_when_it_lasts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handover_operator.loop._LASTING_S", 0.0)
    wish(bench)
    await bench.settled()
    await bench.pass_over(2)
    refusal = ForbiddenError("apply NodeMigration n1", 403, "Forbidden", "cannot patch nodemigrations")
    for _ in range(4):
        bench.api.refuse("apply NodeMigration", refusal)
    await bench.pass_over(3)
    status = bench.status()
    assert condition(status, "Stalled")["reason"] == "ActionRefused"
    assert "cannot patch nodemigrations" in str(status["message"])
    assert condition(status, "Ready")["status"] == "False"


async def test_a_refusal_that_passes_bothers_nobody(bench: Bench) -> None:
    wish(bench)
    await bench.settled()
    await bench.pass_over(2)
    bench.api.refuse("apply NodeMigration", ForbiddenError("x", 403, "Forbidden", "not yet"))
    await bench.pass_over(2)
    assert bench.status().get("phase") != "Stalled"
    await bench.pass_over(3)
    assert len([1 for kind, _, _ in bench.api.objects if kind == "nodemigrations"]) == 3


async def test_a_daemonset_that_does_not_exist_is_a_condition(bench: Bench) -> None:
    wish(bench, kubeProxy={"namespace": SYSTEM, "name": "nowhere"})
    await bench.settled()
    await bench.pass_over(5)
    stalled = condition(bench.status(), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "KubeProxyNotFound")
    assert not [1 for kind, _, _ in bench.api.objects if kind == "nodemigrations"]


async def test_a_new_wish_for_another_daemonset_is_followed(bench: Bench) -> None:
    wish(bench, kubeProxy={"namespace": SYSTEM, "name": "nowhere"})
    await bench.settled()
    await bench.pass_over(4)
    item = bench.migration()
    await bench.api.merge_patch(places.PROXY_MIGRATION.at("cluster"), {"metadata": {"finalizers": None}})
    await bench.api.delete(places.PROXY_MIGRATION.at("cluster"), item["metadata"]["uid"])
    wish(bench, "again")
    await bench.settled()
    await bench.pass_over(6)
    assert bench.status("again")["phase"] == "Preflight"


async def test_a_deleted_migration_that_has_done_nothing_goes_at_once(bench: Bench) -> None:
    wish(bench, nodeSelector={"no": "such"})
    await bench.settled()
    await bench.pass_over(4)
    await bench.api.delete(places.PROXY_MIGRATION.at("cluster"), "pm-cluster")
    await bench.settled()
    await bench.pass_over(6)
    assert ("proxymigrations", "", "cluster") not in bench.api.objects


def test_trouble_is_told_only_when_it_lasts() -> None:
    now = 0.0
    trouble = Trouble(lambda: now)
    assert not trouble.lasts("no")
    now = 9.0
    assert not trouble.lasts("no")
    now = 10.5
    assert trouble.lasts("no")
    assert not trouble.lasts("something else")
    now = 30.0
    assert trouble.lasts("something else")
    assert not trouble.lasts("")
    now = 99.0
    assert not trouble.lasts("")
