"""What goes wrong on the way: processes die, a gate fails, the API server is away, people change their
minds.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from handover_api.base import ConditionStatus, Rung
from handover_api.proxymigration import Phase

from e2e.kube import Object
from e2e.lab import Node
from e2e.lab.control import CONTROLLERS
from e2e.migration import AGENT, NAMESPACE, OPERATOR, Migration, ready
from e2e.process import kill
from e2e.trial import until

pytestmark = pytest.mark.e2e

API_AWAY_S = 60.0
UP = (Rung.SHADOW, Rung.SERVING, Rung.SOLE)
DOWN = (Rung.SERVING, Rung.SHADOW, Rung.STANDBY)


def only(node: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": node}


def on_each_step(
    migration: Migration, node: str, hurt: Callable[[], None], at_the_top: Callable[[], None] = lambda: None
) -> None:
    """One node goes up and back; each time that it is asked for another rung, somebody is hurt."""
    migration.ask("eBPF", nodeSelector=only(node))
    for rung in UP:
        migration.wait_for(f"{node} is asked for {rung}", lambda s, r=rung: node in s and s[node].wanted is r)  # type: ignore[misc]
        hurt()
    migration.wait_for_phase(Phase.MIGRATED)
    hurt()
    at_the_top()
    migration.trial.wait_for_requests(5_000)
    migration.ask("KubeProxy", nodeSelector=only(node))
    for rung in DOWN:
        migration.wait_for(f"{node} is asked for {rung}", lambda s, r=rung: node in s and s[node].wanted is r)  # type: ignore[misc]
        hurt()
    migration.wait_for_phase(Phase.REVERSED)


def test_the_operator_is_killed_at_each_rung(migration: Migration) -> None:
    killed: dict[str, int] = {}

    def kill_the_operator() -> None:
        for pod in migration.pods(OPERATOR):
            killed[pod["metadata"]["name"]] = kill(migration.trial.lab, pod)
            # The kubelet would restart it ever later; a pod without a past starts at once.
            migration.kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace_s=0)

    on_each_step(migration, "n1", kill_the_operator)
    # On a busy machine, one that has not started yet is deleted before there is a process to kill.
    assert len(killed) >= 2 * len(UP), killed
    assert sum(killed.values()) >= len(UP), killed


@contextmanager
def cluster_ip_of_the_api_servers_dead(migration: Migration, pod: Object) -> Iterator[None]:
    """What a pod sends to `default/kubernetes` by its ClusterIP goes nowhere, on connections that are there, too."""
    node = migration.trial.lab.node(pod["spec"]["nodeName"])
    service = migration.kube.get("Service", "kubernetes", "default")["spec"]
    assert ":" not in service["clusterIP"]
    (address,) = (ip["ip"] for ip in pod["status"]["podIPs"] if ":" not in ip["ip"])
    rules = f"""table inet e2e_fault {{
      chain prerouting {{
        type filter hook prerouting priority raw;
        ip saddr {address} ip daddr {service["clusterIP"]} counter drop
      }}
    }}"""
    node.exec(["nft", "-f", "-"], stdin=rules)
    try:
        yield
        dropped = node.exec(["nft", "list", "table", "inet", "e2e_fault"]).stdout
        assert "packets 0 " not in dropped, f"nothing was dropped: {dropped}"
    finally:
        node.exec(["nft", "delete", "table", "inet", "e2e_fault"])


def test_the_operator_does_not_need_the_cluster_ip_that_nodes_translate(migration: Migration) -> None:
    """Nobody would take a node back whose datapath the operator's own connections depend on."""
    (operator,) = migration.pods(OPERATOR)
    another = next(f"n{n}" for n in (1, 2, 3) if f"n{n}" != operator["spec"]["nodeName"])
    with cluster_ip_of_the_api_servers_dead(migration, operator):
        migration.ask("eBPF", nodeSelector=only(another))
        migration.wait_for(
            f"{another} is asked for Serving", lambda s: another in s and s[another].wanted is Rung.SERVING
        )
        assert kill(migration.trial.lab, operator) > 0
        migration.wait_for_phase(Phase.MIGRATED)
        migration.ask("KubeProxy", nodeSelector=only(another))
        migration.wait_for_phase(Phase.REVERSED)


def test_the_agents_pod_is_deleted_at_each_rung(migration: Migration) -> None:
    deleted: list[str] = []

    def delete_the_agent() -> None:
        for pod in migration.pods(AGENT, "n2"):
            deleted.append(pod["metadata"]["name"])
            migration.kube.delete("Pod", pod["metadata"]["name"], NAMESPACE)

    def nobody_brings_it_back() -> None:
        """While the node is alone with the datapath, the agent is away for some seconds."""
        node = migration.trial.lab.node("n2")
        until(
            "the agent that was deleted last has a successor", lambda: ready(migration.pods(AGENT, "n2")), 60
        )
        node.stop_kubelet()
        try:
            assert sum(kill(migration.trial.lab, pod) for pod in migration.pods(AGENT, "n2")) > 0
            migration.trial.wait_for_requests(15_000)
        finally:
            node.start_kubelet()

    on_each_step(migration, "n2", delete_the_agent, nobody_brings_it_back)
    assert len(set(deleted)) >= len(UP) + len(DOWN), deleted


@contextmanager
def new_connections_of_root_to_pods_elsewhere_dropped(node: Node) -> Iterator[None]:
    """Make the agent's own connections fail once its datapath sends them to pods, and only those.

    A packet to a ClusterIP still has that as its destination at this hook, so kube-proxy's way is not
    touched. The traffic's clients are not root, and the kubelet talks to its own node's pods.
    """
    others = [n for n in (1, 2, 3) if f"n{n}" != node.name]
    pods4 = ", ".join(f"10.244.{n}.0/24" for n in others)
    pods6 = ", ".join(f"fd00:244:0:{n}::/64" for n in others)
    rules = f"""table inet e2e_fault {{
      chain output {{
        type filter hook output priority raw;
        meta skuid 0 ip daddr {{ {pods4} }} tcp flags & (syn | ack) == syn drop
        meta skuid 0 ip6 daddr {{ {pods6} }} tcp flags & (syn | ack) == syn drop
      }}
    }}"""
    node.exec(["nft", "-f", "-"], stdin=rules)
    try:
        yield
    finally:
        node.exec(["nft", "delete", "table", "inet", "e2e_fault"])


def test_a_failing_gate_on_the_second_node_rolls_it_back_and_stops_the_line(migration: Migration) -> None:
    second = migration.trial.lab.node("n2")
    with new_connections_of_root_to_pods_elsewhere_dropped(second):
        migration.ask("eBPF", rollback="Node")
        status = migration.wait_for_phase(Phase.STALLED, within_s=150)
        found = migration.wait_for(
            "the second node is back", lambda s: s["n2"].rung is Rung.STANDBY is s["n2"].wanted
        )
    assert found["n1"].rung is Rung.SOLE
    assert found["n3"].rung is found["n3"].wanted is Rung.STANDBY
    assert status.failed_nodes == ["n2"]
    stalled = next(c for c in migration.status().conditions if c.type == "Stalled")
    assert stalled.status is ConditionStatus.TRUE
    assert stalled.reason == "ProbesFailed"
    assert "n2" in stalled.message
    # Any of the Services that have pods elsewhere may be the first to fail.
    assert re.search(r": (traffic|kube-system)/\S+ at (TCP|UDP)/", stalled.message), stalled.message
    proxies = migration.kube.list("Pod", "kube-system", "k8s-app=kube-proxy")
    assert {pod["spec"]["nodeName"] for pod in proxies} == {"n2", "n3"}


def test_the_api_server_is_away_for_a_minute_in_the_middle(migration: Migration) -> None:
    lab = migration.trial.lab
    migration.ask("eBPF", nodeSelector=only("n1"))
    migration.wait_for("n1 is on its way to Sole", lambda s: "n1" in s and s["n1"].wanted is Rung.SOLE)
    # The controller manager would end by itself, its lease gone. Started anew, it gives the nodes their time.
    lab.control.stop(CONTROLLERS)
    lab.stop_apiserver()
    try:
        back_at = time.monotonic() + API_AWAY_S
        while time.monotonic() < back_at:
            migration.trial.wait_for_requests(1_000)
    finally:
        lab.start_apiserver()
        lab.control.start(CONTROLLERS)
    migration.wait_for_phase(Phase.MIGRATED, within_s=120)


def wanted(migration: Migration) -> dict[str, Rung]:
    return {standing.node: standing.wanted for standing in migration.standings()}


def test_paused_resumed_and_deleted_half_way(migration: Migration) -> None:
    migration.ask("eBPF")
    migration.wait_for("n1 is on its way", lambda s: "n1" in s and s["n1"].wanted is Rung.SERVING)
    migration.change(paused=True)
    migration.wait_for_phase(Phase.PAUSED)
    at_pause = wanted(migration)
    migration.trial.wait_for_requests(15_000)  # a few seconds, in which it would have gone on
    assert wanted(migration) == at_pause
    assert at_pause["n1"] is not Rung.STANDBY
    assert at_pause["n2"] is at_pause["n3"] is Rung.STANDBY

    migration.change(paused=False)
    migration.wait_for("the second node is on its way", lambda s: s["n2"].wanted is Rung.SERVING)
    assert migration.standings()[0].rung is Rung.SOLE

    migration.go_home()
    daemonset = migration.kube.get("DaemonSet", "kube-proxy", "kube-system")
    assert "handover.dev" not in json.dumps(daemonset["spec"])
    assert not any(
        "handover.dev" in label for n in migration.kube.list("Node") for label in n["metadata"]["labels"]
    )
