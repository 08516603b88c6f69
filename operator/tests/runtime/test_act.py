"""Each action does what it says, only to what was planned on, and no harm when done twice."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from handover_api.base import KubeProxyRef, Rung, Target
from handover_api.nodemigration import NodeMigrationSpec
from handover_api.proxymigration import ProxyMigrationSpec
from handover_operator import drain, places
from handover_operator.act import ActionFailedError
from handover_operator.actions import (
    AddFinalizer,
    DeleteNodeMigration,
    DrainKubeProxy,
    EnsureNodeMigration,
    PrepareDaemonSet,
    RemoveFinalizer,
    RestoreDaemonSet,
    SetRung,
    UndrainKubeProxy,
)
from handover_operator.affinity import DRAINED, LABEL
from handover_operator.api import ConflictError, ForbiddenError
from handover_operator.facts import MigrationFacts
from handover_operator.observe import FINALIZER

from .conftest import Bench
from .objects import SYSTEM, migration

pytestmark = pytest.mark.unit

FACTS = MigrationFacts(
    "cluster", "pm-cluster", 1, datetime(2026, 1, 1, tzinfo=UTC), ProxyMigrationSpec(target=Target.EBPF)
)
DAEMON_SET = places.DAEMON_SET.at("kube-proxy", SYSTEM)


def order(rung: Rung = Rung.STANDBY, **more: Any) -> NodeMigrationSpec:
    return NodeMigrationSpec(node_name="n1", rung=rung, **more)


async def created(bench: Bench) -> Any:
    """A NodeMigration for n1, known to the copies."""
    await bench.actor.carry_out(EnsureNodeMigration("n1", order(deadline=FACTS.created)), FACTS)
    await bench.settled()
    return bench.api.objects["nodemigrations", "", "n1"]


async def test_the_finalizer_comes_and_goes_and_others_stay(bench: Bench) -> None:
    bench.api.put(places.PROXY_MIGRATION.at("cluster"), migration())
    bench.migration()["metadata"]["finalizers"] = ["someone/else"]
    await bench.actor.carry_out(AddFinalizer(), FACTS)
    assert set(bench.migration()["metadata"]["finalizers"]) == {"someone/else", FINALIZER}
    await bench.actor.carry_out(RemoveFinalizer(), FACTS)
    assert bench.migration()["metadata"]["finalizers"] == ["someone/else"]


async def test_the_finalizer_goes_although_somebody_else_claims_it_too(bench: Bench) -> None:
    bench.api.put(places.PROXY_MIGRATION.at("cluster"), migration())
    bench.migration()["metadata"]["finalizers"] = [FINALIZER, "someone/else"]
    await bench.actor.carry_out(RemoveFinalizer(), FACTS)
    assert bench.migration()["metadata"]["finalizers"] == ["someone/else"]


async def test_a_finalizer_is_not_put_on_another_migration_of_that_name(bench: Bench) -> None:
    other = migration()
    other["metadata"]["uid"] = "another"
    bench.api.put(places.PROXY_MIGRATION.at("cluster"), other)
    with pytest.raises(ActionFailedError) as failure:
        await bench.actor.carry_out(AddFinalizer(), FACTS)
    assert failure.value.outdated
    assert "finalizers" not in bench.migration()["metadata"]


async def test_a_node_migration_has_no_owner_whose_deletion_would_take_it_away(bench: Bench) -> None:
    """With an owner, `--cascade=foreground` deletes all of them while their nodes are at Sole."""
    item = await created(bench)
    assert "ownerReferences" not in item["metadata"]
    assert item["spec"]["rung"] == "Standby"


async def test_what_exists_is_not_put_back_to_its_beginning(bench: Bench) -> None:
    item = await created(bench)
    item["spec"]["rung"] = "Sole"
    with pytest.raises(ActionFailedError) as failure:
        await bench.actor.carry_out(EnsureNodeMigration("n1", order()), FACTS)
    assert failure.value.outdated
    assert bench.api.objects["nodemigrations", "", "n1"]["spec"]["rung"] == "Sole"


async def test_an_order_replaces_the_whole_spec(bench: Bench) -> None:
    item = await created(bench)
    assert "deadline" in item["spec"]
    uid, generation = item["metadata"]["uid"], item["metadata"]["generation"]
    await bench.actor.carry_out(SetRung("n1", order(Rung.SHADOW), uid, generation), FACTS)
    item = bench.api.objects["nodemigrations", "", "n1"]
    assert item["spec"]["rung"] == "Shadow"
    assert "deadline" not in item["spec"], "what an order leaves out is gone"


async def test_an_order_is_given_although_the_agent_reported_in_between(bench: Bench) -> None:
    item = await created(bench)
    uid, generation = item["metadata"]["uid"], item["metadata"]["generation"]
    status = {"metadata": {"name": "n1"}, "status": {"oldFlows": 5}}
    await bench.api.apply(places.NODE_MIGRATION.at("n1"), status, subresource="status")
    await bench.actor.carry_out(SetRung("n1", order(Rung.SHADOW), uid, generation), FACTS)
    item = bench.api.objects["nodemigrations", "", "n1"]
    assert (item["spec"]["rung"], item["status"]["oldFlows"]) == ("Shadow", 5)


@pytest.mark.parametrize("change", ["generation", "uid"])
async def test_an_outdated_order_is_not_given(bench: Bench, change: str) -> None:
    item = await created(bench)
    uid, generation = item["metadata"]["uid"], item["metadata"]["generation"]
    place = places.NODE_MIGRATION.at("n1")
    if change == "uid":
        await bench.api.delete(place, uid)
        bench.api.put(place, {"spec": {"nodeName": "n1", "rung": "Standby"}})
    else:
        await bench.api.merge_patch(place, {"spec": {"deadline": "2026-02-02T00:00:00Z"}})
    with pytest.raises(ActionFailedError) as failure:
        await bench.actor.carry_out(SetRung("n1", order(Rung.SOLE), uid, generation), FACTS)
    assert failure.value.outdated
    assert bench.api.objects["nodemigrations", "", "n1"]["spec"]["rung"] == "Standby"


async def test_only_the_node_migration_that_was_meant_is_deleted(bench: Bench) -> None:
    item = await created(bench)
    with pytest.raises(ActionFailedError):
        await bench.actor.carry_out(DeleteNodeMigration("n1", "another"), FACTS)
    await bench.actor.carry_out(DeleteNodeMigration("n1", item["metadata"]["uid"]), FACTS)
    await bench.actor.carry_out(DeleteNodeMigration("n1", item["metadata"]["uid"]), FACTS)
    assert ("nodemigrations", "", "n1") not in bench.api.objects


async def test_the_label_comes_and_goes_whoever_put_it_there(bench: Bench) -> None:
    node = bench.api.objects["nodes", "", "n1"]
    node["metadata"]["labels"]["theirs"] = "1"
    await bench.actor.carry_out(DrainKubeProxy("n1"), FACTS)
    assert bench.api.objects["nodes", "", "n1"]["metadata"]["labels"] == {"theirs": "1", LABEL: DRAINED}
    await bench.actor.carry_out(UndrainKubeProxy("n1"), FACTS)
    assert bench.api.objects["nodes", "", "n1"]["metadata"]["labels"] == {"theirs": "1"}
    bench.api.objects["nodes", "", "n2"]["metadata"]["labels"][LABEL] = DRAINED
    await bench.actor.carry_out(UndrainKubeProxy("n2"), FACTS)
    assert LABEL not in bench.api.objects["nodes", "", "n2"]["metadata"]["labels"]


async def test_a_node_that_is_gone_is_no_reason_to_stop(bench: Bench) -> None:
    with pytest.raises(ActionFailedError) as failure:
        await bench.actor.carry_out(DrainKubeProxy("nowhere"), FACTS)
    assert failure.value.outdated
    assert not failure.value.refused


async def test_the_daemonset_is_changed_and_put_back(bench: Bench) -> None:
    before = json.dumps(bench.api.objects["daemonsets", SYSTEM, "kube-proxy"]["spec"], sort_keys=True)
    await bench.actor.carry_out(PrepareDaemonSet(), FACTS)
    item = bench.api.objects["daemonsets", SYSTEM, "kube-proxy"]
    assert drain.is_prepared(item)
    assert drain.is_in_force(item)
    await bench.actor.carry_out(RestoreDaemonSet(), FACTS)
    item = bench.api.objects["daemonsets", SYSTEM, "kube-proxy"]
    assert json.dumps(item["spec"], sort_keys=True) == before
    assert not drain.is_prepared(item)
    done = len(bench.api.writes)
    await bench.actor.carry_out(RestoreDaemonSet(), FACTS)
    assert len(bench.api.writes) == done, "nothing to restore, nothing written"


async def test_a_daemonset_that_changes_by_itself_is_asked_for_again(bench: Bench) -> None:
    tried = f"apply {DAEMON_SET}"
    for _ in range(2):
        bench.api.refuse(tried, ConflictError(tried, 409, "Conflict", "it has changed"))
    await bench.actor.carry_out(PrepareDaemonSet(), FACTS)
    assert drain.is_in_force(bench.api.objects["daemonsets", SYSTEM, "kube-proxy"])


async def test_a_daemonset_that_never_rests_is_left_for_the_next_pass(bench: Bench) -> None:
    tried = f"apply {DAEMON_SET}"
    for _ in range(9):
        bench.api.refuse(tried, ConflictError(tried, 409, "Conflict", "it has changed"))
    with pytest.raises(ActionFailedError) as failure:
        await bench.actor.carry_out(PrepareDaemonSet(), FACTS)
    assert failure.value.outdated


async def test_a_missing_right_is_told_apart_from_a_lost_race(bench: Bench) -> None:
    bench.api.refuse("apply Node", ForbiddenError("apply Node n1", 403, "Forbidden", "cannot patch nodes"))
    with pytest.raises(ActionFailedError, match=r"DrainKubeProxy: .*cannot patch nodes") as failure:
        await bench.actor.carry_out(DrainKubeProxy("n1"), FACTS)
    assert failure.value.refused
    assert not failure.value.outdated


async def test_a_record_that_cannot_be_read_is_refused(bench: Bench) -> None:
    item = bench.api.objects["daemonsets", SYSTEM, "kube-proxy"]
    item["metadata"]["annotations"][drain.ANNOTATION] = "nonsense"
    with pytest.raises(ActionFailedError, match="remove the annotation") as failure:
        await bench.actor.carry_out(RestoreDaemonSet(), FACTS)
    assert failure.value.refused


async def test_the_daemonset_that_the_migration_names_is_meant(bench: Bench) -> None:
    other = MigrationFacts(
        "cluster",
        "pm-cluster",
        1,
        FACTS.created,
        ProxyMigrationSpec(target=Target.EBPF, kube_proxy=KubeProxyRef(namespace="net", name="proxy")),
    )
    with pytest.raises(ActionFailedError, match="DaemonSet net/proxy"):
        await bench.actor.carry_out(PrepareDaemonSet(), other)
