"""Everything that can be known to go wrong before anything on any node is changed.

All checks run every time and all problems are told at once: a person should not have to fix them one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handover_api.base import Rung

from handover_operator import gates
from handover_operator.climb import start_gate
from handover_operator.facts import OwnerFacts, OwnerKind
from handover_operator.gates import Block, Kind
from handover_operator.orders import Context
from handover_operator.reasons import Reason
from handover_operator.standing import Standing

YIELDS_ANNOTATION = "handover.dev/owner-yields"

IGNORE_DIFFERENCES = """\
ignoreDifferences:
- group: apps
  kind: DaemonSet
  namespace: {namespace}
  name: {name}
  jsonPointers: [/spec/updateStrategy, /spec/template/spec/affinity, /metadata/annotations/handover.dev~1original]
(with syncOptions: [RespectIgnoreDifferences=true]; for Flux, annotate the DaemonSet in Git with \
kustomize.toolkit.fluxcd.io/ssa: IfNotPresent)"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a migration does not begin."""

    reason: Reason
    message: str
    needs_person: bool


def daemonset_name(ctx: Context) -> str:
    """namespace/name of kube-proxy's DaemonSet."""
    return f"{ctx.kube_proxy.namespace}/{ctx.kube_proxy.name}"


def ignore_differences(ctx: Context) -> str:
    """What a GitOps tool has to be told so that it leaves our fields alone."""
    return IGNORE_DIFFERENCES.format(namespace=ctx.kube_proxy.namespace, name=ctx.kube_proxy.name)


def cluster_problems(ctx: Context, selected: Sequence[Standing]) -> list[Problem]:
    """What the cluster itself, without any agent, says against beginning."""
    problems: list[Problem] = []
    if not ctx.daemonset.exists:
        problems.append(not_found(ctx))
    if not selected:
        problems.append(no_nodes(ctx))
    problems += [_would_fight(ctx, owner) for owner in ctx.daemonset.owners if not owner.yields]
    return problems


def no_nodes(ctx: Context) -> Problem:
    """There is nothing to migrate."""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(ctx.migration.spec.node_selector.items()))
    seen = f"no node has the labels {labels}" if labels else "there are no nodes"
    text = f"spec.nodeSelector matches nothing: {seen}. Correct it, or label the nodes."
    return Problem(Reason.NO_NODES_MATCH, text, True)


def not_found(ctx: Context) -> Problem:
    """There is no kube-proxy to take over from."""
    return Problem(
        Reason.KUBE_PROXY_NOT_FOUND,
        f"there is no DaemonSet {daemonset_name(ctx)}. Set spec.kubeProxy to the namespace and name of the DaemonSet"
        " that runs kube-proxy.",
        True,
    )


def _would_fight(ctx: Context, owner: OwnerFacts) -> Problem:
    text = f"DaemonSet {daemonset_name(ctx)} belongs to {owner.name} ({owner.evidence}), which would take back what"
    text += " Handover changes on it. "
    if owner.kind in (OwnerKind.ARGO_CD, OwnerKind.FLUX):
        text += f"Tell it to leave these fields alone:\n{ignore_differences(ctx)}\nand then say so"
    else:
        text += (
            "Let kube-proxy be managed by yourself instead, or, if this owner leaves changes alone, say so"
        )
    return Problem(
        Reason.OWNER_WOULD_FIGHT,
        f'{text} with the annotation {YIELDS_ANNOTATION}: "true" on the DaemonSet.',
        True,
    )


def node_problems(ctx: Context, selected: Sequence[Standing]) -> list[Problem]:
    """What the nodes and their agents say against beginning. Nodes that are not Ready are left for later."""
    ready = [s for s in selected if s.node.ready]
    if not ready:
        text = f"none of the {len(selected)} selected nodes is Ready; the migration begins when one is"
        return [Problem(Reason.NODE_NOT_READY, text, False)]
    by_reason: dict[Reason, list[tuple[Standing, Block]]] = {}
    for s in ready:
        block = beginning(s, ctx)
        if block is not None:
            by_reason.setdefault(block.reason, []).append((s, block))
    problems = [_problem(ctx, reason, found) for reason, found in by_reason.items()]
    return sorted(problems, key=lambda problem: not problem.needs_person)


def beginning(s: Standing, ctx: Context) -> Block | None:
    """Why this node cannot begin, with kube-proxy first: without it nobody serves the node."""
    if s.node.migration is None and not s.node.kube_proxy_serves:
        return Block(
            Kind.WAIT,
            Reason.KUBE_PROXY_NOT_READY,
            s.name,
            "kube-proxy running",
            gates.kube_proxy_pods(s),
            "" if s.node.kube_proxy else _NEVER_HAS_ONE,
        )
    return start_gate(s, ctx)


_NEVER_HAS_ONE = (
    "A node that never has one (another system, a virtual node) is left out with spec.nodeSelector."
)


def _problem(ctx: Context, reason: Reason, found: list[tuple[Standing, Block]]) -> Problem:
    refused = any(block.kind is Kind.REFUSE for _, block in found)
    late = [due for s, _ in found if (due := _due(ctx, s)) is not None and ctx.now > due]
    names = ", ".join(s.name for s, _ in found[:20]) + (
        f" and {len(found) - 20} more" if len(found) > 20 else ""
    )
    text = found[0][1].message
    if len(found) > 1:
        text = f"{len(found)} nodes ({names}); the first: {text}"
    if late and not refused:
        text += f" (waited until {gates.stamp(min(late))})"
    return Problem(reason, text, refused or bool(late))


def _due(ctx: Context, s: Standing) -> datetime | None:
    """Until when this is a matter of patience. A node without kube-proxy gets no NodeMigration, which has a deadline."""
    if s.node.migration is not None or s.node.kube_proxy_serves:
        return s.spec.deadline
    return ctx.migration.created + timedelta(seconds=ctx.deadline_s[Rung.STANDBY])
