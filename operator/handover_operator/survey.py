"""The view from above: where all nodes stand, which way they should go, and what stops the line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from handover_api.base import Feature, Rung, Target
from handover_api.proxymigration import NodeCounts, Rollback

from handover_operator import gates
from handover_operator.climb import serving_gate
from handover_operator.facts import NodeFacts
from handover_operator.failures import Remembered, remembered
from handover_operator.gates import Block
from handover_operator.orders import Context, Hold, LineStop
from handover_operator.preflight import daemonset_name, ignore_differences, not_found
from handover_operator.reasons import Reason
from handover_operator.selection import InvalidSpecError, matches, max_unavailable
from handover_operator.standing import Standing, stand


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that the steps of one plan are decided from."""

    ctx: Context
    gone: tuple[NodeFacts, ...]  # nodes of which only the NodeMigration is left
    all: tuple[Standing, ...]
    selected: tuple[Standing, ...]
    selected_names: frozenset[str]
    climbers: frozenset[str]  # nodes that belong at the top; every other node belongs on Standby
    limit: int
    up: bool  # eBPF is wanted
    known: Remembered  # failures that the status holds
    frozen: bool  # paused, or stopped by a failure under rollback: Pause
    begun: bool  # something on some node has been changed
    traces: bool  # ... or was once: nodes are not down before their agents have said so
    reverted_generation: int
    prepare_again: bool  # the spec has changed since somebody else changed the DaemonSet
    degraded: tuple[Block, ...]  # at rest, but not well

    @property
    def line_waits(self) -> bool:
        """No further node starts on the way up."""
        return self.ctx.stop is not None or bool(self.known.nodes) or self.unwell_line

    @property
    def unwell_line(self) -> bool:
        """A node that was handed over is not well although it is Ready: no other follows it."""
        return any(block.reason is not Reason.NODE_NOT_READY for block in self.degraded)

    @property
    def passed(self) -> int:
        """Selected nodes at rest at the top."""
        return sum(at_top(s, self.ctx) for s in self.selected)


def at_top(s: Standing, ctx: Context) -> bool:
    """At rest, as far up as the cluster allows."""
    return s.resting and s.wanted.height >= ctx.top.height


def survey(ctx: Context, nodes: Sequence[NodeFacts]) -> Survey:
    """Where everything stands. Raises InvalidSpecError when the spec makes no sense."""
    migration = ctx.migration
    spec = migration.spec
    ordered = sorted(nodes, key=lambda node: node.name)
    standings = tuple(stand(node, ctx.now) for node in ordered if node.exists)
    selected = tuple(s for s in standings if matches(s.node.labels, spec.node_selector))
    names = frozenset(s.name for s in selected)
    up = spec.target is Target.EBPF and not migration.deleting
    known = remembered(migration, names) if up else Remembered()
    all_down = bool(known.nodes) and spec.rollback is Rollback.ALL
    begun = ctx.daemonset.prepared or any(s.in_flight or s.resting for s in standings)
    reverted_generation, prepare_again = _reverted(ctx, standings) if up else (0, False)
    ctx = replace(
        ctx,
        hold=_hold(ctx, selected) if up else None,
        stop=_line_stop(ctx, reverted_generation) if up and begun else None,
    )
    climbers = names - frozenset(known.nodes) if up and not all_down else frozenset[str]()
    return Survey(
        ctx=ctx,
        gone=tuple(node for node in ordered if not node.exists),
        all=standings,
        selected=selected,
        selected_names=names,
        climbers=climbers,
        limit=_limit(ctx, len(selected)),
        up=up,
        known=known,
        frozen=(spec.paused and not migration.deleting)
        or (bool(known.nodes) and spec.rollback is Rollback.PAUSE),
        begun=begun,
        traces=begun or migration.status.begun,
        reverted_generation=reverted_generation,
        prepare_again=prepare_again,
        degraded=_degraded(ctx, tuple(s for s in selected if s.name in climbers)),
    )


def counts(survey: Survey) -> NodeCounts:
    """How many of the selected nodes stand where, by what their agents said last; silent from the start: nowhere."""
    reached = [s.reached for s in survey.selected if s.reported]
    return NodeCounts(
        selected=len(survey.selected),
        standby=reached.count(Rung.STANDBY),
        shadow=reached.count(Rung.SHADOW),
        serving=reached.count(Rung.SERVING),
        sole=reached.count(Rung.SOLE),
        migrated=sum(s.migrated for s in survey.selected),
        failed=len(survey.known.nodes),
    )


def _limit(ctx: Context, nodes: int) -> int:
    try:
        return max_unavailable(ctx.migration.spec.rollout.max_unavailable, nodes)
    except InvalidSpecError:
        if ctx.migration.deleting:
            return 1  # a spec that makes no sense must not keep a deletion from going on
        raise


def _hold(ctx: Context, selected: Sequence[Standing]) -> Hold | None:
    acknowledged = frozenset(ctx.migration.spec.acknowledge)
    features: set[Feature] = set()
    services: set[str] = set()
    nodes: list[str] = []
    for s in selected:
        unserved = [u for u in s.status.unserved if u.feature not in acknowledged]
        if unserved:
            nodes.append(s.name if s.fresh else f"{s.name} (as it said at {gates.stamp(s.status.heartbeat)})")
        for each in unserved:
            features.add(each.feature)
            services.add(f"{each.service} ({each.feature}: {each.message})")
    if not features:
        return None
    found = tuple(f for f in Feature if f in features)
    return Hold(found, tuple(sorted(services)), tuple(nodes) if len(nodes) < len(selected) else ())


def _reverted(ctx: Context, standings: Sequence[Standing]) -> tuple[int, bool]:
    """At which generation our changes were found taken back, and whether to make them again."""
    daemonset, generation = ctx.daemonset, ctx.migration.generation
    recorded = ctx.migration.status.reverted_generation
    ours = daemonset.prepared or any(s.node.drained for s in standings)
    if not daemonset.exists or daemonset.in_force or not ours:
        return 0, False
    if recorded and recorded < generation:
        return recorded, True
    return generation, False


def _line_stop(ctx: Context, reverted_generation: int) -> LineStop | None:
    if not ctx.daemonset.exists:
        problem = not_found(ctx)
        return LineStop(problem.reason, f"{problem.message} Until then no node goes further up.")
    if reverted_generation:
        return LineStop(
            Reason.DAEMON_SET_REVERTED,
            f"somebody else has taken Handover's changes off DaemonSet {daemonset_name(ctx)}, so kube-proxy may return"
            " to drained nodes. No node goes further up. Tell the tool that manages it to leave these fields alone:\n"
            f"{ignore_differences(ctx)}\nand then change the ProxyMigration's spec: the changes are made again once.",
        )
    return None


def _degraded(ctx: Context, climbers: Sequence[Standing]) -> tuple[Block, ...]:
    blocks = (_ailment(ctx, s) for s in climbers if s.resting)
    return tuple(block for block in blocks if block is not None)


def _ailment(ctx: Context, s: Standing) -> Block | None:
    block = gates.first(
        (
            gates.node_ready(s),
            gates.fresh(s),
            gates.agent_ready(s),
            gates.probes(s, ctx.failure_ratio),
            gates.no_fault(s),
        )
    )
    if block is None and s.wanted is Rung.SOLE and s.node.kube_proxy:
        block = gates.kube_proxy_gone(s)
    # Renewed orders and settings make a moment in which the last round of probes is the one before.
    return None if block is not None and block.reason is Reason.PROBES_MISSING else block


def may_drain(survey: Survey, s: Standing) -> bool:
    """At rest on Serving, and nothing but a slot is missing for the rest of the way."""
    return (
        survey.ctx.top is Rung.SOLE
        and s.resting
        and s.wanted is Rung.SERVING
        and s.fresh
        and s.settled
        and serving_gate(s, survey.ctx) is None
    )
