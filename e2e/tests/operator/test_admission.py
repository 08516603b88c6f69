"""What is wrong is refused where it is written: the answer names the field, what is wrong, and what would be right."""

from typing import Any

import pytest

from e2e.kube import Kube, KubeError

pytestmark = pytest.mark.e2e

API = "handover.dev/v1alpha1"


def migration(spec: dict[str, Any], name: str = "admission") -> dict[str, Any]:
    return {"apiVersion": API, "kind": "ProxyMigration", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({}, "spec.target", "Required value"),
        ({"target": "ebpf"}, "spec.target", 'supported values: "eBPF", "KubeProxy"'),
        ({"target": "eBPF", "rollback": "none"}, "spec.rollback", 'supported values: "Node", "All", "Pause"'),
        *(
            (
                {"target": "eBPF", "rollout": {"maxUnavailable": wrong}},
                "spec.rollout.maxUnavailable",
                "must be a number of nodes of at least 1, or a share of them from '1%' to '100%'",
            )
            for wrong in (0, -1, "0%", "101%", "-5%", "abc", "1", "", "1.5%")
        ),
        ({"target": "eBPF", "rollout": {"canary": -1}}, "spec.rollout.canary", "greater than or equal to 0"),
        (
            {"target": "eBPF", "rollout": {"soak": "5"}},
            "spec.rollout.soak",
            "write it as 30s, 1m30s or 500ms",
        ),
        *(
            ({"target": "eBPF", "rollout": {"soak": wrong}}, "spec.rollout.soak", "must be at most 8760h")
            for wrong in ("8761h", "99999999h", "999999999999999h", "525601m")
        ),
        (
            {"target": "eBPF", "deadline": {"shadow": "8761h"}},
            "spec.deadline.shadow",
            "must be at most 8760h",
        ),
        ({"target": "eBPF", "deadline": {"sole": "0s"}}, "spec.deadline.sole", "must be longer than 0s"),
        (
            {"target": "eBPF", "gates": {"probes": {"timeout": "0ms"}}},
            "spec.gates.probes.timeout",
            "must be longer than 0s",
        ),
        ({"target": "eBPF", "gates": {"probes": {"count": 0}}}, "spec.gates.probes.count", "or equal to 1"),
        ({"target": "eBPF", "acknowledge": ["Magic"]}, "spec.acknowledge[0]", '"SessionAffinity"'),
        ({"target": "eBPF", "kubeProxy": {"name": ""}}, "spec.kubeProxy.name", "at least 1 chars"),
        ({"target": "eBPF", "kubeProxy": {"name": "a,b"}}, "spec.kubeProxy.name", "is no DaemonSet's name"),
        (
            {"target": "eBPF", "kubeProxy": {"namespace": "a/b"}},
            "spec.kubeProxy.namespace",
            "is no namespace's name",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_what_would_be_right(
    kube: Kube, spec: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(KubeError) as refusal:
        kube.create(migration(spec))
    assert refusal.value.status == 422
    assert f"{field}: " in refusal.value.message
    assert said in refusal.value.message


@pytest.mark.parametrize("right", [1, 7, "1%", "50%", "100%"])
def test_a_number_or_a_share_of_nodes_is_accepted(kube: Kube, right: int | str) -> None:
    kube.create(migration({"target": "KubeProxy", "rollout": {"maxUnavailable": right}}))
    kube.delete("ProxyMigration", "admission")


def test_what_is_left_out_is_filled_in_to_the_bottom(kube: Kube) -> None:
    created = kube.create(migration({"target": "KubeProxy"}))
    kube.delete("ProxyMigration", "admission")
    assert created["spec"] == {
        "target": "KubeProxy",
        "paused": False,
        "rollback": "Node",
        "kubeProxy": {"namespace": "kube-system", "name": "kube-proxy"},
        "rollout": {"canary": 1, "maxUnavailable": 1, "soak": "30s"},
        "gates": {"probes": {"count": 50, "interval": "20ms", "timeout": "1s", "failureRatio": 0}},
        "deadline": {"standby": "3m", "shadow": "3m", "serving": "3m", "sole": "3m"},
    }
    assert "status" not in created


def test_the_drained_daemonset_cannot_be_exchanged_for_another(kube: Kube) -> None:
    kube.create(migration({"target": "KubeProxy"}))
    try:
        with pytest.raises(
            KubeError, match=r"spec\.kubeProxy: .*delete this ProxyMigration and create another"
        ):
            kube.patch("ProxyMigration", "admission", {"spec": {"kubeProxy": {"name": "other"}}})
    finally:
        kube.delete("ProxyMigration", "admission")


def test_a_node_migration_has_the_name_of_its_node(kube: Kube) -> None:
    item = {
        "apiVersion": API,
        "kind": "NodeMigration",
        "metadata": {"name": "one"},
        "spec": {"nodeName": "another"},
    }
    with pytest.raises(KubeError, match=r"spec\.nodeName: .*one per node, named after it"):
        kube.create(item)


def test_two_writers_each_keep_their_own_condition(kube: Kube) -> None:
    kube.create(migration({"target": "KubeProxy"}))
    try:
        for manager in ("first", "second"):
            condition = {
                "type": f"Of{manager}",
                "status": "True",
                "reason": "Test",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            status = {"conditions": [condition]}
            kube.apply_status({**migration({}), "spec": {"target": "KubeProxy"}, "status": status}, manager)
        conditions = kube.get("ProxyMigration", "admission")["status"]["conditions"]
        assert {condition["type"] for condition in conditions} == {"Offirst", "Ofsecond"}
    finally:
        kube.delete("ProxyMigration", "admission")
