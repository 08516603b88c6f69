"""What one plan knows about the migration as a whole, and how its orders to a node are written."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from handover_api.base import Gates, Rung
from handover_api.duration import seconds
from handover_api.nodemigration import KubeProxySelector, NodeMigrationSpec
from handover_api.proxymigration import Deadline

from handover_operator.actions import Action, EnsureNodeMigration, Event, SetRung
from handover_operator.facts import DaemonSetFacts, MigrationFacts, NodeFacts
from handover_operator.gates import Block
from handover_operator.reasons import Reason
from handover_operator.standing import Standing


@dataclass(frozen=True, slots=True)
class Hold:
    """What the cluster asks for, the datapath does not serve, and nobody has acknowledged."""

    features: tuple[str, ...]
    services: tuple[str, ...]  # `namespace/name: what it asks for`, without repetitions
    nodes: tuple[str, ...] = ()  # whose agents say so, unless all do; who was not heard of lately is marked


@dataclass(frozen=True, slots=True)
class LineStop:
    """Why no node goes further up."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Context:
    """The part of the facts that is the same for all nodes."""

    migration: MigrationFacts
    daemonset: DaemonSetFacts
    now: datetime
    soak_s: float
    deadline_s: dict[Rung, float]
    failure_ratio: float
    gates: Gates
    kube_proxy: KubeProxySelector
    hold: Hold | None = None
    stop: LineStop | None = None

    @property
    def top(self) -> Rung:
        """How far up a node may go."""
        return Rung.SERVING if self.hold else Rung.SOLE


def context(migration: MigrationFacts, daemonset: DaemonSetFacts, now: datetime) -> Context:
    """The context of a plan, before anything is known about the nodes. Raises ValueError for a bad duration."""
    spec = migration.spec
    return Context(
        migration=migration,
        daemonset=daemonset,
        now=now,
        soak_s=seconds(spec.rollout.soak),
        deadline_s=_deadlines(spec.deadline),
        failure_ratio=spec.gates.probes.failure_ratio,
        gates=spec.gates,
        kube_proxy=KubeProxySelector(
            namespace=spec.kube_proxy.namespace, name=spec.kube_proxy.name, selector=dict(daemonset.selector)
        ),
    )


def _deadlines(deadline: Deadline) -> dict[Rung, float]:
    return {
        Rung.STANDBY: seconds(deadline.standby),
        Rung.SHADOW: seconds(deadline.shadow),
        Rung.SERVING: seconds(deadline.serving),
        Rung.SOLE: seconds(deadline.sole),
    }


@dataclass(frozen=True, slots=True)
class Step:
    """What a node does next: actions, or the block that it waits at. Neither: it is where it should be."""

    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    block: Block | None = field(default=None)


def order(
    s: Standing,
    ctx: Context,
    rung: Rung,
    *,
    soak_passed: datetime | None = None,
    within_s: float | None = None,
) -> SetRung:
    """An order to a rung, with a new deadline: the rung's own, or `within_s` from now."""
    assert s.node.migration is not None, "only a node with a NodeMigration can be ordered anywhere"  # noqa: S101
    return SetRung(
        s.name,
        _spec(s.node, ctx, rung, soak_passed, ctx.deadline_s[rung] if within_s is None else within_s),
        s.node.migration.uid,
        s.node.migration.generation,
    )


def move(s: Standing, ctx: Context, rung: Rung, why: str) -> Step:
    """The step to a neighbouring rung, told as an event."""
    way = "up" if rung.height > s.wanted.height else "down"
    event = Event(Reason.STEP, f"{s.wanted} → {rung} ({way}): {why}", s.name)
    return Step((order(s, ctx, rung),), (event,))


def renew(s: Standing, ctx: Context) -> SetRung:
    """The same order again, with a new deadline under the present generation."""
    return order(s, ctx, s.wanted, soak_passed=s.spec.soak_passed)


def create(node: NodeFacts, ctx: Context, rung: Rung) -> EnsureNodeMigration:
    """A NodeMigration for a node that has none; the deadline is the time that its agent has to report."""
    return EnsureNodeMigration(node.name, _spec(node, ctx, rung, None, ctx.deadline_s[Rung.STANDBY]))


def refresh(s: Standing, ctx: Context) -> EnsureNodeMigration | None:
    """New settings for a NodeMigration on the rung that it has, when they have changed."""
    kube_proxy = _kube_proxy(s.node, ctx)
    if s.node.migration is None or (s.spec.gates == ctx.gates and s.spec.kube_proxy == kube_proxy):
        return None
    spec = s.spec.model_copy(update={"gates": ctx.gates, "kube_proxy": kube_proxy})
    return EnsureNodeMigration(s.name, spec, s.node.migration.uid)


def _spec(
    node: NodeFacts, ctx: Context, rung: Rung, soak_passed: datetime | None, within_s: float
) -> NodeMigrationSpec:
    return NodeMigrationSpec(
        node_name=node.name,
        rung=rung,
        # whole seconds: the API keeps no more, and a deadline that reads back otherwise would look like a change
        deadline=(ctx.now + timedelta(seconds=within_s)).replace(microsecond=0),
        soak_passed=soak_passed.replace(microsecond=0) if soak_passed else None,
        node_uid=node.uid,
        migration_generation=ctx.migration.generation,
        kube_proxy=_kube_proxy(node, ctx),
        gates=ctx.gates,
    )


def _kube_proxy(node: NodeFacts, ctx: Context) -> KubeProxySelector:
    """How kube-proxy's pods are found; when the DaemonSet is gone, as the NodeMigration remembers it."""
    if ctx.daemonset.exists or node.migration is None:
        return ctx.kube_proxy
    return node.migration.spec.kube_proxy
