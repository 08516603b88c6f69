"""What must be true of every plan and of every moment, said independently of the planner's own code.

Numbers are those of the architecture's invariants, as far as the planner is responsible for them; the names below are
what a broken one reports, so that a test can ask for a particular one.
"""

from collections.abc import Iterator
from datetime import timedelta

from handover_api.base import Feature, Rung, Target
from handover_api.duration import seconds
from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus
from handover_api.proxymigration import Phase
from handover_operator import actions as do
from handover_operator.facts import NodeFacts

from .sim import Trace, World

ORDER = [Rung.STANDBY, Rung.SHADOW, Rung.SERVING, Rung.SOLE]
FRESH_S = 30


class InvariantError(AssertionError):
    """An invariant is broken."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def check(world: World, trace: Trace) -> None:
    """Check one plan against the facts that it was made from, and the world at this moment."""
    for invariant, detail in _broken(trace):
        raise InvariantError(invariant, f"{detail}\n{trace.plan.verdict}\n{trace.plan.actions}")
    check_world(world)


def check_world(world: World) -> None:
    """Invariant 1: each node has someone who serves new connections."""
    for m in world.machines:
        if m.exists and not m.rebooted and not m.served:
            raise InvariantError("1 served", f"nobody serves new connections on {m}")


def check_clean(world: World) -> None:
    """Invariant 7: after the end, a cluster as before the beginning."""
    left = [
        m.name
        for m in world.machines
        if m.migration or (m.exists and (m.drained or m.rung is not Rung.STANDBY or not m.rules))
    ]
    if left or world.prepared or world.in_force or world.finalizer or world.exists:
        raise InvariantError("7 clean", f"left on {left}, DaemonSet {world.prepared=} {world.finalizer=}")


def _broken(trace: Trace) -> Iterator[tuple[str, str]]:
    facts = {node.name: node for node in trace.nodes}
    for action in trace.plan.actions:
        match action:
            case do.SetRung():
                yield from _order(trace, facts[action.node], action)
            case do.DrainKubeProxy(name):
                yield from _drain(trace, facts[name])
            case do.UndrainKubeProxy(name):
                wanted = _spec(facts[name]).rung
                if not _is_fresh(trace, facts[name]) and ORDER.index(wanted) >= 2:
                    yield "8 fresh", f"{name} undrained on stale facts"
                if _frozen(trace) and ORDER.index(wanted) >= 2:
                    yield "paused", f"{name} undrained"
            case do.DeleteNodeMigration(name, _):
                yield from _delete(facts[name])
            case do.EnsureNodeMigration():
                yield from _ensure(facts[action.node], action)
            case do.RemoveFinalizer():
                deleted = {a.node for a in trace.plan.actions if isinstance(a, do.DeleteNodeMigration)}
                left = [n.name for n in trace.nodes if n.drained or (n.migration and n.name not in deleted)]
                if trace.migration.older is None and (left or trace.daemonset.prepared):
                    yield "7 clean", "finalizer removed while something of ours is left"
            case do.RestoreDaemonSet():
                if any(node.drained or _off_ground(node) for node in trace.nodes if node.exists):
                    yield "1 order", "DaemonSet restored while a node is not down"
            case do.PrepareDaemonSet():
                if _frozen(trace):
                    yield "paused", "DaemonSet prepared"
                again = 0 < trace.migration.status.reverted_generation < trace.migration.generation
                if not _reverted_ok(trace) and not again:
                    yield "reverted", "a fight with whoever reverted the DaemonSet"
    yield from _slots(trace)
    yield from _truth(trace)


def _order(trace: Trace, node: NodeFacts, action: do.SetRung) -> Iterator[tuple[str, str]]:
    spec, status = _spec(node), _status(node)
    before, after = ORDER.index(spec.rung), ORDER.index(action.rung)
    name = f"{node.name} {spec.rung} → {action.rung} (reached {status.rung})"
    if abs(after - before) > 1:
        yield "ladder", f"{name}: more than one rung at a time"
    if _frozen(trace):
        yield "paused", name
    if after != before and not _is_fresh(trace, node):
        yield "8 fresh", f"{name} on stale facts"
    if after > before:
        if not (_observed(node) and status.rung is spec.rung):
            yield "ladder", f"{name}: the rung below is not reached"
        if _way(trace) == "down" or node.name in trace.failed:
            yield "6 memory", f"{name}: a node goes up that has failed, or while all go down"
        if not _reverted_ok(trace):
            yield "reverted", f"{name}: while the DaemonSet was reverted"
    if action.rung in (Rung.SHADOW, Rung.SERVING) and before < after and _ahead(trace, node):
        yield "ahead", f"{name}: ahead of rules that somebody counts on"
    if action.rung is Rung.SERVING and before < after and not status.snapshot:
        yield "3 snapshot", f"{name}: no snapshot"
    if (
        action.rung is Rung.SOLE
        and status.rung is not Rung.SOLE
        and (node.kube_proxy or status.kube_proxy.running)
    ):
        yield "5 no flush beside kube-proxy", name
    if action.rung is Rung.SOLE and before < after and (not node.drained or _unserved(trace)):
        yield "hold", f"{name}: not drained, or something is unserved"
    serves = node.kube_proxy and all(pod.ready and not pod.terminating for pod in node.kube_proxy)
    if action.rung is Rung.SHADOW and before > after and (node.drained or not serves):
        yield "1 order", f"{name}: let go before kube-proxy is back"
    if action.spec.soak_passed is not None and spec.soak_passed is None:
        soak = timedelta(seconds=seconds(trace.migration.spec.rollout.soak))
        since = status.rung_since
        if status.rung is not action.rung or since is None or since + soak > trace.now:
            yield "4 soak", f"{name}: no soak was passed"


def _drain(trace: Trace, node: NodeFacts) -> Iterator[tuple[str, str]]:
    status = _status(node)
    if status.rung not in (Rung.SERVING, Rung.SOLE) or _spec(node).rung not in (Rung.SERVING, Rung.SOLE):
        yield "1 order", f"{node.name} drained on {status.rung}"
    if not trace.daemonset.in_force:
        yield "1 order", f"{node.name} drained while the DaemonSet is not prepared"
    if not _is_fresh(trace, node):
        yield "8 fresh", f"{node.name} drained on stale facts"
    if _frozen(trace):
        yield "paused", f"{node.name} drained"
    if status.rung is Rung.SERVING and _spec(node).rung is Rung.SERVING and _unserved(trace):
        yield "hold", f"{node.name} drained while something is unserved"
    latest = status.probes.latest
    if _spec(node).rung is Rung.SERVING and (latest is None or latest.path != "ebpf" or latest.failures):
        yield "gates", f"{node.name} drained without good probes"


def _delete(node: NodeFacts) -> Iterator[tuple[str, str]]:
    migration = node.migration
    if migration is None or not node.exists or migration.spec.node_uid != node.uid:
        return
    silent = migration.status.heartbeat is None
    down = migration.status.rung is Rung.STANDBY and _observed(node)
    if migration.spec.rung is not Rung.STANDBY or node.drained or not (down or silent):
        yield "7 clean", f"NodeMigration of {node.name} deleted while it is not down"


def _ensure(node: NodeFacts, action: do.EnsureNodeMigration) -> Iterator[tuple[str, str]]:
    if node.migration is not None:
        if action.spec.rung is not node.migration.spec.rung:
            yield "ladder", f"{node.name}: a refresh changes the rung"
    elif action.spec.rung is Rung.STANDBY and (
        node.drained or not any(p.ready and not p.terminating for p in node.kube_proxy)
    ):
        yield "1 order", f"{node.name}: created on Standby without a kube-proxy"


def _slots(trace: Trace) -> Iterator[tuple[str, str]]:
    """Invariant 4, by counting who was between Shadow and a passed soak, and who is new there by this plan."""
    spec = trace.migration.spec
    here = [node for node in trace.nodes if node.exists]
    selected = [node for node in here if _selected(trace, node)]
    flying = {node.name for node in here if _between(node)}
    touched = {
        a.node
        for a in trace.plan.actions
        if isinstance(a, do.SetRung) and not (a.spec.soak_passed and a.rung is _spec_of(trace, a.node).rung)
    }
    new = touched - flying
    if not new:
        return
    value = spec.rollout.max_unavailable
    limit = (
        int(value) if not str(value).endswith("%") else max(1, len(selected) * int(str(value)[:-1]) // 100)
    )
    top = 2 if _unserved(trace) else 3
    passed = sum(not _between(n) and ORDER.index(_spec(n).rung) >= top for n in selected)
    if _way(trace) == "up" and passed < spec.rollout.canary and any(_goes_up(trace, n) for n in new):
        limit = 1
    if len(flying | new) > limit:
        yield "4 slots", f"{sorted(flying)} in flight, {sorted(new)} start, {limit} allowed"
    yield from _zones(here, flying, new)


def _zones(here: list[NodeFacts], flying: set[str], new: set[str]) -> Iterator[tuple[str, str]]:
    members: dict[str, set[str]] = {}
    for node in here:
        if node.ready or node.name in flying | new:
            members.setdefault(node.zone, set()).add(node.name)
    ready = {node.name for node in here if node.ready}
    whole = {
        zone
        for zone, names in members.items()
        if not ((names & ready) - flying - new) and names & (flying | new)
    }
    started = {node.zone for node in here if node.name in new} & whole
    for zone in started:
        if len(members[zone]) > 1 or len(whole) > 1:
            yield "4 zones", f"zone {zone} {sorted(members[zone])} wholly in flight, with {sorted(whole)}"


def _truth(trace: Trace) -> Iterator[tuple[str, str]]:
    """Invariant 8: the status says no more than was seen."""
    verdict = trace.plan.verdict
    if [verdict.ready, verdict.reconciling, verdict.stalled].count(True) > 1:
        yield "8 status", f"contradicts itself: {verdict}"
    if verdict.stalled and len(verdict.message) < 20:
        yield "8 status", "stalled without a message that says what to do"
    if len(verdict.message) > 4096:
        yield "8 status", "message too long"
    selected = [node for node in trace.nodes if node.exists and _selected(trace, node)]
    if verdict.ready and verdict.phase not in (Phase.MIGRATED, Phase.REVERSED):
        yield "8 status", f"ready while {verdict.phase}"
    if verdict.phase is Phase.MIGRATED and not selected:
        yield "8 status", "Migrated is said of no node at all"
    if verdict.phase is Phase.MIGRATED and verdict.ready:
        for node in selected:
            if not _is_fresh(trace, node) or _status(node).rung is not Rung.SOLE or node.kube_proxy:
                yield "8 status", f"Migrated is said, and {node.name} is {_status(node).rung}"
    away = trace.daemonset.prepared or any(n.drained or _off_ground(n) for n in trace.nodes if n.exists)
    if verdict.phase is Phase.REVERSED and verdict.ready and away:
        yield "8 status", "Reversed is said, and it is not"
    for failure in trace.plan.failures:
        if failure.node not in _failed(trace) and not _is_fresh(trace, _node(trace, failure.node)):
            yield "8 fresh", f"{failure.node} judged on stale facts"


# -- words -----------------------------------------------------------------------------------------------------------


_NO_SPEC, _NO_STATUS = NodeMigrationSpec(node_name="-"), NodeMigrationStatus()


def _spec(node: NodeFacts) -> NodeMigrationSpec:
    return node.migration.spec if node.migration else _NO_SPEC


def _status(node: NodeFacts) -> NodeMigrationStatus:
    return node.migration.status if node.migration else _NO_STATUS


def _node(trace: Trace, name: str) -> NodeFacts:
    return next(node for node in trace.nodes if node.name == name)


def _spec_of(trace: Trace, name: str) -> NodeMigrationSpec:
    return _spec(_node(trace, name))


def _observed(node: NodeFacts) -> bool:
    return (
        node.migration is not None and node.migration.status.observed_generation >= node.migration.generation
    )


def _is_fresh(trace: Trace, node: NodeFacts) -> bool:
    beat = _status(node).heartbeat
    return beat is not None and (trace.now - beat).total_seconds() <= FRESH_S


def _off_ground(node: NodeFacts) -> bool:
    return _spec(node).rung is not Rung.STANDBY or _status(node).rung is not Rung.STANDBY


def _between(node: NodeFacts) -> bool:
    """Between Shadow and a passed soak; on a held cluster a soak on Serving, beside kube-proxy, is one too."""
    spec, status = _spec(node), _status(node)
    at_rest = (
        spec.soak_passed is not None
        and spec.rung is status.rung
        and (spec.rung is Rung.SOLE or (spec.rung is Rung.SERVING and not node.drained))
    )
    return (_off_ground(node) or node.drained) and not at_rest


def _selected(trace: Trace, node: NodeFacts) -> bool:
    return trace.migration.spec.node_selector.items() <= dict(node.labels).items()


def _failed(trace: Trace) -> set[str]:
    status = trace.migration.status
    return set(status.failed_nodes) if status.observed_generation == trace.migration.generation else set()


def _way(trace: Trace) -> str:
    migration = trace.migration
    here = {node.name for node in trace.nodes if node.exists and _selected(trace, node)}
    all_back = bool(_failed(trace) & here) and migration.spec.rollback == "All"
    return "down" if migration.deleting or migration.spec.target is Target.KUBE_PROXY or all_back else "up"


def _goes_up(trace: Trace, name: str) -> bool:
    return any(
        isinstance(a, do.SetRung)
        and a.node == name
        and ORDER.index(a.rung) >= ORDER.index(_spec_of(trace, name).rung)
        for a in trace.plan.actions
    )


def _frozen(trace: Trace) -> bool:
    migration = trace.migration
    if migration.deleting:
        return False
    here = {node.name for node in trace.nodes if node.exists and _selected(trace, node)}
    stopped = (
        migration.spec.target is Target.EBPF
        and bool(_failed(trace) & here)
        and migration.spec.rollback == "Pause"
    )
    return migration.spec.paused or stopped


def _reverted_ok(trace: Trace) -> bool:
    daemonset = trace.daemonset
    return daemonset.exists and (
        daemonset.in_force or not (daemonset.prepared or any(n.drained for n in trace.nodes))
    )


def _ahead(trace: Trace, node: NodeFacts) -> bool:
    """Nobody has looked for rules before kube-proxy's DNAT, or there are some that nobody gives up."""
    acknowledged = Feature.RULES_BEFORE_DNAT in trace.migration.spec.acknowledge
    return _status(node).bypassed != [] and not acknowledged


def _unserved(trace: Trace) -> bool:
    acknowledged = trace.migration.spec.acknowledge
    return any(
        unserved.feature not in acknowledged
        for node in trace.nodes
        if node.exists and _selected(trace, node)
        for unserved in _status(node).unserved
    )
