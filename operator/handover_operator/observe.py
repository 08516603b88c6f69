"""From objects as the API has them to the facts that the planner knows. Pure: no I/O, no clock.

Each object is read once, when it comes in; a pass then only puts together what belongs to a node.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from handover_api.base import Model
from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus
from handover_api.proxymigration import ProxyMigrationSpec, ProxyMigrationStatus
from pydantic import ValidationError

from handover_operator import drain
from handover_operator.affinity import DRAINED, LABEL
from handover_operator.facts import DaemonSetFacts, MigrationFacts, NodeFacts, NodeMigrationFacts, PodFacts
from handover_operator.owners import owners_of

log = logging.getLogger(__name__)

FINALIZER = "handover.dev/cleanup"

_ZONE = "topology.kubernetes.io/zone"
_ENDED = ("Succeeded", "Failed")

Object = Mapping[str, Any]
M = TypeVar("M", bound=Model)


class UnreadableError(Exception):
    """An object is not as its CustomResourceDefinition says: another version's, or edited past admission."""


@dataclass(frozen=True, slots=True)
class SeenMigration:
    """A ProxyMigration, and what is needed to write to it; without facts when its spec cannot be read."""

    name: str
    uid: str
    version: str
    facts: MigrationFacts | None
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class SeenNodeMigration:
    """A NodeMigration, and what is needed to write to it."""

    name: str
    version: str
    facts: NodeMigrationFacts


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod that runs on a node."""

    node: str
    created: str
    facts: PodFacts


def read_migration(item: Object) -> SeenMigration:
    """A ProxyMigration. Never raises: an unreadable one must not hide the others."""
    metadata = item["metadata"]
    name, uid, version = metadata["name"], metadata["uid"], metadata["resourceVersion"]
    try:
        facts = MigrationFacts(
            name=name,
            uid=uid,
            generation=metadata.get("generation", 0),
            created=_time(metadata["creationTimestamp"]),
            spec=_parsed(ProxyMigrationSpec, item.get("spec", {}), f"ProxyMigration {name}"),
            status=_status_or_nothing(ProxyMigrationStatus, item, f"ProxyMigration {name}"),
            deleting="deletionTimestamp" in metadata,
            finalizer=FINALIZER in metadata.get("finalizers", []),
        )
    except UnreadableError as error:
        log.error("%s", error)
        return SeenMigration(name, uid, version, None, str(error))
    return SeenMigration(name, uid, version, facts)


def read_node_migration(item: Object) -> SeenNodeMigration:
    """A NodeMigration. What cannot be read counts as never reported: nobody takes a step on it."""
    metadata = item["metadata"]
    name = metadata["name"]
    try:
        spec = _parsed(NodeMigrationSpec, item.get("spec", {}), f"NodeMigration {name}")
    except UnreadableError as error:
        log.error("%s", error)
        spec = NodeMigrationSpec(node_name=name)
    return SeenNodeMigration(
        name=name,
        version=metadata["resourceVersion"],
        facts=NodeMigrationFacts(
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            spec=spec,
            status=_status_or_nothing(NodeMigrationStatus, item, f"NodeMigration {name}"),
            deleting="deletionTimestamp" in metadata,
        ),
    )


def read_node(item: Object) -> NodeFacts:
    """A Node, without the pods on it."""
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    return NodeFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        zone=labels.get(_ZONE, ""),
        ready=_condition(item, "Ready").get("status") == "True" and "deletionTimestamp" not in metadata,
        labels=labels,
        drained=labels.get(LABEL) == DRAINED,
    )


def read_pod(item: Object) -> SeenPod | None:
    """A pod; None when it is on no node yet, or when its containers have ended for good."""
    node = item.get("spec", {}).get("nodeName", "")
    if not node or item.get("status", {}).get("phase") in _ENDED:
        return None
    metadata = item["metadata"]
    return SeenPod(
        node=node,
        created=metadata.get("creationTimestamp", ""),
        facts=PodFacts(
            name=metadata["name"],
            ready=_condition(item, "Ready").get("status") == "True",
            terminating="deletionTimestamp" in metadata,
        ),
    )


def migrations(seen: Iterable[SeenMigration]) -> list[MigrationFacts]:
    """The readable ones, the acting one first; the others know the name of the one that acts."""
    facts = sorted((s.facts for s in seen if s.facts), key=lambda f: (f.created, f.name))
    return [fact if i == 0 else replace(fact, older=facts[0].name) for i, fact in enumerate(facts)]


def nodes(
    seen: Iterable[NodeFacts],
    node_migrations: Iterable[SeenNodeMigration],
    kube_proxy: Iterable[SeenPod | None],
    agents: Iterable[SeenPod | None],
) -> list[NodeFacts]:
    """Every node with its pods and its NodeMigration, and the NodeMigrations whose node is gone."""
    proxies = _by_node(kube_proxy)
    newest = {
        node: max(alive, key=lambda pod: (pod.created, pod.facts.name)).facts
        for node, pods in _by_node(agents).items()
        if (alive := [pod for pod in pods if not pod.facts.terminating])
    }
    orders = {migration.name: migration.facts for migration in node_migrations}
    there = [
        replace(
            node,
            kube_proxy=tuple(sorted((p.facts for p in proxies.get(node.name, ())), key=lambda f: f.name)),
            agent=newest.get(node.name),
            migration=orders.pop(node.name, None),
        )
        for node in seen
    ]
    return there + [
        NodeFacts(name, migration=facts, ready=False, exists=False) for name, facts in orders.items()
    ]


def daemon_set(item: Object | None) -> DaemonSetFacts:
    """kube-proxy's DaemonSet, or that there is none."""
    if item is None:
        return DaemonSetFacts(exists=False)
    return DaemonSetFacts(
        prepared=drain.is_prepared(item),
        in_force=drain.is_in_force(item),
        unrecorded=drain.is_unrecorded(item),
        owners=owners_of(item),
        selector=item["spec"]["selector"].get("matchLabels") or {},
    )


def selector_text(selector: Mapping[str, Any]) -> str:
    """A label selector as the API's query takes it."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression["key"], expression["operator"]
        values = ",".join(expression.get("values") or [])
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[operator]
        )
    return ",".join(parts)


def _by_node(pods: Iterable[SeenPod | None]) -> dict[str, list[SeenPod]]:
    found: dict[str, list[SeenPod]] = {}
    for pod in pods:
        if pod is not None:
            found.setdefault(pod.node, []).append(pod)
    return found


def _parsed(model: type[M], content: Any, what: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(
            f"{what} cannot be read: {where}: {first['msg']}. Do the CustomResourceDefinitions and this "
            "operator have the same version?"
        ) from error


def _status_or_nothing(model: type[M], item: Object, what: str) -> M:
    try:
        return _parsed(model, item.get("status") or {}, f"the status of {what}")
    except UnreadableError as error:
        log.error("%s", error)
        return model()


def _condition(item: Object, kind: str) -> Mapping[str, Any]:
    conditions: Sequence[Mapping[str, Any]] = item.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
