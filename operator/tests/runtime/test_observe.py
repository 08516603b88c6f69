"""Objects become facts: nothing is invented, and nothing that is there is overlooked."""

from typing import Any

import pytest
from handover_api.base import Rung
from handover_operator import observe
from handover_operator.facts import DaemonSetFacts

from .objects import daemon_set, migration, node, order, pod

pytestmark = pytest.mark.unit


def test_a_node_is_read_with_its_zone_its_label_and_its_readiness() -> None:
    item = node("n1", {"topology.kubernetes.io/zone": "a", "handover.dev/kube-proxy": "drained"})
    facts = observe.read_node(item)
    assert (facts.name, facts.zone, facts.ready, facts.drained) == ("n1", "a", True, True)
    assert not observe.read_node(node("n2", is_ready=False)).ready
    assert not observe.read_node(node("n3", {"handover.dev/kube-proxy": "other"})).drained


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_no_pod(phase: str) -> None:
    assert observe.read_pod(pod("p", "n1", phase=phase)) is None


def test_a_pod_that_is_on_no_node_yet_is_no_pod() -> None:
    assert observe.read_pod(pod("p", "")) is None


def test_a_terminating_kube_proxy_is_still_there() -> None:
    leaving = pod("kube-proxy-1", "n1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    (facts,) = observe.nodes([observe.read_node(node("n1"))], [], [observe.read_pod(leaving)], [])
    assert [p.terminating for p in facts.kube_proxy] == [True]
    assert not facts.kube_proxy_serves


def test_of_two_agents_the_newest_that_stays_counts() -> None:
    old, new, leaving = pod("old", "n1"), pod("new", "n1"), pod("leaving", "n1")
    new["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    leaving["metadata"] |= {
        "creationTimestamp": "2026-01-03T00:00:00Z",
        "deletionTimestamp": "2026-01-03T00:00:01Z",
    }
    agents = [observe.read_pod(p) for p in (new, old, leaving)]
    (facts,) = observe.nodes([observe.read_node(node("n1"))], [], [], agents)
    assert facts.agent is not None
    assert facts.agent.name == "new"


def test_a_node_migration_without_its_node_is_kept_as_what_is_left() -> None:
    facts = observe.nodes([], [observe.read_node_migration(order("gone"))], [], [])
    assert [(f.name, f.exists, f.migration is not None) for f in facts] == [("gone", False, True)]


def test_a_status_is_read_as_it_is() -> None:
    seen = observe.read_node_migration(
        order("n1", status={"rung": "Serving", "observedGeneration": 3, "oldFlows": 12})
    )
    assert seen.version == "7"
    assert seen.facts.status.rung is Rung.SERVING
    assert (seen.facts.status.observed_generation, seen.facts.status.old_flows) == (3, 12)


def test_an_unreadable_status_counts_as_never_reported(caplog: pytest.LogCaptureFixture) -> None:
    seen = observe.read_node_migration(
        order("n1", status={"rung": "Attic", "heartbeat": "2026-01-01T00:00:00Z"})
    )
    assert seen.facts.status.heartbeat is None
    assert "NodeMigration n1" in caplog.text
    assert "rung" in caplog.text


def test_the_oldest_migration_acts_and_the_others_know_it() -> None:
    items = [migration("b"), migration("a"), migration("c")]
    items[2]["metadata"]["creationTimestamp"] = "2025-12-31T00:00:00Z"
    facts = observe.migrations([observe.read_migration(item) for item in items])
    assert [(f.name, f.older) for f in facts] == [("c", None), ("a", "c"), ("b", "c")]


def test_a_migration_knows_of_its_deletion_and_of_our_finalizer_only() -> None:
    item = migration()
    item["metadata"] |= {
        "finalizers": ["someone/else"],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    facts = observe.read_migration(item).facts
    assert facts is not None
    assert (facts.deleting, facts.finalizer) == (True, False)
    item["metadata"]["finalizers"].append(observe.FINALIZER)
    facts = observe.read_migration(item).facts
    assert facts is not None
    assert facts.finalizer


def test_an_unreadable_migration_says_where() -> None:
    seen = observe.read_migration(migration(target="Nothing"))
    assert seen.facts is None
    assert "ProxyMigration cluster cannot be read: target" in seen.unreadable


def test_no_daemonset_is_a_fact() -> None:
    assert observe.daemon_set(None) == DaemonSetFacts(exists=False)
    there = observe.daemon_set(daemon_set())
    assert there == DaemonSetFacts(selector={"k8s-app": "kube-proxy"})


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        (
            {
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ]
            },
            "a in (1,2),b notin (3),c,!d",
        ),
    ],
)
def test_a_selector_becomes_a_query(selector: Any, text: str) -> None:
    assert observe.selector_text(selector) == text
