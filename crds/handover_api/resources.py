"""The two CustomResourceDefinitions: names, printer columns, and the rules that no type can express.

`kubectl get pm` and `kubectl get nm` are the user interface, so columns and refusals are written here as
carefully as a command line would be: a refusal names the field, what is wrong with it, and what would be
right.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from handover_api import schema
from handover_api.base import GROUP, VERSION
from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus
from handover_api.proxymigration import ProxyMigrationSpec, ProxyMigrationStatus

PERCENT = "^([1-9][0-9]?|100)%$"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; priority 1 is shown with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def rendered(self) -> dict[str, Any]:
        """As the CustomResourceDefinition writes it."""
        column: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.json_path}
        if self.description:
            column["description"] = self.description
        if self.priority:
            column["priority"] = self.priority
        return column


@dataclass(frozen=True, slots=True)
class Resource:
    """A cluster-scoped resource of ours."""

    kind: str
    singular: str
    plural: str
    short: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """The CustomResourceDefinition's name, which Kubernetes prescribes."""
        return f"{self.plural}.{GROUP}"


AGE = Column("Age", ".metadata.creationTimestamp", "date")

PROXY_MIGRATION = Resource(
    kind="ProxyMigration",
    singular="proxymigration",
    plural="proxymigrations",
    short="pm",
    description="One wish: which proxy should serve this cluster, and how carefully to get there.",
    spec=ProxyMigrationSpec,
    status=ProxyMigrationStatus,
    columns=(
        Column("Phase", ".status.phase"),
        Column("Target", ".spec.target"),
        Column("Migrated", ".status.migrated", description="Nodes on Sole with a passed soak."),
        Column("Node", ".status.currentNode", description="Nodes that are on their way now."),
        AGE,
        Column("Message", ".status.message", priority=1),
    ),
)

NODE_MIGRATION = Resource(
    kind="NodeMigration",
    singular="nodemigration",
    plural="nodemigrations",
    short="nm",
    description="The rung that one node should be on, and what its agent observes there. Handover writes it.",
    spec=NodeMigrationSpec,
    status=NodeMigrationStatus,
    columns=(
        Column("Rung", ".status.rung", description="The rung that was reached and verified."),
        Column("Wanted", ".spec.rung"),
        Column(
            "Kube-Proxy",
            ".status.kubeProxy.mode",
            description="How its rules are made.",
        ),
        Column("Flows", ".status.oldFlows", "integer", description="Connections on kube-proxy's entries."),
        Column("Heartbeat", ".status.heartbeat", "date"),
        AGE,
        Column("Step", ".status.step", priority=1),
        Column("Message", ".status.fault.message", priority=1),
    ),
)

RESOURCES = (PROXY_MIGRATION, NODE_MIGRATION)


def _rule(expression: str, message: str, field_path: str = "") -> dict[str, Any]:
    rule = {"rule": expression, "message": message, "reason": "FieldValueInvalid"}
    return {**rule, "fieldPath": field_path} if field_path else rule


def _longer_than_zero() -> dict[str, Any]:
    # A text that is no duration at all is the other rule's to refuse; this one must not fail to evaluate.
    return _rule(f"!{schema.IS_DURATION} || duration(self) > duration('0s')", "must be longer than 0s")


# At dotted paths below the object's root.
_RULES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "ProxyMigration": {
        "spec.kubeProxy": [
            _rule(
                "self == oldSelf",
                "cannot be changed, because the DaemonSet that was drained must be the one that is restored: "
                "delete this ProxyMigration and create another",
            )
        ],
        "spec.kubeProxy.namespace": [
            _rule(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "is no namespace's name: lower case letters, digits and '-', as in kube-system",
            )
        ],
        "spec.kubeProxy.name": [
            _rule(
                "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
                "is no DaemonSet's name: lower case letters, digits, '-' and '.', as in kube-proxy",
            )
        ],
        "spec.rollout.maxUnavailable": [
            _rule(
                f"type(self) == int ? self >= 1 : self.matches('{PERCENT}')",
                "must be a number of nodes of at least 1, or a share of them from '1%' to '100%' as text",
            )
        ],
        "spec.gates.probes.timeout": [_longer_than_zero()],
        **{
            f"spec.deadline.{rung}": [_longer_than_zero()]
            for rung in ("standby", "shadow", "serving", "sole")
        },
    },
    "NodeMigration": {
        "": [
            _rule(
                "self.spec.nodeName == self.metadata.name",
                "must be the name of this NodeMigration: there is one per node, named after it",
                ".spec.nodeName",
            )
        ],
        "spec.nodeName": [_rule("self == oldSelf", "cannot be changed: create another NodeMigration")],
    },
}

_LIST_TYPES: dict[str, dict[str, dict[str, Any]]] = {
    "ProxyMigration": {
        "spec.acknowledge": {"x-kubernetes-list-type": "set"},
        "status.conditions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    },
    "NodeMigration": {},
}


def definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of a resource, as plain data, ready to be written or applied."""
    root: dict[str, Any] = {
        "type": "object",
        "description": resource.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema.of(resource.spec),
            "status": schema.of(resource.status, defaults=False),
        },
    }
    root = schema.add_rules(root, _RULES[resource.kind])
    root = schema.set_list_types(root, _LIST_TYPES[resource.kind])
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name, "labels": {"app.kubernetes.io/part-of": "handover"}},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "singular": resource.singular,
                "plural": resource.plural,
                "shortNames": [resource.short],
                "categories": ["handover"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.rendered() for column in resource.columns],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }
