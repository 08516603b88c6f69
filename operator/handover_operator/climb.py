"""The way up of one node: one rung at a time, each step behind its gates.

Standby → Shadow → Serving, then kube-proxy is drained, and only when it is gone: Sole, and a soak. On a held cluster
the way ends at Serving, beside kube-proxy, with a soak of its own.
"""

from datetime import timedelta

from handover_api.base import Rung

from handover_operator import bypassed, gates
from handover_operator.actions import DrainKubeProxy, Event, PrepareDaemonSet, UndrainKubeProxy
from handover_operator.gates import Block, Kind
from handover_operator.orders import Context, Step, move, order, renew
from handover_operator.reasons import Reason
from handover_operator.standing import Standing


def start_gate(s: Standing, ctx: Context) -> Block | None:
    """What has to be true of a node before anything of it is changed."""
    return gates.first(
        (
            gates.node_ready(s),
            gates.fresh(s),
            gates.agent_ready(s),
            gates.api_version(s),
            gates.kernel(s),
            gates.mode(s),
            _rules_before(s, ctx),
            gates.settled(s),
            gates.kube_proxy_serves(s),
            gates.no_fault(s),
        )
    )


def _rules_before(s: Standing, ctx: Context) -> Block | None:
    return bypassed.gate(s, ctx.migration.spec.acknowledge)


def climb(s: Standing, ctx: Context) -> Step:
    """The next step up of a node that holds a slot."""
    came_back = s.wanted is Rung.SOLE and bool(s.node.kube_proxy)
    block = gates.fresh(s)
    if block is not None:
        # The deadline measures the agent's work, not the time in which nobody could hear of it.
        soon = ctx.now + timedelta(seconds=ctx.deadline_s[s.wanted] / 2)
        late = s.known and s.reported and s.spec.deadline is not None and s.spec.deadline < soon
        return Step((renew(s, ctx),) if late and not came_back and ctx.stop is None else (), (), block)
    if s.fell:
        return _climb_again(s, ctx)
    if came_back and s.reached is Rung.SERVING:
        return move(s, ctx, Rung.SERVING, "kube-proxy came back before its rules were removed")
    outdated = s.spec.migration_generation != ctx.migration.generation
    if outdated and s.in_flight and not came_back and ctx.stop is None:
        return Step((renew(s, ctx),))
    block = gates.settled(s)
    if block is not None:
        return Step((), (), block)
    if s.wanted is Rung.STANDBY:
        return _go(s, ctx, start_gate(s, ctx), Rung.SHADOW, "its agent reports and the node is ready")
    if s.wanted is Rung.SHADOW:
        return _at_shadow(s, ctx)
    return _at_serving(s, ctx) if s.wanted is Rung.SERVING else _at_sole(s, ctx)


def shadow_gate(s: Standing, ctx: Context) -> Block | None:
    """What has to be true on Shadow before new connections become ours."""
    return gates.first(
        (
            gates.datapath_errors(s),
            _rules_before(s, ctx),
            gates.node_ready(s),
            gates.agent_ready(s),
            gates.api_version(s),
            gates.no_fault(s),
            gates.snapshot(s),
            gates.parity(s),
            gates.baseline(s),
            gates.kube_proxy_serves(s),
        )
    )


def serving_gate(s: Standing, ctx: Context) -> Block | None:
    """What has to be true on Serving before kube-proxy may leave, and while it leaves."""
    return gates.first(
        (
            gates.probes(s, ctx.failure_ratio),
            gates.datapath_errors(s),
            gates.node_ready(s),
            gates.agent_ready(s),
            gates.api_version(s),
            gates.no_fault(s),
            # Without kube-proxy its rules age: then they no longer have to agree with the API.
            None if s.node.drained else gates.parity(s),
        )
    )


def soak_gate(s: Standing, ctx: Context) -> Block | None:
    """What has to be true on Sole for the soak to pass."""
    fault = s.status.fault
    if fault is not None and (ctx.now - fault.since).total_seconds() > gates.FAULT_PATIENCE_S:
        block = gates.no_fault(s)
        return block and Block(Kind.FAIL, block.reason, s.name, block.expected, block.seen)
    return gates.first(
        (
            gates.probes(s, ctx.failure_ratio),
            gates.datapath_errors(s),
            gates.node_ready(s),
            gates.agent_ready(s),
            gates.no_fault(s),
            gates.kube_proxy_gone(s),
            gates.parity(s),
            gates.soaked(s, ctx.soak_s, ctx.now),
        )
    )


def _at_shadow(s: Standing, ctx: Context) -> Step:
    block = shadow_gate(s, ctx)
    if block is not None and block.reason is Reason.RULES_BYPASSED:
        # Nothing has failed, so nobody else is stopped or taken back: it waits where it holds no slot.
        return move(s, ctx, Rung.STANDBY, f"rules before kube-proxy's DNAT would be bypassed: {block.seen}")
    return _go(s, ctx, block, Rung.SERVING, "parity, and a baseline of probes")


def _at_serving(s: Standing, ctx: Context) -> Step:
    block = serving_gate(s, ctx)
    if block is not None:
        return Step((), (), block)
    if ctx.stop is not None:
        return _stopped(s, ctx)
    if ctx.hold is not None:
        return _hold(s, ctx)
    if not s.node.drained:
        return _drain(s, ctx)
    return _go(s, ctx, gates.kube_proxy_gone(s), Rung.SOLE, "kube-proxy is gone")


def _drain(s: Standing, ctx: Context) -> Step:
    if not ctx.daemonset.in_force:
        event = Event(
            Reason.DAEMON_SET_PREPARED,
            "kube-proxy's DaemonSet now lets nodes be drained by label; its original is recorded on it",
        )
        return Step((PrepareDaemonSet(),), (event,))
    # A new order first: if the label is lost, the next plan does both again; if the order is lost, neither is done.
    renewed = order(s, ctx, Rung.SERVING, within_s=ctx.deadline_s[Rung.SOLE])
    event = Event(
        Reason.DRAINED, "probes passed through eBPF, kube-proxy is sent away by the node's label", s.name
    )
    return Step((renewed, DrainKubeProxy(s.name)), (event,))


def _hold(s: Standing, ctx: Context) -> Step:
    if s.node.drained:
        event = Event(
            Reason.UNDRAINED,
            "a Service asks for what this node cannot serve, so kube-proxy returns to it",
            s.name,
        )
        return Step((order(s, ctx, Rung.SERVING), UndrainKubeProxy(s.name)), (event,))
    block = gates.first((gates.kube_proxy_serves(s), gates.soaked(s, ctx.soak_s, ctx.now)))
    if block is not None:
        return Step((), (), block)
    return Step((order(s, ctx, Rung.SERVING, soak_passed=ctx.now),))


def _at_sole(s: Standing, ctx: Context) -> Step:
    block = soak_gate(s, ctx)
    if block is not None and block.kind is Kind.FAIL:
        return Step((), (), block)
    if ctx.stop is not None:
        return _stopped(s, ctx)
    if not s.node.drained and ctx.daemonset.in_force:
        return drain_again(s)
    if block is not None:
        return Step((), (), block)
    event = Event(Reason.NODE_MIGRATED, f"migrated: healthy on {s.reached} for {ctx.soak_s:g} s", s.name)
    return Step((order(s, ctx, Rung.SOLE, soak_passed=ctx.now),), (event,))


def drain_again(s: Standing) -> Step:
    """Somebody has taken the label off a node that has only us."""
    event = Event(Reason.DRAINED, "the label was gone: kube-proxy is sent away again", s.name, warning=True)
    return Step((DrainKubeProxy(s.name),), (event,))


def _climb_again(s: Standing, ctx: Context) -> Step:
    # The order stays as it is: the agent of a rebooted node climbs back to it by itself, and is the only one there.
    if ctx.stop is not None:
        return _stopped(s, ctx)
    if s.wanted is Rung.SOLE:
        if not s.node.drained and ctx.daemonset.in_force:
            return drain_again(s)
        if (block := gates.kube_proxy_gone(s)) is not None:
            return Step((), (), block)
    event = Event(
        Reason.NODE_FELL,
        f"had passed its soak on {s.wanted} and now stands on {s.reached}",
        s.name,
        warning=True,
    )
    return Step((order(s, ctx, s.wanted),), (event,))


def _go(s: Standing, ctx: Context, block: Block | None, rung: Rung, why: str) -> Step:
    if block is not None:
        return Step((), (), block)
    return _stopped(s, ctx) if ctx.stop is not None else move(s, ctx, rung, why)


def _stopped(s: Standing, ctx: Context) -> Step:
    assert ctx.stop is not None  # noqa: S101
    return Step((), (), Block(Kind.LINE, ctx.stop.reason, s.name, "its next step", ctx.stop.message))
