"""The traffic sees a loss: none while nothing happens, and the outage of a naive migration."""

import pytest

from e2e.kube import Object
from e2e.lab import Node
from e2e.traffic.report import Phase
from e2e.trial import Trial, until

pytestmark = pytest.mark.e2e

ENOUGH = 20_000  # requests: some seconds of all clients
STREAMS = ("tcp4 new", "tcp6 new", "udp4 fresh unconnected", "udp6 fresh connected", "dns4 fresh connected")


def current(trial: Trial, name: str) -> Phase:
    return trial.traffic.report().phase(name)


def lost_somewhere_on(trial: Trial, nodes: list[Node], since: dict[str, int]) -> bool:
    """Whether both clients of every node have lost more than before."""
    lost = {client.name: client.lost for client in trial.traffic.report().clients}
    return all(
        lost[name] > since[name] + 20 for node in nodes for name in (f"{node.name}/pod", f"{node.name}/node")
    )


def remove_kube_proxy(trial: Trial) -> Object:
    """What a hurried person does: delete the DaemonSet, clean up on every node. Returns what was deleted."""
    daemonset = trial.kube.get("DaemonSet", "kube-proxy", "kube-system")
    trial.kube.delete("DaemonSet", "kube-proxy", "kube-system")
    until(
        "kube-proxy's pods are gone",
        lambda: not trial.kube.list("Pod", "kube-system", "k8s-app=kube-proxy"),
        60,
    )
    for node in trial.lab.nodes:
        path = f"PATH={node.directory / 'iptables'}:/usr/sbin:/usr/bin:/sbin:/bin"
        node.exec(["env", path, str(trial.lab.binaries / "kube-proxy"), "--cleanup"])
    return daemonset


def put_back(trial: Trial, daemonset: Object) -> None:
    """Create the DaemonSet again as it was created first, and wait until traffic is well again."""
    metadata = {name: daemonset["metadata"][name] for name in ("name", "namespace", "labels")}
    again = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": daemonset["spec"]}
    trial.kube.create(again, manager="kubeadm")
    trial.lab.rollout("daemonset/kube-proxy", "kube-system")
    trial.wait_until_calm()


def test_the_naive_migration_is_reported_as_an_outage_and_nothing_is_lost_before_it(trial: Trial) -> None:
    trial.traffic.phase("before the naive migration")
    trial.wait_for_requests(ENOUGH)
    trial.traffic.phase("naive migration")
    before = trial.traffic.settled("before the naive migration").phase("before the naive migration")
    assert before.lost() == {}
    assert all(before.streams[stream].answered for stream in STREAMS)

    since = {client.name: client.lost for client in trial.traffic.report().clients}
    daemonset = remove_kube_proxy(trial)
    try:
        until(
            "both clients of every node report the outage",
            lambda: lost_somewhere_on(trial, trial.lab.nodes, since),
            60,
            lambda: current(trial, "naive migration").lost(),
        )
    finally:
        trial.traffic.phase("after the naive migration")
        put_back(trial, daemonset)
    outage = trial.traffic.settled("naive migration").phase("naive migration")
    assert set(STREAMS) <= outage.lost().keys(), outage.lost()
    kinds = {kind for stream in ("tcp4 new", "tcp6 new") for kind in outage.streams[stream].lost}
    assert kinds <= {"connect-timeout", "connect-refused", "connect-unreachable", "request-timeout"}, kinds
