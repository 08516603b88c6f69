"""The objects that put traffic on a cluster, and where its clients are once they run.

The client's program goes into the cluster as a ConfigMap, so that a change of it needs no image.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.kube import Object
from e2e.traffic.collector import Address

NAMESPACE = "traffic"
CLIENTS = ("pod-client", "node-client")
_HERE = Path(__file__).parent
_ANNOTATION = "handover.dev/e2e"


def _manifests(image: str) -> list[Object]:
    text = (_HERE / "manifests.yaml").read_text().replace("@IMAGE@", image)
    return list(yaml.safe_load_all(text))


def _is(item: Mapping[str, Any], what: str) -> bool:
    """Whether an object is one of those that are not there from the start."""
    return bool(item["metadata"].get("annotations", {}).get(_ANNOTATION, "") == what)


def program() -> Object:
    """The client's modules as a ConfigMap."""
    modules = {path.name: path.read_text() for path in sorted((_HERE / "client").glob("*.py"))}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "client", "namespace": NAMESPACE},
        "data": modules,
    }


def objects(image: str, replicas: int = 3) -> tuple[list[Object], list[Object]]:
    """What traffic needs from its start on: first what serves, then the clients."""
    servers = [item for item in _manifests(image) if _is(item, "") and item["kind"] != "DaemonSet"]
    clients = [item for item in _manifests(image) if item["kind"] == "DaemonSet"]
    for item in servers:
        if item["kind"] == "Deployment":
            item["spec"]["replicas"] = replicas
    return servers, [program(), *clients]


def late(image: str) -> list[Object]:
    """The Deployment and the Service that are created while traffic runs."""
    return [item for item in _manifests(image) if _is(item, "late")]


def outside(image: str) -> list[Object]:
    """The Services for a client outside of the cluster."""
    return [item for item in _manifests(image) if _is(item, "outside")]


def clients(pods: Iterable[Mapping[str, Any]]) -> list[Address]:
    """The control ports of the clients' pods; those that have no address yet are left out."""
    found = []
    for pod in pods:
        host = pod.get("status", {}).get("podIP")
        if host and not pod["metadata"].get("deletionTimestamp"):
            on_node = pod["spec"].get("hostNetwork", False)
            name = f"{pod['spec']['nodeName']}/{'node' if on_node else 'pod'}"
            found.append(Address(name, host, 18081 if on_node else 18080))
    return sorted(found, key=lambda address: address.name)
