"""`ProxyMigration`: one wish, which proxy should serve this cluster, and how carefully to get there."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from handover_api.base import Condition, Feature, Gates, KubeProxyRef, Model, Rung, Target
from handover_api.duration import Duration


class Rollback(StrEnum):
    """What a failed gate does: take back that node, take back all nodes, or stop and wait for a person."""

    NODE = "Node"
    ALL = "All"
    PAUSE = "Pause"


class Phase(StrEnum):
    """Where the whole migration stands, in one word."""

    PENDING = "Pending"  # nothing has been changed yet
    PREFLIGHT = "Preflight"  # agents report, checks run; nothing has been changed yet
    MIGRATING = "Migrating"  # nodes climb
    HOLDING = "Holding"  # nodes stay at Serving beside kube-proxy: something is not served on every node
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"  # a gate failed, nodes descend by themselves
    REVERSING = "Reversing"  # target: KubeProxy, or deletion: nodes descend because they were asked to
    STALLED = "Stalled"  # a person is needed; the message says for what
    MIGRATED = "Migrated"  # all nodes are on Sole
    REVERSED = "Reversed"  # all nodes are on Standby and the DaemonSet is as it was


class Rollout(Model):
    """In which order and how many nodes at a time."""

    canary: int = Field(
        default=1, ge=0, le=1000, description="Nodes that go first, one at a time, before batches begin."
    )
    max_unavailable: Annotated[
        int | str,
        Field(
            description="Nodes between Shadow and a passed soak at any moment: a number of at least 1, "
            "or 1% to 100% of the nodes."
        ),
    ] = 1
    soak: Duration = Field(
        default="30s",
        description="How long a node must be healthy on Sole before it counts and the next one starts.",
    )


class Deadline(Model):
    """How long a node may take to reach each rung, up or down; then the gate has failed."""

    standby: Duration = Field(default="3m", description="To remove everything of ours, on the way down.")
    shadow: Duration = Field(
        default="3m", description="To load, fill and compare; on the way down, to end translated flows."
    )
    serving: Duration = Field(
        default="3m", description="To attach and pass the probes; on the way down, to put rules back."
    )
    sole: Duration = Field(default="3m", description="For kube-proxy to leave and its rules to be removed.")


class ProxyMigrationSpec(Model):
    target: Target = Field(
        description="Which proxy should serve the cluster: eBPF, or KubeProxy for the whole way back."
    )
    paused: bool = Field(
        default=False, description="No node starts a step; what is under way in the datapath goes on serving."
    )
    kube_proxy: KubeProxyRef = Field(default_factory=KubeProxyRef)
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the nodes to migrate; empty means every node."
    )
    rollout: Rollout = Field(default_factory=Rollout)
    gates: Gates = Field(default_factory=Gates)
    rollback: Rollback = Field(default=Rollback.NODE, description="What a failed gate does.")
    deadline: Deadline = Field(default_factory=Deadline)
    acknowledge: list[Feature] = Field(
        default_factory=list,
        max_length=16,
        description="What is lost on some node and the owner goes on without there, knowingly: what is not served, "
        "and for RulesBeforeDNAT what the rules in a NodeMigration's status.bypassed decide.",
    )


class NodeCounts(Model):
    """How many of the selected nodes stand where."""

    selected: int = 0
    standby: int = 0
    shadow: int = 0
    serving: int = 0
    sole: int = 0
    migrated: int = Field(default=0, description="On Sole with a passed soak.")
    failed: int = 0


class NodeFailure(Model):
    """A gate that failed: which node, on the way to which rung, what was expected and what was seen."""

    node: str = Field(max_length=253)
    rung: Rung
    reason: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=128)
    message: str = Field(default="", max_length=1024)
    at: datetime


class ProxyMigrationStatus(Model):
    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    migrated: str = Field(default="", max_length=32, description="Migrated of selected nodes, as 2/3.")
    nodes: NodeCounts = Field(default_factory=NodeCounts)
    current_nodes: list[str] = Field(
        default_factory=list, max_length=5000, description="Nodes that are on their way now."
    )
    current_node: str = Field(default="", max_length=1024, description="The same as one text, for printing.")
    message: str = Field(default="", max_length=4096)
    failed_nodes: list[str] = Field(
        default_factory=list,
        max_length=5000,
        description="Nodes whose gate failed at this generation; a changed spec tries them again.",
    )
    failures: list[NodeFailure] = Field(
        default_factory=list, max_length=50, description="What failed on the first of these nodes."
    )
    begun: bool = Field(
        default=False,
        description="Something on some node may differ from what was there before. The planner's memory.",
    )
    reverted_generation: int = Field(
        default=0,
        description="Generation at which somebody else was seen to take our changes off kube-proxy's "
        "DaemonSet; they are made again only after a change of the spec. 0: not seen.",
    )
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
