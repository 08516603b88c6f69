"""A node with nothing wrong, to spoil one thing of in a test."""

from dataclasses import replace
from datetime import datetime, timedelta

from handover_api.base import API_VERSION, Rung
from handover_api.nodemigration import (
    AgentFacts,
    KubeProxyFacts,
    NodeMigrationSpec,
    NodeMigrationStatus,
    Parity,
    ProbeResult,
    Probes,
    ProxyMode,
)
from handover_api.proxymigration import ProxyMigrationSpec, ProxyMigrationStatus
from handover_operator.facts import MigrationFacts, NodeFacts, NodeMigrationFacts, PodFacts
from handover_operator.standing import Standing, stand

from .sim import EPOCH

NOW = EPOCH + timedelta(minutes=10)
SINCE = NOW - timedelta(seconds=20)


def ago(seconds: float) -> datetime:
    """So many seconds before now."""
    return NOW - timedelta(seconds=seconds)


def status(rung: Rung = Rung.STANDBY, **changes: object) -> NodeMigrationStatus:
    """What a healthy agent says on a rung."""
    attached = rung in (Rung.SERVING, Rung.SOLE)
    return NodeMigrationStatus(
        observed_generation=1,
        rung=rung,
        rung_since=SINCE,
        heartbeat=ago(2),
        agent=AgentFacts(version="0.1.0", api_version=API_VERSION),
        kube_proxy=KubeProxyFacts(mode=ProxyMode.IPTABLES, running=rung is not Rung.SOLE, rules=40),
        parity=Parity(checked_at=ago(3), in_sync=True, frontends=4, kube_proxy_frontends=4),
        probes=Probes(
            baseline=ProbeResult(at=ago(60), path="kube-proxy", attempts=50, failures=1),
            latest=ProbeResult(at=ago(1), path="ebpf" if attached else "kube-proxy", attempts=50, failures=1),
        ),
        snapshot="sha" if rung is not Rung.STANDBY else "",
        bypassed=[],
    ).model_copy(update=changes)


def node(
    name: str = "n1",
    rung: Rung = Rung.STANDBY,
    *,
    wanted: Rung | None = None,
    soaked: bool = False,
    says: NodeMigrationStatus | None = None,
    deadline_s: float = 60,
    migration_generation: int = 1,
    **changes: object,
) -> NodeFacts:
    """A healthy node on a rung, and what else is to be different."""
    sole = rung is Rung.SOLE
    spec = NodeMigrationSpec(
        node_name=name,
        rung=wanted or rung,
        deadline=ago(-deadline_s),
        soak_passed=ago(5) if soaked else None,
        node_uid=f"uid-{name}",
        migration_generation=migration_generation,
    )
    facts = NodeFacts(
        name,
        f"uid-{name}",
        "z1",
        drained=sole,
        kube_proxy=() if sole else (PodFacts(f"kube-proxy-{name}", True),),
        agent=PodFacts(f"agent-{name}", True),
        migration=NodeMigrationFacts(f"nm-{name}", 1, spec, says or status(rung)),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def standing(
    rung: Rung = Rung.STANDBY, says: NodeMigrationStatus | None = None, **changes: object
) -> Standing:
    """The same, as the planner thinks of it."""
    return stand(node("n1", rung, says=says, **changes), NOW)  # type: ignore[arg-type]


def migration(
    target: str = "eBPF", known: ProxyMigrationStatus | None = None, generation: int = 1, **spec: object
) -> MigrationFacts:
    """A ProxyMigration that has its finalizer."""
    return MigrationFacts(
        "main",
        "uid-main",
        generation,
        EPOCH,
        ProxyMigrationSpec.model_validate({"target": target, **spec}),
        known or ProxyMigrationStatus(),
        finalizer=True,
    )
