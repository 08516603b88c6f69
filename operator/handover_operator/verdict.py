"""One word for where the migration stands, and one message that a person can act upon.

All three conditions come from the one `Verdict`, so that they cannot contradict each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from handover_api.base import Rung, Target
from handover_api.proxymigration import Phase, Rollback

from handover_operator import bypassed
from handover_operator.actions import SetRung
from handover_operator.descend import grounded
from handover_operator.gates import Block, Kind
from handover_operator.moves import Moves
from handover_operator.orders import Hold
from handover_operator.preflight import Problem, daemonset_name, no_nodes
from handover_operator.reasons import Reason
from handover_operator.standing import Standing
from handover_operator.survey import Survey

MESSAGE_BYTES = 4096
SHOWN = 5  # blocks, failures and Services that are told in full


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is true of the whole migration. At most one of the three is true; none when it is paused."""

    phase: Phase
    reason: Reason
    message: str
    ready: bool = False
    reconciling: bool = False
    stalled: bool = False


def decide(seen: Survey, made: Moves, problems: Sequence[Problem], *, finished: bool) -> Verdict:
    """The verdict on a plan. `finished`: all nodes are down and the DaemonSet is as it was."""
    if seen.ctx.migration.deleting:
        return _down(seen, made, Reason.DELETING, finished)
    if made.found or seen.known.nodes:
        return _failed(seen, made)
    if seen.ctx.migration.spec.paused:
        where = _where(seen)
        text = f"Paused by spec.paused: no node takes a step. {where} Set spec.paused to false to go on."
        text = "\n".join([text, *(problem.message for problem in problems)])
        return Verdict(Phase.PAUSED, Reason.PAUSED, _cut(text))
    if seen.ctx.migration.spec.target is Target.KUBE_PROXY:
        return _down(seen, made, Reason.REVERSING, finished)
    if problems:
        return _not_begun(problems)
    if seen.ctx.stop is not None:
        stop = seen.ctx.stop
        return Verdict(Phase.STALLED, stop.reason, _cut(f"{stop.message}\n{_where(seen)}"), stalled=True)
    if seen.ctx.hold is not None:
        return _holding(seen, made, seen.ctx.hold)
    return _up(seen, made)


def _not_begun(problems: Sequence[Problem]) -> Verdict:
    message = "\n".join(problem.message for problem in problems)
    message = _cut(f"{message}\nNothing on any node has been changed.")
    if any(problem.needs_person for problem in problems):
        return Verdict(Phase.STALLED, problems[0].reason, message, stalled=True)
    return Verdict(Phase.PREFLIGHT, problems[0].reason, message, reconciling=True)


def _up(seen: Survey, made: Moves) -> Verdict:
    where = _where(seen)
    if not seen.selected and not made.current:
        problem = no_nodes(seen.ctx)
        return Verdict(Phase.STALLED, problem.reason, problem.message, stalled=True)
    if seen.passed == len(seen.selected) and not made.current:
        if seen.degraded:
            return _degraded(seen, where)
        return Verdict(
            Phase.MIGRATED, Reason.MIGRATED, f"{where} kube-proxy runs on none of them.", ready=True
        )
    message = _cut(" ".join(part for part in (where, _now(seen, made), _tell(made.blocks)) if part))
    flying = {s.name for s in seen.all if s.in_flight}
    lost = [block for block in made.blocks if block.reason is Reason.AGENT_LOST and block.node in flying]
    if flying and len(lost) >= len(made.current):
        return Verdict(Phase.STALLED, Reason.AGENT_LOST, message, stalled=True)
    if made.actions or flying:
        return Verdict(Phase.MIGRATING, Reason.MIGRATING, message, reconciling=True)
    if seen.unwell_line:
        return _degraded(seen, where)
    if not made.blocks:
        return Verdict(Phase.MIGRATING, Reason.MIGRATING, message, reconciling=True)
    late = {s.name for s in seen.selected if s.overdue(seen.ctx.now) or s.node.migration is None}
    stuck = [
        b
        for b in made.blocks
        if b.kind is Kind.REFUSE or (b.node in late and b.reason is not Reason.NODE_NOT_READY)
    ]
    worst = (stuck or made.blocks)[0]
    if stuck:
        return Verdict(Phase.STALLED, worst.reason, message, stalled=True)
    return Verdict(Phase.MIGRATING, worst.reason, message, reconciling=True)


def _degraded(seen: Survey, where: str) -> Verdict:
    text = f"{where} Not well: {_tell(seen.degraded)}"
    text += " No node is taken back by itself, and no other node starts while a Ready one is not well;"
    text += " set spec.target to KubeProxy for the way back."
    moved = seen.passed == len(seen.selected)
    return Verdict(Phase.MIGRATED if moved else Phase.STALLED, Reason.DEGRADED, _cut(text), stalled=not moved)


def _holding(seen: Survey, made: Moves, hold: Hold) -> Verdict:
    names = ", ".join(hold.features)
    services = "; ".join(hold.services[:SHOWN])
    more = f"; and {len(hold.services) - SHOWN} more" if len(hold.services) > SHOWN else ""
    sole = [s.name for s in seen.selected if s.reached is Rung.SOLE]
    beside = (
        f"{_some(sole)} went to Sole before that and stay there: what is asked for is not served on them."
        if sole
        else "kube-proxy goes on running on every node, nothing is drained and nothing is flushed."
    )
    where = f"not on {_some(hold.nodes)}" if hold.nodes else "on no node"
    leave_out = ", or leave these nodes out with spec.nodeSelector" if hold.nodes else ""
    message = _cut(
        f"Services ask for {names}, which is served {where}: {services}{more}. Nodes go no further than"
        f" Serving; {beside} To go on without it, add {names} to spec.acknowledge; or change these Services{leave_out}."
        f" {_where(seen)} {_tell([*seen.degraded, *made.blocks])}".rstrip()
    )
    at_rest = seen.passed == len(seen.selected) and not made.current
    return Verdict(Phase.HOLDING, Reason.UNSERVED, message, reconciling=not at_rest, stalled=at_rest)


def _failed(seen: Survey, made: Moves) -> Verdict:
    spec = seen.ctx.migration.spec
    known = seen.known.plus(made.found)
    reason = _reason(known.failures[0].reason) if known.failures else Reason.ROLLING_BACK
    told = "; ".join(f"{f.message}" for f in known.failures[:SHOWN])
    failed = {s.name: s for s in seen.selected if s.name in known.nodes}
    if spec.rollback is Rollback.ALL:
        away = [s for s in seen.all if not grounded(s, seen.ctx.now)]
        doing, done = "All nodes go back to kube-proxy", "All nodes are back on kube-proxy"
    else:
        away = [s for s in failed.values() if not grounded(s, seen.ctx.now)]
        doing = f"{_some(failed)} goes back to kube-proxy and no other node starts"
        done = (
            f"{_some(failed)} is back on kube-proxy, no other node starts, and nodes that are migrated stay"
        )
    retry = "Any change of the spec tries again; spec.target: KubeProxy takes all nodes back."
    if spec.rollback is Rollback.PAUSE:
        text = f"{told}. Everything stays where it is (rollback: Pause). {retry} {_where(seen)}"
        return Verdict(Phase.STALLED, reason, _cut(text), stalled=True)
    if away or made.found:
        text = f"{told}. {doing} (rollback: {spec.rollback}). {_where(seen)} {_tell(made.blocks)}"
        stuck = _stuck(away, seen, made)
        return Verdict(Phase.ROLLING_BACK, reason, _cut(text.rstrip()), reconciling=not stuck, stalled=stuck)
    text = f"{told}. {done} (rollback: {spec.rollback}). {retry} {_where(seen)} {_tell(made.blocks)}"
    return Verdict(Phase.STALLED, reason, _cut(text.rstrip()), stalled=True)


def _down(seen: Survey, made: Moves, reason: Reason, finished: bool) -> Verdict:
    if finished:
        text = "kube-proxy serves every node, its DaemonSet is as it was, nothing of Handover's is left on any node."
        if reason is Reason.DELETING:
            return Verdict(Phase.REVERSED, reason, text, reconciling=True)
        return Verdict(Phase.REVERSED, Reason.REVERSED, text, ready=True)
    away = [s for s in seen.all if not grounded(s, seen.ctx.now)]
    why = "ProxyMigration deleted" if reason is Reason.DELETING else "spec.target is KubeProxy"
    still = (
        f"{_count(len(away))} still to go back to kube-proxy"
        if away
        else f"every node is back on kube-proxy, DaemonSet {daemonset_name(seen.ctx)} is put back as it was"
    )
    text = " ".join(part for part in (f"{why}: {still}.", _now(seen, made), _tell(made.blocks)) if part)
    stuck = _stuck(away, seen, made)
    return Verdict(Phase.REVERSING, reason, _cut(text.rstrip()), reconciling=not stuck, stalled=stuck)


def _stuck(away: Sequence[Standing], seen: Survey, made: Moves) -> bool:
    """Nothing on the way down moves, and has not for longer than its deadline."""
    blocked = {block.node for block in made.blocks}
    lost = {block.node for block in made.blocks if block.reason is Reason.AGENT_LOST}
    return (
        bool(away)
        and not made.actions
        and all(
            s.name in lost or (s.name in blocked and s.overdue(seen.ctx.now))
            for s in away
            if s.in_flight or s.name in blocked
        )
        and bool(blocked)
    )


def _where(seen: Survey) -> str:
    migrated = sum(s.migrated for s in seen.selected)
    total = len(seen.selected)
    text = f"{migrated} of {_count(total)} {'is' if total == 1 else 'are'} migrated."
    return f"{text} {bypassed.told(seen.selected, seen.ctx.migration.spec.acknowledge)}".rstrip()


def _now(seen: Survey, made: Moves) -> str:
    """Who is under way, from which rung to which."""
    if not made.current:
        return ""
    ordered = {action.node: action.rung for action in made.actions if isinstance(action, SetRung)}
    here = {s.name: s for s in seen.all}
    names = list(dict.fromkeys(made.current))
    return f"Under way: {_some([_way(here[name], ordered.get(name)) for name in names])}."


def _way(s: Standing, ordered: Rung | None) -> str:
    wanted = ordered or s.wanted
    return f"{s.name} ({s.reached})" if wanted is s.reached else f"{s.name} ({s.reached} → {wanted})"


def _count(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"


def _reason(text: str) -> Reason:
    """A remembered reason; another release of the operator may have known more of them."""
    return Reason(text) if text in frozenset(Reason) else Reason.ROLLING_BACK


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return ", ".join(listed[:10]) + more


def _tell(blocks: Sequence[Block]) -> str:
    urgent = sorted(blocks, key=lambda block: block.kind is not Kind.REFUSE)
    more = f" And {len(blocks) - SHOWN} more nodes wait." if len(blocks) > SHOWN else ""
    return ("; ".join(block.message for block in urgent[:SHOWN]) + more).strip()


def _cut(message: str) -> str:
    """A message short enough for a condition."""
    return message if len(message) <= MESSAGE_BYTES else message[: MESSAGE_BYTES - 2] + " …"
