"""What a plan may ask for. Each action is idempotent and safe to carry out twice or to lose.

They are carried out in the plan's order, and the rest is dropped after the first that fails: the next plan is made
from what the cluster says then.
"""

from dataclasses import dataclass
from datetime import datetime

from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationSpec

from handover_operator.reasons import Reason


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put `handover.dev/cleanup` on the ProxyMigration."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take it off again: nothing of ours is left in the cluster."""


@dataclass(frozen=True, slots=True)
class PrepareDaemonSet:
    """Apply anti-affinity, OnDelete and the record of the original to kube-proxy's DaemonSet, in one write.

    When the record is there already it is kept: only the fields are applied again.
    """


@dataclass(frozen=True, slots=True)
class RestoreDaemonSet:
    """Put the recorded fields back and remove the record, in one write. Leaves alone what somebody else has changed."""


@dataclass(frozen=True, slots=True)
class EnsureNodeMigration:
    """Create a node's NodeMigration, or bring its settings up to date on the rung that it has."""

    node: str
    spec: NodeMigrationSpec
    uid: str = ""  # "": it does not exist yet


@dataclass(frozen=True, slots=True)
class DeleteNodeMigration:
    node: str
    uid: str


@dataclass(frozen=True, slots=True)
class SetRung:
    """Order a node to a rung, or renew the deadline of the one it is ordered to; the spec is complete."""

    node: str
    spec: NodeMigrationSpec
    uid: str
    generation: int  # of the NodeMigration that was planned on: a newer one means that the plan is outdated

    @property
    def rung(self) -> Rung:
        return self.spec.rung

    @property
    def deadline(self) -> datetime | None:
        return self.spec.deadline


@dataclass(frozen=True, slots=True)
class DrainKubeProxy:
    """Label the node, so that kube-proxy's pod leaves it."""

    node: str


@dataclass(frozen=True, slots=True)
class UndrainKubeProxy:
    """Take the label off, so that kube-proxy's pod returns."""

    node: str


Action = (
    AddFinalizer
    | RemoveFinalizer
    | PrepareDaemonSet
    | RestoreDaemonSet
    | EnsureNodeMigration
    | DeleteNodeMigration
    | SetRung
    | DrainKubeProxy
    | UndrainKubeProxy
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling about, once the plan's actions are done; about one node, or about the whole."""

    reason: Reason
    message: str
    node: str | None = None
    warning: bool = False
