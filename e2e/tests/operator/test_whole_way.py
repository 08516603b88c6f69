"""The operator on a real cluster, the whole way up and back, with agents that only pretend."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from handover_api.base import API_VERSION

from e2e.kube import Kube
from e2e.lab import Lab
from e2e.tests.operator.outside import OutsideOperator
from e2e.tests.operator.pretend import PretendedAgents
from e2e.trial import until

pytestmark = pytest.mark.e2e

NAME = "cluster"
LABEL = "handover.dev/kube-proxy"
FINALIZER = "handover.dev/cleanup"
PATIENCE_S = 120.0
QUICK = {"rollout": {"soak": "1s"}}


def wish(kube: Kube, name: str = NAME, **spec: Any) -> None:
    item = {
        "apiVersion": API_VERSION,
        "kind": "ProxyMigration",
        "metadata": {"name": name},
        "spec": {"target": "eBPF", **QUICK, **spec},
    }
    kube.apply(item, manager="person")


def status(kube: Kube, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = kube.get("ProxyMigration", name).get("status", {})
    return found


def wait_for(
    kube: Kube, what: str, check: Callable[[dict[str, Any]], bool], name: str = NAME
) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        now = status(kube, name)
        return now if check(now) else None

    return until(what, seen, PATIENCE_S, lambda: json.dumps(status(kube, name), indent=1))


def phase(kube: Kube, *phases: str, name: str = NAME) -> dict[str, Any]:
    generation = kube.get("ProxyMigration", name)["metadata"]["generation"]
    return wait_for(
        kube,
        f"{name} is {' or '.join(phases)}",
        lambda now: now.get("phase") in phases and now.get("observedGeneration") == generation,
        name,
    )


def condition(now: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(c for c in now["conditions"] if c["type"] == kind)


def proxies(kube: Kube) -> dict[str, str]:
    """The uid of kube-proxy's pod on each node."""
    pods = kube.list("Pod", "kube-system", "k8s-app=kube-proxy")
    return {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in pods}


def everything(kube: Kube) -> dict[str, Any]:
    """What must be the same before and after."""
    daemon_set = kube.get("DaemonSet", "kube-proxy", "kube-system")
    nodes = {node["metadata"]["name"]: node for node in kube.list("Node")}
    return {
        "spec": daemon_set["spec"],
        "annotations": sorted(daemon_set["metadata"]["annotations"]),
        "owners": sorted({entry["manager"] for entry in daemon_set["metadata"]["managedFields"]}),
        "labels": {name: node["metadata"]["labels"] for name, node in nodes.items()},
        "node owners": {
            name: sorted({entry["manager"] for entry in node["metadata"]["managedFields"]})
            for name, node in nodes.items()
        },
        "orders": kube.list("NodeMigration"),
    }


def text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)


def test_up_and_back_leaves_everything_as_it_was(
    lab: Lab, kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    before = everything(kube)
    pods = proxies(kube)
    wish(kube)

    first = wait_for(kube, "one node is migrated", lambda now: now.get("migrated") == "1/3")
    assert first["nodes"]["selected"] == 3
    left = proxies(kube)
    gone = pods.keys() - left.keys()
    assert gone, "nobody was drained"
    assert left.items() <= pods.items(), "another kube-proxy pod was restarted"

    done = phase(kube, "Migrated")
    assert done["migrated"] == "3/3"
    assert condition(done, "Ready")["status"] == "True"
    assert not proxies(kube)
    row = lab.kubectl("get", "pm", NAME, "--no-headers").split()
    assert row[:4] == [NAME, "Migrated", "eBPF", "3/3"]

    wish(kube, target="KubeProxy")
    done = phase(kube, "Reversed")
    assert condition(done, "Ready")["status"] == "True"
    assert proxies(kube).keys() == pods.keys()
    item = kube.get("ProxyMigration", NAME)
    assert item["metadata"]["finalizers"] == [FINALIZER]
    assert "annotations" not in item["metadata"], "something keeps its books on the object"

    kube.delete("ProxyMigration", NAME)
    until("the finalizer is off", lambda: not kube.list("ProxyMigration"), PATIENCE_S)
    assert text(everything(kube)) == text(before)
    told = {e["reason"] for e in kube.list("Event", "default") if e["involvedObject"]["name"] == NAME}
    assert {"Step", "KubeProxyDrained", "NodeMigrated", "KubeProxyReturns"} <= told
    assert operator.stop() == 0, "SIGTERM is a clean end"


def test_an_operator_that_is_killed_at_every_rung_is_succeeded(
    kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    before = everything(kube)
    wish(kube)
    killed = 0

    def kill_at_each_step(goal: str) -> bool:
        nonlocal killed
        if len(agents.trace) > killed:
            killed = len(agents.trace)
            operator.stop(signal.SIGKILL)
            operator.start()
        return status(kube).get("phase") == goal

    until("all nodes are migrated", lambda: kill_at_each_step("Migrated"), 2 * PATIENCE_S)
    up = list(agents.trace)
    assert killed >= 9
    wish(kube, target="KubeProxy")
    until("all nodes are back", lambda: kill_at_each_step("Reversed"), 2 * PATIENCE_S)

    for node in ("n1", "n2", "n3"):
        assert [rung for name, rung in up if name == node] == ["Shadow", "Serving", "Sole"]
        down = [rung for name, rung in agents.trace[len(up) :] if name == node]
        assert down == ["Serving", "Shadow", "Standby"]
    kube.delete("ProxyMigration", NAME)
    until("the finalizer is off", lambda: not kube.list("ProxyMigration"), PATIENCE_S)
    assert text(everything(kube)) == text(before)


def test_a_failed_gate_on_the_second_node_takes_that_node_back_and_stops_the_line(
    kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    agents.fails_probes.add("n2")
    wish(kube)

    failed = phase(kube, "Stalled")

    assert failed["failedNodes"] == ["n2"]
    assert condition(failed, "Stalled")["status"] == "True"
    assert condition(failed, "Stalled")["reason"] == "ProbesFailed"
    assert "n2" in failed["message"]
    assert "default/web" in failed["message"]
    rungs = {i["metadata"]["name"]: i["spec"]["rung"] for i in kube.list("NodeMigration")}
    assert rungs == {"n1": "Sole", "n2": "Standby", "n3": "Standby"}
    assert proxies(kube).keys() == {"n2", "n3"}


def test_deleted_half_way_it_goes_all_the_way_back(
    kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    before = everything(kube)
    wish(kube)
    wait_for(kube, "one node is migrated", lambda now: now.get("migrated") == "1/3")

    kube.delete("ProxyMigration", NAME)

    until("it is gone", lambda: not kube.list("ProxyMigration"), PATIENCE_S)
    assert text(everything(kube)) == text(before)


def test_the_api_server_may_be_away_in_the_middle(
    lab: Lab, kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    wish(kube)
    wait_for(kube, "a node is on its way", lambda now: bool(now.get("currentNodes")))
    lab.stop_apiserver()
    until("the operator has noticed", lambda: "nothing is planned" in operator.said(), PATIENCE_S)
    lab.start_apiserver()
    phase(kube, "Migrated")


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        (
            {"kubeProxy": {"namespace": "kube-system", "name": "kube-proxy"}, "nodeSelector": {"no": "such"}},
            "NoNodesMatch",
            "spec.nodeSelector matches nothing",
        ),
        (
            {"kubeProxy": {"namespace": "kube-system", "name": "nowhere"}},
            "KubeProxyNotFound",
            "there is no DaemonSet kube-system/nowhere",
        ),
    ],
)
def test_what_cannot_begin_says_what_to_do_and_changes_nothing(
    kube: Kube, operator: OutsideOperator, spec: dict[str, Any], reason: str, said: str
) -> None:
    before = everything(kube)
    wish(kube, **spec)

    now = phase(kube, "Stalled")

    assert condition(now, "Stalled")["reason"] == reason
    assert said in now["message"]
    assert text(everything(kube)) == text(before)


def test_of_two_migrations_the_older_one_acts(
    kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    wish(kube, "older", paused=True)
    phase(kube, "Paused", "Preflight", name="older")
    wish(kube, "younger")

    now = phase(kube, "Stalled", name="younger")

    assert condition(now, "Stalled")["reason"] == "AnotherMigration"
    assert "older" in now["message"]
    assert FINALIZER not in kube.get("ProxyMigration", "younger")["metadata"].get("finalizers", [])


def test_a_right_that_is_missing_is_named_where_people_look(
    lab: Lab, kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    lab.kubectl("delete", "rolebinding", "handover-operator-kube-proxy", "--namespace=kube-system")
    wish(kube)

    now = wait_for(kube, "the missing right is told", lambda now: "may not" in now.get("message", ""))

    assert condition(now, "Stalled")["status"] == "True"
    assert "list pods" in now["message"]
    assert "Grant it" in now["message"]
    operator.grant()
    phase(kube, "Migrated")


def test_an_object_in_git_and_the_object_in_the_cluster_stay_equal(
    kube: Kube, agents: PretendedAgents, operator: OutsideOperator
) -> None:
    wish(kube, paused=True)
    phase(kube, "Paused", "Preflight")
    metadata = kube.get("ProxyMigration", NAME)["metadata"]
    assert metadata["generation"] == 1
    assert {e["manager"] for e in metadata["managedFields"]} == {"person", "handover-operator"}
