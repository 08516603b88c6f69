"""Single plans: preflight, whose turn it is, what is remembered, and the answers to nodes that misbehave."""

from dataclasses import replace
from datetime import timedelta

import pytest
from handover_api.base import Feature, Rung
from handover_api.nodemigration import Fault, KubeProxySelector, NodeMigrationSpec, Unserved
from handover_api.proxymigration import NodeFailure, Phase, ProxyMigrationStatus
from handover_operator.actions import (
    AddFinalizer,
    DeleteNodeMigration,
    DrainKubeProxy,
    EnsureNodeMigration,
    RemoveFinalizer,
    RestoreDaemonSet,
    SetRung,
    UndrainKubeProxy,
)
from handover_operator.facts import DaemonSetFacts, NodeMigrationFacts, OwnerFacts, OwnerKind
from handover_operator.plan import Plan, plan
from handover_operator.reasons import Reason

from .healthy import NOW, ago, migration, node, status
from .sim import FIREWALL

pytestmark = pytest.mark.unit

UNTOUCHED, PREPARED = DaemonSetFacts(), DaemonSetFacts(prepared=True, in_force=True)
HEALTHY = [node("n1"), node("n2"), node("n3")]
FAILURE = NodeFailure(node="n2", rung=Rung.SERVING, reason="ProbesFailed", message="node n2: bad", at=NOW)


def stalled(made: Plan) -> tuple[Phase, Reason, bool]:
    """What a plan that needs a person says."""
    return made.verdict.phase, made.verdict.reason, made.verdict.stalled


def rungs(made: Plan) -> dict[str, Rung]:
    """Who is ordered where."""
    return {action.node: action.rung for action in made.actions if isinstance(action, SetRung)}


@pytest.mark.parametrize(
    ("daemonset", "spec", "nodes", "reason", "text"),
    [
        (
            DaemonSetFacts(exists=False),
            {"kubeProxy": {"namespace": "net", "name": "kp"}},
            HEALTHY,
            Reason.KUBE_PROXY_NOT_FOUND,
            "there is no DaemonSet net/kp. Set spec.kubeProxy",
        ),
        (
            UNTOUCHED,
            {"nodeSelector": {"a": "b"}},
            HEALTHY,
            Reason.NO_NODES_MATCH,
            "no node has the labels a=b",
        ),
        (UNTOUCHED, {}, [], Reason.NO_NODES_MATCH, "there are no nodes"),
        (
            DaemonSetFacts(owners=(OwnerFacts(OwnerKind.ARGO_CD, "Application kube", "label x"),)),
            {},
            HEALTHY,
            Reason.OWNER_WOULD_FIGHT,
            "ignoreDifferences",
        ),
        (
            DaemonSetFacts(owners=(OwnerFacts(OwnerKind.ADDON, "EKS's add-on", "field manager eks"),)),
            {},
            HEALTHY,
            Reason.OWNER_WOULD_FIGHT,
            "belongs to EKS's add-on (field manager eks)",
        ),
        (
            UNTOUCHED,
            {"rollout": {"maxUnavailable": "0%"}},
            HEALTHY,
            Reason.INVALID_SPEC,
            "write a number of at least 1, or 1% to 100%",
        ),
    ],
)
def test_preflight_refuses_with_a_reason_and_changes_nothing(
    daemonset: DaemonSetFacts, spec: dict[str, object], nodes: list[object], reason: Reason, text: str
) -> None:
    made = plan(migration(**spec), nodes, daemonset, NOW)  # type: ignore[arg-type]
    assert stalled(made) == (Phase.STALLED, reason, True)
    assert text in made.verdict.message
    # A NodeMigration of a node that is not selected goes away; that is nothing on the node.
    assert not [action for action in made.actions if not isinstance(action, DeleteNodeMigration)]


def test_a_senseless_spec_does_not_keep_a_deletion_from_going_on() -> None:
    facts = replace(migration(rollout={"maxUnavailable": "0%"}), deleting=True)
    assert rungs(plan(facts, [node("n1", Rung.SHADOW)], PREPARED, NOW)) == {"n1": Rung.STANDBY}


def test_preflight_tells_all_problems_at_once() -> None:
    daemonset = DaemonSetFacts(exists=False)
    made = plan(migration(nodeSelector={"a": "b"}), HEALTHY, daemonset, NOW)
    assert "there is no DaemonSet" in made.verdict.message
    assert "matches nothing" in made.verdict.message


def test_an_owner_that_yields_is_no_problem() -> None:
    owner = OwnerFacts(OwnerKind.FLUX, "Kustomization kube", "label", yields=True)
    assert rungs(plan(migration(), HEALTHY, DaemonSetFacts(owners=(owner,)), NOW)) == {"n1": Rung.SHADOW}


def test_agents_that_are_not_ready_are_named_and_need_a_person_only_after_the_deadline() -> None:
    silent = status(heartbeat=None)
    for deadline_s, phase, needs_person in ((30, Phase.PREFLIGHT, False), (-1, Phase.STALLED, True)):
        nodes = [node("n1"), *(node(n, says=silent, deadline_s=deadline_s, agent=None) for n in ("n2", "n3"))]
        made = plan(migration(), nodes, UNTOUCHED, NOW)
        assert stalled(made) == (phase, Reason.AGENT_NOT_READY, needs_person)
        assert "2 nodes (n2, n3)" in made.verdict.message
        assert rungs(made) == {}


@pytest.mark.parametrize(("age_s", "stalls"), [(170, False), (190, True)])
def test_a_node_that_never_has_a_kube_proxy_is_told_to_a_person_in_the_end(
    age_s: float, stalls: bool
) -> None:
    virtual = replace(node("n2"), migration=None, kube_proxy=(), agent=None)
    facts = replace(migration(), created=ago(age_s))
    made = plan(facts, [node("n1"), virtual], UNTOUCHED, NOW)
    phase = Phase.STALLED if stalls else Phase.PREFLIGHT
    assert stalled(made) == (phase, Reason.KUBE_PROXY_NOT_READY, stalls)
    assert "left out with spec.nodeSelector" in made.verdict.message
    assert made.actions == ()


def test_a_node_that_is_not_ready_does_not_keep_the_others_from_beginning() -> None:
    nodes = [node("n1", ready=False, says=status(heartbeat=ago(500))), node("n2")]
    assert rungs(plan(migration(), nodes, UNTOUCHED, NOW)) == {"n2": Rung.SHADOW}


def test_the_finalizer_comes_before_everything_else() -> None:
    made = plan(replace(migration(), finalizer=False), HEALTHY, UNTOUCHED, NOW)
    assert made.actions == (AddFinalizer(),)


def test_a_finalizer_that_was_lost_takes_no_memory_with_it() -> None:
    """`kubectl replace` with the manifest from Git takes it away, and leaves status and generation as they are."""
    remembered = ProxyMigrationStatus(
        observed_generation=1, failed_nodes=["n2"], failures=[FAILURE], reverted_generation=0, begun=True
    )
    facts = replace(migration(), finalizer=False, status=remembered)
    made = plan(facts, [node("n1", Rung.SOLE, soaked=True), node("n2"), node("n3")], PREPARED, NOW)
    assert made.actions == (AddFinalizer(),)
    assert (made.failed_nodes, made.failures, made.begun) == (("n2",), (FAILURE,), True)


def test_the_older_migration_acts_and_the_younger_says_which() -> None:
    younger = replace(migration(), older="first")
    made = plan(younger, HEALTHY, UNTOUCHED, NOW)
    assert stalled(made) == (Phase.STALLED, Reason.ANOTHER_MIGRATION, True)
    assert "first" in made.verdict.message
    assert made.actions == ()
    assert plan(replace(younger, deleting=True), HEALTHY, UNTOUCHED, NOW).actions == (RemoveFinalizer(),)


def test_the_same_facts_give_the_same_plan() -> None:
    nodes = [node("n2", Rung.SERVING), node("n1", Rung.SOLE, soaked=True), node("n3")]
    assert plan(migration(), nodes, PREPARED, NOW) == plan(migration(), nodes[::-1], PREPARED, NOW)


def test_a_failure_is_written_down_before_anything_is_done_about_it() -> None:
    broken = node("n1", Rung.SERVING, says=status(Rung.SERVING, datapath_errors=2))
    made = plan(migration(), [broken, node("n2")], PREPARED, NOW)
    assert made.actions == ()
    assert made.failed_nodes == ("n1",)
    assert made.requeue_at == NOW
    remembered = ProxyMigrationStatus(
        observed_generation=1, failed_nodes=list(made.failed_nodes), failures=list(made.failures)
    )
    made = plan(migration(known=remembered), [broken, node("n2")], PREPARED, NOW)
    assert rungs(made) == {"n1": Rung.SHADOW}


@pytest.mark.parametrize(
    ("rollback", "moved"), [("Node", {"n2": Rung.SHADOW}), ("All", {"n2": Rung.SHADOW}), ("Pause", {})]
)
def test_rollback_takes_back_one_node_all_nodes_or_none(rollback: str, moved: dict[str, Rung]) -> None:
    known = ProxyMigrationStatus(observed_generation=1, failed_nodes=["n2"], failures=[FAILURE])
    nodes = [node("n1", Rung.SOLE, soaked=True), node("n2", Rung.SERVING), node("n3")]
    made = plan(migration(known=known, rollback=rollback), nodes, PREPARED, NOW)
    assert rungs(made) == moved
    assert made.verdict.reason is Reason.PROBES_FAILED
    assert "node n2: bad" in made.verdict.message
    after = [nodes[0], node("n2"), node("n3")]
    made = plan(migration(known=known, rollback=rollback), after, PREPARED, NOW)
    assert rungs(made) == ({"n1": Rung.SERVING} if rollback == "All" else {})


def test_a_new_generation_forgets_failures() -> None:
    known = ProxyMigrationStatus(observed_generation=1, failed_nodes=["n2"], failures=[FAILURE])
    made = plan(migration(known=known, generation=2), [node("n2")], PREPARED, NOW)
    assert rungs(made) == {"n2": Rung.SHADOW}
    assert made.failed_nodes == ()


def test_a_new_generation_renews_a_deadline_before_it_judges() -> None:
    late = node("n1", wanted=Rung.SHADOW, deadline_s=-100)
    assert plan(migration(), [late], PREPARED, NOW).failed_nodes == ("n1",)
    made = plan(migration(generation=2), [late], PREPARED, NOW)
    assert made.failed_nodes == ()
    (order,) = made.actions
    assert isinstance(order, SetRung)
    assert (order.rung, order.spec.migration_generation) == (Rung.SHADOW, 2)
    assert order.deadline == NOW + timedelta(minutes=3)


def test_a_deadline_does_not_run_out_for_an_agent_that_nobody_hears() -> None:
    silent = node("n1", wanted=Rung.SHADOW, deadline_s=-100, says=status(heartbeat=ago(40)))
    made = plan(migration(), [silent], PREPARED, NOW)
    assert made.failed_nodes == ()
    assert rungs(made) == {"n1": Rung.SHADOW}  # the same order, with a new deadline


def test_an_unknown_remembered_reason_is_no_trouble() -> None:
    odd = FAILURE.model_copy(update={"reason": "FromTheFuture"})
    known = ProxyMigrationStatus(observed_generation=1, failed_nodes=["n2"], failures=[odd])
    assert plan(migration(known=known), [node("n2")], PREPARED, NOW).verdict.reason is Reason.ROLLING_BACK


def test_a_held_node_is_not_drained_and_the_message_names_features_services_and_the_way_on() -> None:
    asked = [
        Unserved(feature=Feature.NODE_PORT, service="shop/web", message="port 30080"),
        Unserved(feature=Feature.SCTP, service="tel/sig", message="port 3868"),
    ]
    held = node("n1", Rung.SERVING, says=status(Rung.SERVING, unserved=asked))
    made = plan(migration(rollout={"soak": "1s"}), [held], UNTOUCHED, NOW)
    assert made.verdict.phase is Phase.HOLDING
    for text in ("NodePort, SCTP", "shop/web", "tel/sig", "spec.acknowledge"):
        assert text in made.verdict.message
    assert not any(isinstance(action, DrainKubeProxy) for action in made.actions)
    partly = plan(migration(acknowledge=["NodePort"]), [held], PREPARED, NOW)
    assert partly.verdict.phase is Phase.HOLDING
    assert "shop/web" not in partly.verdict.message
    made = plan(migration(acknowledge=["NodePort", "SCTP"]), [held], PREPARED, NOW)
    assert DrainKubeProxy("n1") in made.actions


def test_a_service_that_comes_after_the_drain_brings_kube_proxy_back() -> None:
    asked = [Unserved(feature=Feature.NODE_PORT, service="shop/web", message="port 30080")]
    drained = node("n1", Rung.SERVING, says=status(Rung.SERVING, unserved=asked), drained=True, kube_proxy=())
    made = plan(migration(), [drained], PREPARED, NOW)
    assert UndrainKubeProxy("n1") in made.actions
    assert rungs(made) == {"n1": Rung.SERVING}


def test_paused_nobody_moves_but_a_label_that_leaves_a_node_without_any_proxy_goes() -> None:
    nodes = [node("n1", Rung.SHADOW), node("n2", Rung.SERVING), node("n3", drained=True)]
    made = plan(migration(paused=True), nodes, PREPARED, NOW)
    assert made.verdict.phase is Phase.PAUSED
    assert made.actions == (UndrainKubeProxy("n3"),)


def test_a_deletion_goes_on_although_it_is_paused() -> None:
    facts = replace(migration(paused=True), deleting=True)
    assert rungs(plan(facts, [node("n1", Rung.SHADOW)], PREPARED, NOW)) == {"n1": Rung.STANDBY}


def test_a_migrated_node_that_is_not_well_stays_and_stops_the_line() -> None:
    fault = Fault(reason="MapsFull", message="no room", since=ago(5))
    ill = node("n1", Rung.SOLE, soaked=True, says=status(Rung.SOLE, fault=fault))
    made = plan(migration(), [ill, node("n2")], PREPARED, NOW)
    assert rungs(made) == {}
    assert stalled(made) == (Phase.STALLED, Reason.DEGRADED, True)
    assert "MapsFull" in made.verdict.message
    alone = plan(migration(), [ill], PREPARED, NOW)
    assert (alone.verdict.phase, alone.verdict.reason, alone.verdict.ready) == (
        Phase.MIGRATED,
        Reason.DEGRADED,
        False,
    )


def test_a_migrated_node_that_reboots_keeps_its_order_and_has_to_soak_again() -> None:
    fallen = node("n1", Rung.STANDBY, wanted=Rung.SOLE, soaked=True, drained=True, kube_proxy=())
    says = status(kube_proxy=status(Rung.SOLE).kube_proxy)
    assert fallen.migration is not None
    fallen = replace(fallen, migration=replace(fallen.migration, status=says))
    made = plan(migration(), [fallen], PREPARED, NOW)
    (order,) = made.actions
    assert isinstance(order, SetRung)
    assert (order.rung, order.spec.soak_passed) == (Rung.SOLE, None)
    assert made.counts.migrated == 0


def test_a_node_whose_dead_man_tripped_has_failed_without_waiting_for_its_deadline() -> None:
    fault = Fault(reason="DeadManTripped", message="rules are back", since=ago(5))
    tripped = node(
        "n1",
        Rung.SHADOW,
        wanted=Rung.SOLE,
        says=status(Rung.SHADOW, fault=fault),
        kube_proxy=(),
        drained=True,
    )
    made = plan(migration(), [tripped], PREPARED, NOW)
    assert made.failed_nodes == ("n1",)


def test_kube_proxy_that_returns_before_the_flush_takes_the_order_back() -> None:
    back = node("n1", Rung.SERVING, wanted=Rung.SOLE, drained=True)
    assert rungs(plan(migration(), [back], PREPARED, NOW)) == {"n1": Rung.SERVING}


def test_a_new_machine_under_an_old_name_starts_anew() -> None:
    replaced = replace(node("n1", Rung.SOLE, soaked=True), uid="another", drained=False)
    made = plan(migration(), [replaced, node("n2")], PREPARED, NOW)
    assert DeleteNodeMigration("n1", "nm-n1") in made.actions


def test_a_node_that_is_gone_is_forgotten() -> None:
    gone = replace(node("n1", Rung.SOLE), exists=False)
    made = plan(migration(), [gone, node("n2")], PREPARED, NOW)
    assert DeleteNodeMigration("n1", "nm-n1") in made.actions
    assert made.counts.selected == 1


def test_a_deselected_node_goes_down_and_its_nodemigration_goes() -> None:
    chosen = {"pool": "a"}
    nodes = [node("n1", Rung.SHADOW), node("n2", labels=chosen), node("n3")]
    made = plan(migration(nodeSelector=chosen), nodes, PREPARED, NOW)
    assert rungs(made) == {"n1": Rung.STANDBY}
    assert DeleteNodeMigration("n3", "nm-n3") in made.actions


@pytest.mark.parametrize(("drained", "rung"), [(True, Rung.SERVING), (False, Rung.STANDBY)])
def test_a_deleted_nodemigration_comes_back_where_nobody_is_taken_from_the_node(
    drained: bool, rung: Rung
) -> None:
    bare = replace(node("n1"), migration=None, drained=drained)
    made = plan(migration(), [bare], PREPARED, NOW)
    (created,) = [action for action in made.actions if isinstance(action, EnsureNodeMigration)]
    assert (created.spec.rung, created.uid) == (rung, "")


def test_new_gates_reach_every_nodemigration_on_the_rung_that_it_has() -> None:
    made = plan(
        migration(gates={"probes": {"count": 7}}), [node("n1", Rung.SOLE, soaked=True)], PREPARED, NOW
    )
    (refreshed,) = made.actions
    assert isinstance(refreshed, EnsureNodeMigration)
    assert refreshed.spec.gates.probes.count == 7
    assert (refreshed.spec.rung, refreshed.uid) == (Rung.SOLE, "nm-n1")
    assert refreshed.spec.soak_passed is not None


def test_an_order_carries_the_identity_of_what_was_planned_on() -> None:
    facts = node("n1", Rung.SHADOW)
    assert facts.migration is not None
    stored = NodeMigrationFacts("nm-7", 1, facts.migration.spec, facts.migration.status)
    (order,) = plan(migration(), [replace(facts, migration=stored)], PREPARED, NOW).actions
    assert isinstance(order, SetRung)
    assert (order.uid, order.generation) == ("nm-7", 1)
    assert isinstance(order.spec, NodeMigrationSpec)
    assert order.spec.node_uid == "uid-n1"


DONE = node("n1", Rung.SOLE, soaked=True)


def test_a_migrated_node_whose_label_somebody_took_away_is_drained_again() -> None:
    made = plan(
        migration(), [replace(DONE, drained=False), node("n2", Rung.SOLE, soaked=True)], PREPARED, NOW
    )
    assert made.actions == (DrainKubeProxy("n1"),)
    assert [event.warning for event in made.events] == [True]
    assert made.verdict.ready


@pytest.mark.parametrize(
    ("spec", "daemonset"),
    [
        ({"paused": True}, PREPARED),
        ({}, DaemonSetFacts(prepared=True, in_force=False)),
        ({}, DaemonSetFacts(exists=False)),
    ],
)
def test_it_is_not_drained_where_nothing_may_move_or_nobody_would_leave(
    spec: dict[str, object], daemonset: DaemonSetFacts
) -> None:
    made = plan(migration(**spec), [replace(DONE, drained=False)], daemonset, NOW)  # type: ignore[arg-type]
    assert DrainKubeProxy("n1") not in made.actions


def test_a_daemonset_whose_record_somebody_removed_is_put_back_all_the_same() -> None:
    unrecorded = DaemonSetFacts(in_force=True, unrecorded=True)
    made = plan(migration("KubeProxy"), HEALTHY, unrecorded, NOW)
    assert made.actions == (RestoreDaemonSet(),)
    assert not made.verdict.ready
    # Somebody who wants the same as we did has it for themselves.
    made = plan(migration("KubeProxy"), HEALTHY, DaemonSetFacts(in_force=True), NOW)
    assert made.actions == ()
    assert made.verdict.ready


@pytest.mark.parametrize("rung", [Rung.SERVING, Rung.SOLE])
def test_how_kube_proxys_pods_are_found_outlives_their_daemonset(rung: Rung) -> None:
    """Its selector is known from the DaemonSet; when that is gone, a NodeMigration has to remember it."""
    facts = node("n1", rung, soaked=rung is Rung.SOLE)
    assert facts.migration is not None
    known = KubeProxySelector(selector={"k8s-app": "kube-proxy"})
    spec = facts.migration.spec.model_copy(update={"kube_proxy": known})
    facts = replace(facts, migration=replace(facts.migration, spec=spec))
    for target in ("eBPF", "KubeProxy"):
        made = plan(migration(target), [facts], DaemonSetFacts(exists=False), NOW)
        written = [a.spec for a in made.actions if isinstance(a, SetRung | EnsureNodeMigration)]
        assert all(each.kube_proxy == known for each in written), target


def test_nodes_whose_slot_a_lost_one_has_say_what_to_do() -> None:
    lost = node("n1", Rung.SERVING, says=status(Rung.SERVING, heartbeat=ago(500)), ready=False)
    made = plan(migration("KubeProxy"), [lost, node("n2", Rung.SOLE, soaked=True)], PREPARED, NOW)
    assert rungs(made) == {}
    assert stalled(made) == (Phase.REVERSING, Reason.REVERSING, True)
    assert "node n2: expected a slot for its way back" in made.verdict.message
    assert "used up by n1, which is not heard of. If that machine will not come back, delete its Node" in (
        made.verdict.message
    )


def test_what_is_not_served_names_the_nodes_and_how_old_that_is() -> None:
    asks = [Unserved(feature=Feature.NODE_PORT, service="shop/web", message="no programs on devices")]
    nodes = [
        node("n1"),
        node("n2", says=status(unserved=asks)),
        node("n3", says=status(unserved=asks, heartbeat=ago(900)), ready=False),
    ]
    text = plan(migration(), nodes, UNTOUCHED, NOW).verdict.message
    assert "NodePort, which is served not on n2, n3 (as it said at" in text
    assert "or leave these nodes out with spec.nodeSelector" in text


def test_a_firewall_before_dnat_keeps_a_migration_from_beginning_and_says_what_to_do() -> None:
    nodes = [node("n1"), node("n2", says=status(bypassed=list(FIREWALL)))]
    made = plan(migration(), nodes, UNTOUCHED, NOW)
    assert rungs(made) == {}
    assert stalled(made) == (Phase.STALLED, Reason.RULES_BYPASSED, True)
    for text in ("node n2", "--dport 30000:32767", "FORWARD", "RulesBeforeDNAT", "spec.nodeSelector"):
        assert text in made.verdict.message
    made = plan(migration(acknowledge=["RulesBeforeDNAT"]), nodes, UNTOUCHED, NOW)
    assert rungs(made) == {"n1": Rung.SHADOW}


def test_a_firewall_that_comes_before_the_cutover_takes_its_node_back_and_nobody_else() -> None:
    ruled = status(Rung.SHADOW, bypassed=list(FIREWALL))
    nodes = [node("n1", Rung.SOLE, soaked=True), node("n2", Rung.SHADOW, says=ruled)]
    made = plan(migration(rollback="All"), nodes, PREPARED, NOW)
    assert rungs(made) == {"n2": Rung.STANDBY}
    assert made.failures == ()


@pytest.mark.parametrize("rung", [Rung.SERVING, Rung.SOLE])
def test_a_firewall_that_comes_after_the_cutover_is_told_of_and_takes_nobody_back(rung: Rung) -> None:
    ruled = node("n1", rung, says=status(rung, bypassed=list(FIREWALL)), soaked=True)
    made = plan(migration(), [ruled], PREPARED, NOW)
    assert all(order.height >= rung.height for order in rungs(made).values())
    assert made.failures == ()
    assert "Rules before kube-proxy's DNAT are bypassed on n1" in made.verdict.message
    made = plan(migration(acknowledge=["RulesBeforeDNAT"]), [ruled], PREPARED, NOW)
    assert "bypassed" not in made.verdict.message


def test_nobody_cuts_over_before_the_agent_has_looked_for_rules_before_dnat() -> None:
    unseen = node("n1", Rung.SHADOW, says=status(Rung.SHADOW, bypassed=None))
    made = plan(migration(), [unseen], PREPARED, NOW)
    assert rungs(made) == {}
    assert "its agent to have looked for rules before kube-proxy's DNAT" in made.verdict.message
