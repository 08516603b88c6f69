"""What cannot be done is refused at once, or said in a condition that tells what to do; and nothing is
changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from handover_api.base import Condition, ConditionStatus, Rung
from handover_api.nodemigration import NodeMigrationStatus
from handover_api.proxymigration import Phase

from e2e.kube import KubeError
from e2e.migration import AGENT, NAMESPACE, Migration, ready, wish
from e2e.trial import until

pytestmark = pytest.mark.e2e

REFUSED: list[tuple[str, Mapping[str, Any], list[str]]] = [
    ("a wrong target", {"target": "Cilium"}, ["spec.target", "eBPF", "KubeProxy"]),
    ("a wrong rollback", {"rollback": "Never"}, ["spec.rollback", "Node", "All", "Pause"]),
    ("no node at a time", {"rollout": {"maxUnavailable": 0}}, ["spec.rollout.maxUnavailable", "at least 1"]),
    ("no share at a time", {"rollout": {"maxUnavailable": "0%"}}, ["spec.rollout.maxUnavailable", "1%"]),
    ("a negative number", {"rollout": {"maxUnavailable": -1}}, ["spec.rollout.maxUnavailable", "at least 1"]),
    ("a soak that is none", {"rollout": {"soak": "soon"}}, ["spec.rollout.soak", "30s"]),
]


def test_what_makes_no_sense_is_refused_at_admission_and_says_what_would(migration: Migration) -> None:
    for what, spec, words in REFUSED:
        item = wish()
        item["spec"] = {**item["spec"], **spec}
        with pytest.raises(KubeError) as refused:
            migration.kube.apply(item)
        assert refused.value.status == 422, what
        missing = [word for word in words if word not in refused.value.message]
        assert not missing, f"{what}: {missing} not in {refused.value.message}"
    assert not migration.kube.list("ProxyMigration")


def stalled(migration: Migration, reason: str, name: str = "cluster") -> Condition:
    """The condition Stalled of a ProxyMigration, once it is true for that reason."""

    def found() -> Condition | None:
        item = migration.kube.get("ProxyMigration", name)
        for data in item.get("status", {}).get("conditions", []):
            condition = Condition.model_validate(data)
            current = condition.observed_generation == item["metadata"]["generation"]
            true = condition.type == "Stalled" and condition.status is ConditionStatus.TRUE
            if true and current and condition.reason == reason:
                return condition
        return None

    return until(f"{name} says why it does not go on", found, 45, migration.picture)


def nothing_has_begun(migration: Migration) -> None:
    assert {s.wanted for s in migration.standings()} <= {Rung.STANDBY}
    daemonset = migration.kube.get("DaemonSet", "kube-proxy", "kube-system")
    assert "affinity" not in daemonset["spec"]["template"]["spec"]
    assert "handover.dev/original" not in daemonset["metadata"].get("annotations", {})


def test_a_daemonset_that_does_not_exist_is_named(migration: Migration) -> None:
    migration.ask("eBPF", kubeProxy={"namespace": "kube-system", "name": "kube-proxi"})
    condition = stalled(migration, "KubeProxyNotFound")
    assert "kube-system/kube-proxi" in condition.message
    nothing_has_begun(migration)


def test_a_selector_that_matches_nothing_is_named(migration: Migration) -> None:
    migration.ask("eBPF", nodeSelector={"pool": "nowhere"})
    condition = stalled(migration, "NoNodesMatch")
    assert "pool" in condition.message
    assert "nowhere" in condition.message
    nothing_has_begun(migration)


def test_of_two_proxymigrations_the_older_one_acts_and_the_other_says_so(migration: Migration) -> None:
    migration.ask("eBPF", paused=True)
    second = wish()
    second["metadata"]["name"] = "second"  # within the same second, names decide
    migration.kube.apply(second)
    condition = stalled(migration, "AnotherMigration", "second")
    assert "cluster" in condition.message
    nothing_has_begun(migration)


def test_an_agent_that_never_becomes_ready_is_named_with_its_node(migration: Migration) -> None:
    daemonset = next(d["metadata"]["name"] for d in migration.kube.list("DaemonSet", NAMESPACE))

    def select(nowhere: str | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"e2e": nowhere}}}}}
        migration.kube.patch("DaemonSet", daemonset, patch, NAMESPACE)

    select("nowhere")
    try:
        until("no agent runs", lambda: not migration.pods(AGENT), 60)
        migration.ask("eBPF")

        def blames() -> Condition | None:
            conditions = migration.status().conditions
            return next((c for c in conditions if c.reason == "AgentNotReady"), None)

        condition = until("the missing agent is named", blames, 45, migration.picture)
        assert "n1" in condition.message
        assert "agent" in condition.message
        nothing_has_begun(migration)
    finally:
        select(None)
        migration.trial.lab.rollout(f"daemonset/{daemonset}", NAMESPACE)


@contextmanager
def firewall_before_dnat(migration: Migration, name: str) -> Iterator[None]:
    """On a node, a rule in `raw` for a port of the range of NodePorts that no Service has; its agent is a new one, which
    has not looked earlier.
    """
    node = migration.trial.lab.node(name)
    rule = ["PREROUTING", "-p", "tcp", "-m", "tcp", "--dport", "32767", "-j", "DROP"]
    assert "table ip raw" not in node.exec(["nft", "list", "tables"]).stdout
    node.exec(["iptables-nft", "-t", "raw", "-A", *rule])
    try:
        for pod in migration.pods(AGENT, name):
            migration.kube.delete("Pod", pod["metadata"]["name"], NAMESPACE)
        until("the agent has a successor", lambda: ready(migration.pods(AGENT, name)), 60)
        yield
    finally:
        node.exec(["nft", "delete", "table", "ip", "raw"])  # iptables would leave it, empty


def bypassed(migration: Migration, node: str) -> list[str]:
    """The rules that a node's agent tells of."""
    item = migration.kube.get("NodeMigration", node)
    found = NodeMigrationStatus.model_validate(item.get("status", {})).bypassed
    assert found is not None
    return [each.rule for each in found]


def test_a_firewall_before_dnat_keeps_a_migration_from_beginning_until_it_is_gone(
    migration: Migration,
) -> None:
    with firewall_before_dnat(migration, "n2"):
        migration.ask("eBPF")
        condition = stalled(migration, "RulesBypassed")
        for word in ("node n2", "iptables-nft ipv4 raw", "--dport 32767 -j DROP", "RulesBeforeDNAT"):
            assert word in condition.message
        assert bypassed(migration, "n2") == ["PREROUTING: -p tcp -m tcp --dport 32767 -j DROP"]
        assert bypassed(migration, "n1") == []
        nothing_has_begun(migration)
    migration.wait_for("it begins", lambda s: any(each.wanted is Rung.SHADOW for each in s.values()))


def test_a_firewall_before_dnat_that_is_acknowledged_is_bypassed_and_told_of(migration: Migration) -> None:
    only = {"kubernetes.io/hostname": "n2"}
    with firewall_before_dnat(migration, "n2"):
        migration.ask("eBPF", nodeSelector=only)
        stalled(migration, "RulesBypassed")
        nothing_has_begun(migration)
        migration.change(acknowledge=["RulesBeforeDNAT"])
        status = migration.wait_for_phase(Phase.MIGRATED)
        assert "bypassed" not in status.message

        # Who takes it back does not take the node back; it is told of.
        migration.change(acknowledge=[])
        status = migration.wait_for_phase(Phase.MIGRATED)
        assert "Rules before kube-proxy's DNAT are bypassed on n2" in status.message
        standing = migration.standing("n2")
        assert standing is not None
        assert standing.rung is standing.wanted is Rung.SOLE
        assert bypassed(migration, "n2")
