"""Objects as the API has them, with what the tests care about and nothing else."""

from typing import Any

from handover_api.base import API_VERSION
from handover_operator import places
from handover_operator.api import Object

from e2e.fakeapi import FakeApi

AGENTS = "handover-system"
SYSTEM = "kube-system"
PROXY_LABELS = {"k8s-app": "kube-proxy"}
AGENT_LABELS = {"app.kubernetes.io/name": "handover-agent"}
LATE = "2027-01-01T00:00:00Z"


def ready(yes: bool = True) -> dict[str, Any]:
    since = "2026-01-01T00:00:05Z"
    status = "True" if yes else "False"
    return {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}


def node(name: str, labels: dict[str, str] | None = None, *, is_ready: bool = True) -> Object:
    return {
        "metadata": {"name": name, "uid": f"node-{name}", "labels": labels or {}, "resourceVersion": "1"},
        "status": ready(is_ready),
    }


def pod(
    name: str, on: str, *, namespace: str = SYSTEM, labels: dict[str, str] | None = None, **status: Any
) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or PROXY_LABELS,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": on},
        "status": {**ready(), "phase": "Running", **status},
    }


def migration(name: str = "cluster", **spec: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": f"pm-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"target": "eBPF", **spec},
    }


def order(name: str, **more: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "metadata": {"name": name, "uid": f"nm-{name}", "generation": 1, "resourceVersion": "7"},
        "spec": {"nodeName": name},
        **more,
    }


def daemon_set(name: str = "kube-proxy") -> Object:
    return {
        "metadata": {"name": name, "namespace": SYSTEM, "annotations": {"made": "by hand"}},
        "spec": {
            "selector": {"matchLabels": PROXY_LABELS},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": PROXY_LABELS},
                "spec": {"containers": [{"name": "kube-proxy"}]},
            },
        },
    }


def cluster_of(*names: str, api: FakeApi | None = None) -> FakeApi:
    """An API with these nodes, each with kube-proxy and an agent."""
    made = api or FakeApi()
    made.put(places.DAEMON_SET.at("kube-proxy", SYSTEM), daemon_set())
    for name in names:
        made.put(places.NODE.at(name), node(name))
        made.put(places.POD.at(f"kube-proxy-{name}", SYSTEM), pod(f"kube-proxy-{name}", name))
        agent = pod(f"agent-{name}", name, namespace=AGENTS, labels=AGENT_LABELS)
        made.put(places.POD.at(f"agent-{name}", AGENTS), agent)
    return made
