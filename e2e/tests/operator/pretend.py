"""Agents that only pretend: they report that every ordered rung is reached, and touch no node.

So the operator can be tried against a real API server and a real kube-proxy DaemonSet before, and without,
anything that happens on a node. What they say of kube-proxy is true: they look at its pods.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from handover_api.base import API_VERSION, Rung

from e2e.kube import Kube, KubeError
from e2e.lab.images import BASE

MANAGER = "handover-agent"
NAMESPACE = "handover-system"
_LABELS = {"app.kubernetes.io/name": "handover-agent"}
_EVERY_S = 0.3
_LADDER = list(Rung)


@dataclass(slots=True)
class _Node:
    """What one pretended agent remembers."""

    rung: Rung = Rung.STANDBY
    since: str = ""
    snapshot: str = ""
    baseline: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)


class PretendedAgents:
    """One thread that plays the agents of all nodes; use it as a context manager."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._nodes: dict[str, _Node] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pretended agents", daemon=True)
        self.fails_probes: set[str] = set()  # nodes whose probes through eBPF fail
        self.silent = False  # nobody reports anything
        self.trace: list[tuple[str, Rung]] = []  # every rung that was reached, in order

    def __enter__(self) -> "PretendedAgents":
        self._kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, _pods())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._kube.delete("DaemonSet", "handover-agent", NAMESPACE)

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_S):
            if self.silent:
                continue
            try:
                self._pass()
            except KubeError:
                continue  # the API server is away, or an object went in between: the next pass sees

    def _pass(self) -> None:
        running = {
            pod["spec"].get("nodeName") for pod in self._kube.list("Pod", "kube-system", "k8s-app=kube-proxy")
        }
        ordered = self._kube.list("NodeMigration")
        for item in ordered:
            name = item["metadata"]["name"]
            node = self._nodes.setdefault(name, _Node(since=_now()))
            self._step(name, node, Rung(item["spec"]["rung"]), name in running)
            self._kube.apply_status(self._report(item, node, name in running), MANAGER)
        for gone in self._nodes.keys() - {item["metadata"]["name"] for item in ordered}:
            del self._nodes[gone]

    def _step(self, name: str, node: _Node, wanted: Rung, proxied: bool) -> None:
        difference = wanted.height - node.rung.height
        if difference:
            target = _LADDER[node.rung.height + (1 if difference > 0 else -1)]
            if target is Rung.SOLE and proxied:
                return  # nothing is flushed beside a running kube-proxy
            if target.height > node.rung.height and target is Rung.SHADOW:
                node.snapshot, node.baseline = "pretended", _round("kube-proxy", 0)
            node.rung, node.since = target, _now()
            self.trace.append((name, target))
            node.latest = {}
            if target is Rung.STANDBY:
                node.snapshot, node.baseline = "", {}
            return
        if node.rung.height >= Rung.SERVING.height and not node.latest:
            node.latest = _round("ebpf", 10 if name in self.fails_probes else 0)

    def _report(self, item: Mapping[str, Any], node: _Node, proxied: bool) -> dict[str, Any]:
        probes = {"baseline": node.baseline, "latest": node.latest}
        return {
            "apiVersion": API_VERSION,
            "kind": "NodeMigration",
            "metadata": {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]},
            "status": {
                "observedGeneration": item["metadata"]["generation"],
                "rung": node.rung,
                "rungSince": node.since,
                "heartbeat": _now(),
                "agent": {"version": "pretended", "apiVersion": API_VERSION},
                "kernel": {"release": "pretended", "features": [], "missing": []},
                "kubeProxy": {"mode": "iptables", "backends": ["nft"], "running": proxied, "rules": 1},
                "parity": {"checkedAt": _now(), "inSync": True, "frontends": 1, "backends": 1},
                "probes": {name: result for name, result in probes.items() if result},
                "snapshot": node.snapshot,
                "bypassed": [],
            },
        }


def _round(path: str, failures: int) -> dict[str, Any]:
    result: dict[str, Any] = {"at": _now(), "path": path, "attempts": 50, "failures": failures}
    if failures:
        result["failed"] = [{"service": "default/web", "address": "10.96.0.1:80", "error": "pretended"}]
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _pods() -> dict[str, Any]:
    """Pods that stand where the agents' would."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "handover-agent", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "agent",
                            "image": BASE,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sleep", "infinity"],
                        }
                    ],
                },
            },
        },
    }
