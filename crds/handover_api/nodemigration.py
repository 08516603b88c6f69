"""`NodeMigration`: the rung that one node should be on, and the facts that its agent observes there.

The operator writes the spec, the agent of that node the status; neither writes the other's part.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from handover_api.base import Feature, Gates, KubeProxyRef, Model, Rung


class ProxyMode(StrEnum):
    """How the rules on this node were made."""

    NONE = "none"
    IPTABLES = "iptables"
    IPVS = "ipvs"
    NFTABLES = "nftables"


class KubeProxySelector(KubeProxyRef):
    selector: dict[str, str] = Field(default_factory=dict, description="matchLabels of the DaemonSet's pods.")


class NodeMigrationSpec(Model):
    node_name: str = Field(min_length=1, max_length=253)
    rung: Rung = Field(default=Rung.STANDBY, description="The rung that this node should be on.")
    deadline: datetime | None = Field(
        default=None, description="By when the wanted rung should have been reached."
    )
    soak_passed: datetime | None = Field(
        default=None,
        description="When the soak on this rung was passed. The planner's memory; another rung clears it.",
    )
    node_uid: str = Field(
        default="",
        max_length=64,
        description="UID of the Node that this is about: a machine that returns under its name starts anew.",
    )
    migration_generation: int = Field(
        default=0,
        description="Generation of the ProxyMigration that the deadline was set under; a new spec renews it.",
    )
    kube_proxy: KubeProxySelector = Field(default_factory=KubeProxySelector)
    gates: Gates = Field(default_factory=Gates)


class AgentFacts(Model):
    version: str = Field(default="", max_length=64)
    api_version: str = Field(default="", max_length=64, description="The API version that this agent speaks.")
    pod: str = Field(default="", max_length=253)
    started_at: datetime | None = None


class KernelFacts(Model):
    release: str = Field(default="", max_length=128)
    features: list[str] = Field(
        default_factory=list, max_length=64, description="Hooks and helpers that were found by trying them."
    )
    missing: list[str] = Field(
        default_factory=list, max_length=64, description="Hooks without which this node cannot be served."
    )


class KubeProxyFacts(Model):
    mode: ProxyMode = ProxyMode.NONE
    backends: list[str] = Field(
        default_factory=list, max_length=8, description="legacy and/or nft, for iptables."
    )
    running: bool = Field(
        default=False,
        description="A kube-proxy pod of this node exists, or its health port is held by another process.",
    )
    rules: int = Field(default=0, description="Rules and chains of kube-proxy's that are in force.")


class Parity(Model):
    """How the compiled table compares with the API (what the maps hold) and with kube-proxy's own rules."""

    checked_at: datetime | None = None
    in_sync: bool = False
    frontends: int = 0
    backends: int = 0
    kube_proxy_frontends: int = 0
    differences: list[str] = Field(default_factory=list, max_length=20)


class ProbeFailure(Model):
    service: str = Field(max_length=512)
    address: str = Field(max_length=128)
    error: str = Field(max_length=512)


class ProbeResult(Model):
    at: datetime
    path: str = Field(max_length=32, description="Who served: kube-proxy or ebpf.")
    attempts: int = 0
    failures: int = 0
    p50_microseconds: int = 0
    p99_microseconds: int = 0
    failed: list[ProbeFailure] = Field(default_factory=list, max_length=10)


class Probes(Model):
    baseline: ProbeResult | None = None
    latest: ProbeResult | None = None


class Unserved(Model):
    """Something that a Service asks for and that this node's kernel cannot serve."""

    feature: Feature
    service: str = Field(max_length=512)
    message: str = Field(max_length=1024)


class BypassedRule(Model):
    """Somebody else's rule that packets from outside meet before kube-proxy's DNAT, and after our datapath."""

    place: str = Field(max_length=256, description="Which tool's table it is in.")
    rule: str = Field(max_length=1024, description="Its chain, and the rule as that tool prints it.")


class Fault(Model):
    """Why the agent cannot go on towards the wanted rung. It goes on trying; the planner decides."""

    reason: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=128)
    message: str = Field(max_length=2048)
    since: datetime


class NodeMigrationStatus(Model):
    observed_generation: int = 0
    rung: Rung = Field(default=Rung.STANDBY, description="The rung that was reached and verified.")
    rung_since: datetime | None = Field(
        default=None,
        description="When that rung was reached; an agent that restarts keeps it, so that a soak goes on.",
    )
    step: str = Field(default="", max_length=256, description="What the agent is doing now.")
    heartbeat: datetime | None = None
    agent: AgentFacts = Field(default_factory=AgentFacts)
    kernel: KernelFacts = Field(default_factory=KernelFacts)
    kube_proxy: KubeProxyFacts = Field(default_factory=KubeProxyFacts)
    api_server: str = Field(
        default="", max_length=128, description="The API server's own address that the agent is connected to."
    )
    parity: Parity = Field(default_factory=Parity)
    probes: Probes = Field(default_factory=Probes)
    unserved: list[Unserved] = Field(default_factory=list, max_length=100)
    bypassed: list[BypassedRule] | None = Field(
        default=None,
        max_length=20,
        description="Rules before kube-proxy's DNAT that decide about NodePorts, load balancers' or external addresses "
        "by where packets go: our datapath is ahead of them. Absent until the agent has looked.",
    )
    old_flows: int = Field(
        default=0, description="Connections that still live on kube-proxy's conntrack entries."
    )
    translated: int = Field(default=0, description="Sockets that our datapath translates.")
    datapath_errors: int = Field(
        default=0, description="Sum of the datapath's error counters since it was loaded."
    )
    snapshot: str = Field(
        default="",
        max_length=128,
        description="SHA-256 of the snapshot of kube-proxy's rules on this node's disk.",
    )
    leftovers: list[str] = Field(default_factory=list, max_length=50)
    fault: Fault | None = None
