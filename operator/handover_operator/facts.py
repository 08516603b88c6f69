"""What the planner sees: one snapshot of the cluster, taken anew for every plan.

Whoever observes the cluster fills these in; whoever plans reads nothing else. So a restarted operator knows as much
as one that never stopped, and everything that can happen can be written down in a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus
from handover_api.proxymigration import ProxyMigrationSpec, ProxyMigrationStatus


@dataclass(frozen=True, slots=True)
class MigrationFacts:
    """The ProxyMigration as it stands in the API, with its status as it was written last."""

    name: str
    uid: str
    generation: int
    created: datetime
    spec: ProxyMigrationSpec
    status: ProxyMigrationStatus = field(default_factory=ProxyMigrationStatus)
    deleting: bool = False
    finalizer: bool = False  # ours, `handover.dev/cleanup`
    older: str | None = None  # the older ProxyMigration that acts instead of this one


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod of the agent's or of kube-proxy's on one node."""

    name: str
    ready: bool
    terminating: bool = False

    @property
    def serves(self) -> bool:
        """Ready, and not about to leave."""
        return self.ready and not self.terminating


@dataclass(frozen=True, slots=True)
class NodeMigrationFacts:
    """The NodeMigration of one node."""

    uid: str
    generation: int
    spec: NodeMigrationSpec
    status: NodeMigrationStatus = field(default_factory=NodeMigrationStatus)
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node, the pods on it that matter, and its NodeMigration; or a NodeMigration whose node is gone."""

    name: str
    uid: str = ""
    zone: str = ""  # topology.kubernetes.io/zone; "" is a zone of its own
    ready: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    drained: bool = False  # the label that sends kube-proxy away is on the node
    kube_proxy: tuple[PodFacts, ...] = ()  # every one, terminating ones too
    agent: PodFacts | None = None  # the newest that is not terminating
    migration: NodeMigrationFacts | None = None
    exists: bool = True  # False: only the NodeMigration is left

    @property
    def kube_proxy_serves(self) -> bool:
        """A kube-proxy pod is Ready here and none is about to leave."""
        return bool(self.kube_proxy) and all(pod.serves for pod in self.kube_proxy)


class OwnerKind(StrEnum):
    """Who else writes kube-proxy's DaemonSet."""

    ARGO_CD = "ArgoCD"
    FLUX = "Flux"
    ADDON = "Addon"  # a managed add-on of the cluster's provider, or the addon-manager
    CONTROLLER = "Controller"  # an ownerReference with controller: true


@dataclass(frozen=True, slots=True)
class OwnerFacts:
    """Somebody who keeps kube-proxy's DaemonSet as they want it, and would take our changes back."""

    kind: OwnerKind
    name: str  # as a person would look for it: `Application argocd/kube-system`
    evidence: str  # the label, annotation, manager or reference that says so
    yields: bool = (
        False  # the DaemonSet's annotation says that this owner has been told to leave our fields alone
    )


@dataclass(frozen=True, slots=True)
class DaemonSetFacts:
    """kube-proxy's DaemonSet."""

    exists: bool = True
    prepared: bool = False  # the annotation with the original is there
    in_force: bool = False  # the anti-affinity and updateStrategy OnDelete are both there
    owners: tuple[OwnerFacts, ...] = ()
    selector: Mapping[str, str] = field(default_factory=dict)  # matchLabels of its pods
    unrecorded: bool = False  # in force by our doing, and the annotation is gone
