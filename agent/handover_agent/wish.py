"""What the cluster asks of this node: watches of the own NodeMigration, the own Node and kube-proxy's pods
here.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from handover_api.nodemigration import KubeProxySelector, NodeMigrationSpec
from pydantic import ValidationError

from handover_agent.apiserver import NODE_MIGRATIONS, NODES, PODS
from handover_agent.node import NodeObject, decode_node
from handover_agent.watch import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_SELECTOR = {"k8s-app": "kube-proxy"}


@dataclass(frozen=True, slots=True)
class Wish:
    """The NodeMigration of this node."""

    uid: str
    generation: int
    spec: NodeMigrationSpec


def not_ours(spec: NodeMigrationSpec, node_uid: str) -> str:
    """Why this order is not for the machine that we run on; empty when it is, or says nothing of it. Pure.

    A machine that returns under the name of an earlier one has none of its programs, rules and connections.
    """
    if not spec.node_uid or not node_uid or spec.node_uid == node_uid:
        return ""
    return (
        f"the NodeMigration is about a Node with UID {spec.node_uid}, and Node {spec.node_name} has UID {node_uid}: it "
        "was deleted and made anew. Nothing is done until the operator has taken notice; if this stays, see whether "
        "the operator runs"
    )


@dataclass(frozen=True, slots=True)
class ProxyPod:
    """A pod of kube-proxy's on this node."""

    name: str
    over: bool  # it has ended and will not run again


class Single(Generic[T]):
    """The sink of a watch for one object: tells of it whenever it changes, None when it is gone."""

    def __init__(self, told: Callable[[T | None], None]) -> None:
        self._told = told

    def replace(self, objects: Iterable[T]) -> None:
        self._told(next(iter(objects), None))

    def put(self, thing: T, /) -> None:
        self._told(thing)

    def remove(self, thing: T, /) -> None:
        self._told(None)


class Pods:
    """The sink of the watch of kube-proxy's pods."""

    def __init__(self, told: Callable[[list[str]], None]) -> None:
        self._told = told
        self._pods: dict[str, ProxyPod] = {}

    def replace(self, objects: Iterable[ProxyPod]) -> None:
        self._pods = {pod.name: pod for pod in objects}
        self._tell()

    def put(self, pod: ProxyPod, /) -> None:
        self._pods[pod.name] = pod
        self._tell()

    def remove(self, pod: ProxyPod, /) -> None:
        self._pods.pop(pod.name, None)
        self._tell()

    def _tell(self) -> None:
        self._told(sorted(pod.name for pod in self._pods.values() if not pod.over))


def wish_kind(node: str) -> Kind[Wish]:
    """Watch this node's NodeMigration."""
    return Kind(NODE_MIGRATIONS, decode_wish, {"fieldSelector": f"metadata.name={node}"})


def node_kind(node: str) -> Kind[NodeObject]:
    """Watch this node's Node."""
    return Kind(NODES, decode_node, {"fieldSelector": f"metadata.name={node}"})


def pod_kind(selector: KubeProxySelector, node: str) -> Kind[ProxyPod]:
    """Watch kube-proxy's pods on this node."""
    return Kind(PODS, _decode_pod, pod_query(selector, node), selector.namespace)


def pod_query(selector: KubeProxySelector, node: str) -> Mapping[str, str]:
    """The query for kube-proxy's pods on a node."""
    labels = selector.selector or DEFAULT_SELECTOR
    return {
        "labelSelector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "fieldSelector": f"spec.nodeName={node}",
    }


def decode_wish(raw: bytes | msgspec.Raw) -> Wish:
    """Raises msgspec.MsgspecError, also for a spec that the model refuses."""
    document: dict[str, Any] = json.loads(bytes(raw))
    try:
        spec = NodeMigrationSpec.model_validate(document["spec"])
        meta = document["metadata"]
        return Wish(str(meta["uid"]), int(meta.get("generation", 0)), spec)
    except (ValidationError, KeyError, ValueError) as error:
        raise msgspec.ValidationError(f"not a NodeMigration that this agent understands: {error}") from error


def _decode_pod(raw: bytes | msgspec.Raw) -> ProxyPod:
    pod = _POD.decode(raw)
    return ProxyPod(
        f"{pod.metadata.namespace}/{pod.metadata.name}", pod.status.phase in ("Succeeded", "Failed")
    )


class _PodMeta(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _PodStatus(msgspec.Struct):
    phase: str = ""


class _WirePod(msgspec.Struct):
    metadata: _PodMeta
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


_POD = msgspec.json.Decoder(_WirePod)
