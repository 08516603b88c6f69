"""A DaemonSet is changed and put back exactly, whoever made it and whatever stood in it.

The cases are those of the ways in which kube-proxy's DaemonSet comes into clusters. HANDOVER_E2E_RECORD=1 writes
what the API server makes of them to operator/tests/samples, where the unit tests read it.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from handover_api.base import KubeProxyRef, Target
from handover_api.proxymigration import ProxyMigrationSpec
from handover_operator import access, drain
from handover_operator.act import Actor
from handover_operator.actions import PrepareDaemonSet, RestoreDaemonSet
from handover_operator.api import Api
from handover_operator.cluster import AgentPods, Cluster
from handover_operator.facts import MigrationFacts

from e2e.kube import Kube
from e2e.lab import Lab
from e2e.lab.paths import CHECKOUT
from e2e.netns import Inside

pytestmark = pytest.mark.e2e

NAMESPACE = "e2e-daemonset"
SAMPLES = CHECKOUT / "operator/tests/samples"

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
TENTH = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LINUX = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
ARM = {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}
NODE_AFFINITY = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [LINUX]}]}}}
RICH_AFFINITY = {
    "nodeAffinity": {
        REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [LINUX]}, {"matchExpressions": [ARM]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [ARM]}}
        ],
    },
    "podAntiAffinity": {
        REQUIRED: [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "other"}}}
        ]
    },
}

APPLY = ("apply",)
CREATE = ("create", "--field-manager=kubeadm")
SERVER_SIDE = ("apply", "--server-side", "--field-manager=somebody")


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which a DaemonSet comes to be."""

    how: tuple[str, ...]
    strategy: dict[str, Any] | None = None
    affinity: dict[str, Any] | None = None
    keeps_owners: bool = field(default=True, kw_only=True)


CASES = {
    "a1-apply": Case(APPLY),
    "a2-apply-strategy": Case(APPLY, ROLLING),
    "a3-apply-affinity": Case(APPLY, affinity=NODE_AFFINITY),
    "b1-serverside-strategy": Case(SERVER_SIDE, ROLLING, keeps_owners=False),
    "b2-serverside": Case(SERVER_SIDE),
    "b3-serverside-affinity": Case(SERVER_SIDE, affinity=NODE_AFFINITY, keeps_owners=False),
    "c1-create": Case(CREATE),
    "c2-create-strategy": Case(CREATE, ROLLING),
    "c3-create-tenth": Case(CREATE, TENTH),
    "d1-create-rich-affinity": Case(CREATE, ROLLING, RICH_AFFINITY),
    "d2-create-on-delete": Case(CREATE, {"type": "OnDelete"}, NODE_AFFINITY),
    "d3-apply-empty-affinity": Case(APPLY, affinity={"nodeAffinity": {}}),
}


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield NAMESPACE
    kube.delete("Namespace", NAMESPACE)


def manifest(name: str, case: Case) -> dict[str, Any]:
    """A DaemonSet whose pods fit on no node."""
    labels = {"app": name}
    pod: dict[str, Any] = {
        "nodeSelector": {"e2e": "nowhere"},
        "containers": [{"name": "kube-proxy", "image": "registry.local/base:1"}],
    }
    if case.affinity is not None:
        pod["affinity"] = case.affinity
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if case.strategy is not None:
        spec["updateStrategy"] = case.strategy
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def facts(name: str) -> MigrationFacts:
    spec = ProxyMigrationSpec(target=Target.EBPF, kube_proxy=KubeProxyRef(namespace=NAMESPACE, name=name))
    return MigrationFacts("e2e", "", 1, datetime.now(UTC), spec)


def with_actor(lab: Lab, work: Callable[[Actor], Awaitable[None]]) -> None:
    """Let the operator's own code act on the lab."""

    async def run() -> None:
        async with Api(access.find(str(lab.kubeconfig))) as api:
            await work(Actor(api, Cluster(api, AgentPods(), lambda: None)))

    with Inside(lab.plan.fabric_netns, threads=1) as inside:
        inside.call(asyncio.run, run())


def prepare(lab: Lab, name: str) -> None:
    with_actor(lab, lambda actor: actor.carry_out(PrepareDaemonSet(), facts(name)))


def restore(lab: Lab, name: str) -> None:
    with_actor(lab, lambda actor: actor.carry_out(RestoreDaemonSet(), facts(name)))


def owners(item: dict[str, Any]) -> list[Any]:
    """managedFields without times, and without the controller's status."""
    entries = [e for e in item["metadata"]["managedFields"] if not e.get("subresource")]
    return sorted(
        ({k: v for k, v in entry.items() if k != "time"} for entry in entries), key=lambda e: e["manager"]
    )


def ours(item: dict[str, Any]) -> str:
    """All that a write of ours would show in; the controller writes the status at any moment."""
    entries = [e for e in item["metadata"]["managedFields"] if not e.get("subresource")]
    return text([item["metadata"]["generation"], item["metadata"]["annotations"], item["spec"], entries])


def text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)


@pytest.mark.parametrize("name", CASES)
def test_what_was_there_before_is_there_after(lab: Lab, kube: Kube, namespace: str, name: str) -> None:
    case = CASES[name]
    lab.kubectl(*case.how, "-f", "-", stdin=json.dumps(manifest(name, case)))
    before = kube.get("DaemonSet", name, namespace)

    prepare(lab, name)
    prepared = kube.get("DaemonSet", name, namespace)
    record(name, before, prepared)
    assert drain.is_prepared(prepared)
    assert drain.is_in_force(prepared)
    prepare(lab, name)
    assert ours(kube.get("DaemonSet", name, namespace)) == ours(prepared), "the same again writes nothing"

    restore(lab, name)
    after = kube.get("DaemonSet", name, namespace)
    assert text(after["spec"]) == text(before["spec"])
    assert not drain.remains(after)
    assert drain.ANNOTATION not in after["metadata"]["annotations"]
    assert after["metadata"]["generation"] == prepared["metadata"]["generation"] + 1
    if case.keeps_owners:
        assert text(owners(after)) == text(owners(before))
    restore(lab, name)
    again = kube.get("DaemonSet", name, namespace)
    assert ours(again) == ours(after), "nothing to restore writes nothing"


def test_the_same_manifest_applied_meanwhile_takes_the_change_out_of_force(
    lab: Lab, kube: Kube, namespace: str
) -> None:
    name, case = "reverted", CASES["a2-apply-strategy"]
    content = json.dumps(manifest(name, case))
    lab.kubectl("apply", "-f", "-", stdin=content)
    before = kube.get("DaemonSet", name, namespace)
    prepare(lab, name)

    lab.kubectl("apply", "-f", "-", stdin=content)

    reverted = kube.get("DaemonSet", name, namespace)
    assert drain.is_prepared(reverted)
    assert not drain.is_in_force(reverted)
    restore(lab, name)
    assert text(kube.get("DaemonSet", name, namespace)["spec"]) == text(before["spec"])


def test_what_somebody_changed_meanwhile_is_kept(lab: Lab, kube: Kube, namespace: str) -> None:
    name = "changed"
    lab.kubectl("create", "-f", "-", stdin=json.dumps(manifest(name, CASES["c2-create-strategy"])))
    prepare(lab, name)
    change = {
        "spec": {
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 3}},
            "template": {"spec": {"priorityClassName": "system-node-critical"}},
        }
    }
    kube.patch("DaemonSet", name, change, namespace)

    restore(lab, name)

    spec = kube.get("DaemonSet", name, namespace)["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 3, "maxSurge": 0},
    }
    assert spec["template"]["spec"]["priorityClassName"] == "system-node-critical"
    assert "affinity" not in spec["template"]["spec"]


def record(name: str, before: dict[str, Any], prepared: dict[str, Any]) -> None:
    """Keep what the API server made of a case, for the unit tests."""
    if not os.environ.get("HANDOVER_E2E_RECORD"):
        return
    SAMPLES.mkdir(exist_ok=True)
    path = Path(SAMPLES, f"daemonset-{name}.json")
    path.write_text(json.dumps({"before": before, "prepared": prepared}, indent=1, sort_keys=True) + "\n")
