"""The gates: what has to be true on a node before its next step, and what to tell a person while it is not.

Each gate is a pure function from a node's standing to a `Block` or None. A block names the node, what was expected
and what was seen; its kind says what happens next: it heals by itself, it has failed, or a person is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from handover_api.base import API_VERSION, Rung
from handover_api.nodemigration import Fault, ProbeResult, ProxyMode

from handover_operator.reasons import Reason
from handover_operator.standing import STALE_AFTER_S, Standing

SUPPORTED_MODES = (ProxyMode.IPTABLES, ProxyMode.NFTABLES)
FAULT_PATIENCE_S = 60.0
"""So long may an agent's fault last during a soak before the soak has failed."""
FATAL_FAULTS = ("DeadManTripped",)
"""Faults that the agent cannot get over without being taken down first."""
SERVED_BY_US = "ebpf"  # a probe's path once we are attached


class Kind(Enum):
    WAIT = "wait"  # it heals by itself, until the rung's deadline
    FAIL = "fail"  # measured and not good enough
    REFUSE = "refuse"  # it will not heal without a person
    LINE = "line"  # nothing wrong with this node: the line waits


@dataclass(frozen=True, slots=True)
class Block:
    """Why a node's next step is not taken."""

    kind: Kind
    reason: Reason
    node: str
    expected: str
    seen: str
    advice: str = ""

    @property
    def message(self) -> str:
        """One sentence for a person, with what to do when there is something to do."""
        text = f"node {self.node}: expected {self.expected}; seen: {self.seen}"
        return f"{text}. {self.advice}" if self.advice else text


def first(blocks: Iterable[Block | None]) -> Block | None:
    """The first that blocks."""
    return next((block for block in blocks if block is not None), None)


def stamp(at: datetime | None) -> str:
    """A time as Kubernetes writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else "never"


def fresh(s: Standing) -> Block | None:
    """The agent has been heard of lately. Without that nothing else that it said counts."""
    if s.fresh:
        return None
    if not s.known:
        seen = "its NodeMigration is being deleted" if s.node.migration else "no NodeMigration yet"
        return Block(Kind.WAIT, Reason.AGENT_NOT_READY, s.name, "a report of its agent", seen)
    pod = _agent_pod(s)
    if not s.reported:
        return Block(
            Kind.WAIT,
            Reason.AGENT_NOT_READY,
            s.name,
            "a report of its agent",
            f"none so far, {pod}",
            _LOOK_AT_AGENT,
        )
    return Block(
        Kind.WAIT,
        Reason.AGENT_LOST if s.lost else Reason.FACTS_STALE,
        s.name,
        f"a heartbeat of its agent in the last {STALE_AFTER_S:.0f} s",
        # no age: the message would be another one every second
        f"the last one at {stamp(s.status.heartbeat)}; what it said then (rung {s.reached}) is stale; {pod}",
        _LOOK_AT_AGENT + " What the node's datapath holds goes on serving meanwhile." if s.lost else "",
    )


def agent_ready(s: Standing) -> Block | None:
    """The agent's pod is Ready."""
    if s.node.agent is not None and s.node.agent.serves:
        return None
    return Block(
        Kind.WAIT, Reason.AGENT_NOT_READY, s.name, "a Ready handover-agent pod", _agent_pod(s), _LOOK_AT_AGENT
    )


def api_version(s: Standing) -> Block | None:
    """The agent understands what this operator would write."""
    spoken = s.status.agent.api_version
    if spoken == API_VERSION:
        return None
    return Block(
        Kind.REFUSE,
        Reason.AGENT_API_VERSION,
        s.name,
        f"an agent that speaks {API_VERSION}",
        f"it speaks {spoken or 'no version that it names'} (agent {s.status.agent.version or 'unknown'})",
        "Bring operator and agents to the same release.",
    )


def node_ready(s: Standing) -> Block | None:
    """The node is Ready."""
    if s.node.ready:
        return None
    return Block(Kind.WAIT, Reason.NODE_NOT_READY, s.name, "a Ready node", "it is not Ready")


def kernel(s: Standing) -> Block | None:
    """The kernel has every hook that the datapath attaches to."""
    missing = s.status.kernel.missing
    if not missing:
        return None
    return Block(
        Kind.REFUSE,
        Reason.KERNEL_TOO_OLD,
        s.name,
        "a kernel with all the hooks of the datapath",
        f"{s.status.kernel.release or 'its kernel'} lacks {', '.join(missing)}",
        "Give the node a newer kernel, or leave it out with spec.nodeSelector.",
    )


def mode(s: Standing) -> Block | None:
    """kube-proxy's rules on the node are of a kind that can be taken away and put back."""
    found = s.status.kube_proxy.mode
    if found in SUPPORTED_MODES:
        return None
    expected = f"kube-proxy in mode {' or '.join(SUPPORTED_MODES)}"
    if found is ProxyMode.NONE:
        return Block(Kind.WAIT, Reason.MODE_UNKNOWN, s.name, expected, "no rules of kube-proxy's at all")
    return Block(
        Kind.REFUSE,
        Reason.MODE_UNSUPPORTED,
        s.name,
        expected,
        f"mode {found}",
        "Change kube-proxy's mode, or leave the node out with spec.nodeSelector.",
    )


def kube_proxy_serves(s: Standing) -> Block | None:
    """kube-proxy runs on the node, by its pod and by what the agent sees."""
    expected = "kube-proxy running"
    if not s.node.kube_proxy_serves:
        return Block(Kind.WAIT, Reason.KUBE_PROXY_NOT_READY, s.name, expected, kube_proxy_pods(s))
    if not s.status.kube_proxy.running:
        seen = f"{kube_proxy_pods(s)}, but the agent sees no kube-proxy on the node"
        return Block(Kind.WAIT, Reason.KUBE_PROXY_NOT_READY, s.name, expected, seen)
    return None


def kube_proxy_gone(s: Standing) -> Block | None:
    """No kube-proxy is on the node: no pod of any kind, and the agent sees none."""
    expected = "kube-proxy gone from the node"
    if s.node.kube_proxy:
        return Block(Kind.WAIT, Reason.KUBE_PROXY_STILL_RUNNING, s.name, expected, kube_proxy_pods(s))
    if s.status.kube_proxy.running:
        seen = "no pod, but the agent sees one running: a static pod, or another process on port 10256?"
        return Block(Kind.WAIT, Reason.KUBE_PROXY_STILL_RUNNING, s.name, expected, seen)
    return None


def snapshot(s: Standing) -> Block | None:
    """kube-proxy's rules are on the node's disk, read back."""
    if s.status.snapshot:
        return None
    return Block(
        Kind.WAIT, Reason.NO_SNAPSHOT, s.name, "a snapshot of kube-proxy's rules on its disk", "none yet"
    )


def parity(s: Standing) -> Block | None:
    """What the maps hold, what the API asks for and what kube-proxy's rules do are the same."""
    facts = s.status.parity
    if facts.in_sync:
        return None
    if facts.checked_at is None:
        seen = "not compared yet"
    elif facts.differences:
        seen = f"{len(facts.differences)} differences, the first: {facts.differences[0]}"
    else:
        seen = f"{facts.frontends} frontends of ours, {facts.kube_proxy_frontends} of kube-proxy's"
    return Block(
        Kind.WAIT, Reason.PARITY_NOT_IN_SYNC, s.name, "parity with the API and with kube-proxy's rules", seen
    )


def baseline(s: Standing) -> Block | None:
    """There is something to compare later probes with."""
    if s.status.probes.baseline is not None:
        return None
    return Block(Kind.WAIT, Reason.PROBES_MISSING, s.name, "a round of probes through kube-proxy", "none yet")


def probes(s: Standing, failure_ratio: float) -> Block | None:
    """Probes through our datapath fail no more often than the baseline did, and the allowed share above it."""
    before, latest = s.status.probes.baseline, s.status.probes.latest
    since = s.status.rung_since
    expected = f"a round of probes through eBPF after {stamp(since)}"
    if latest is None or latest.path != SERVED_BY_US or (since is not None and latest.at < since):
        seen = f"the last one through {latest.path} at {stamp(latest.at)}" if latest else "none yet"
        return Block(Kind.WAIT, Reason.PROBES_MISSING, s.name, expected, seen)
    allowed = ratio(before) + failure_ratio
    if ratio(latest) <= allowed + 1e-9:
        return None
    failed = latest.failed[0] if latest.failed else None
    example = f": {failed.service} at {failed.address}: {failed.error}" if failed else ""
    return Block(
        Kind.FAIL,
        Reason.PROBES_FAILED,
        s.name,
        f"at most {allowed:.1%} failed probes (baseline {ratio(before):.1%} + {failure_ratio:.1%})",
        f"{latest.failures} of {latest.attempts} failed at {stamp(latest.at)}{example}",
    )


def ratio(result: ProbeResult | None) -> float:
    """The share of failed probes; 0 when nothing was probed."""
    return result.failures / result.attempts if result is not None and result.attempts else 0.0


def datapath_errors(s: Standing) -> Block | None:
    """The datapath's error counters are at zero."""
    if not s.status.datapath_errors:
        return None
    return Block(
        Kind.FAIL,
        Reason.DATAPATH_ERRORS,
        s.name,
        "no errors of the datapath",
        f"{s.status.datapath_errors} since it was loaded",
        f"`kubectl exec` into the agent's pod on {s.name} and `handover-agent check` tells which.",
    )


def no_fault(s: Standing) -> Block | None:
    """The agent is not hindered by anything."""
    fault = s.status.fault
    if fault is None:
        return None
    seen = f"{fault.reason} since {stamp(fault.since)}: {fault.message}"
    return Block(_kind(fault), Reason.AGENT_FAULT, s.name, "an agent without a fault", seen)


def settled(s: Standing) -> Block | None:
    """The agent says that the wanted rung is reached, and says it about the latest order."""
    if s.settled:
        return None
    expected = f"rung {s.wanted} by {stamp(s.spec.deadline)}"
    seen = f"rung {s.reached}" + ("" if s.observed else ", the last order not yet seen by the agent")
    if s.status.step:
        seen += f", {s.status.step}"
    if s.wanted is Rung.SOLE and s.node.kube_proxy:
        seen += f", {kube_proxy_pods(s)}"
    fault = s.status.fault
    if fault is not None:
        return Block(
            _kind(fault), Reason.AGENT_FAULT, s.name, expected, f"{seen}; {fault.reason}: {fault.message}"
        )
    return Block(Kind.WAIT, Reason.RUNG_NOT_REACHED, s.name, expected, seen)


def soaked(s: Standing, soak_s: float, now: datetime) -> Block | None:
    """The node has been on its rung for so long."""
    since = s.status.rung_since
    if since is None:
        return Block(
            Kind.WAIT, Reason.SOAKING, s.name, "the time since when it is on its rung", "none reported"
        )
    ends = since + timedelta(seconds=soak_s)
    if now >= ends:
        return None
    return Block(
        Kind.WAIT, Reason.SOAKING, s.name, f"{s.reached} until {stamp(ends)}", f"on it since {stamp(since)}"
    )


def kube_proxy_pods(s: Standing) -> str:
    """kube-proxy's pods of a node in a few words."""
    if not s.node.kube_proxy:
        return "no kube-proxy pod"
    return ", ".join(
        f"pod {pod.name} {'terminating' if pod.terminating else 'Ready' if pod.ready else 'not Ready'}"
        for pod in s.node.kube_proxy
    )


_LOOK_AT_AGENT = "See `kubectl -n handover-system get pods -o wide` and that pod's log."


def _kind(fault: Fault) -> Kind:
    return Kind.FAIL if fault.reason in FATAL_FAULTS else Kind.WAIT


def _agent_pod(s: Standing) -> str:
    pod = s.node.agent
    if pod is None:
        return "no agent pod on the node"
    return (
        f"agent pod {pod.name} {'terminating' if pod.terminating else 'Ready' if pod.ready else 'not Ready'}"
    )
