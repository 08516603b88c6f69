"""Each gate lets a healthy node through, and says of an unhealthy one which node, what was expected and what was seen."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from handover_api.base import Feature, Rung
from handover_api.nodemigration import (
    AgentFacts,
    Fault,
    KernelFacts,
    KubeProxyFacts,
    Parity,
    ProbeFailure,
    ProbeResult,
    Probes,
    ProxyMode,
)
from handover_operator import bypassed, gates
from handover_operator.climb import serving_gate, shadow_gate, soak_gate, start_gate
from handover_operator.facts import DaemonSetFacts, PodFacts
from handover_operator.gates import Block, Kind
from handover_operator.orders import context
from handover_operator.reasons import Reason
from handover_operator.standing import LOST_AFTER_S, STALE_AFTER_S, Standing, stand

from .healthy import NOW, ago, migration, node, standing, status
from .sim import FIREWALL

pytestmark = pytest.mark.unit

CTX = context(migration(rollout={"soak": "10s"}), DaemonSetFacts(), NOW)
FAULT = Fault(reason="LoaderFailed", message="clang says no", since=ago(30))
FAILED = [ProbeFailure(service="shop/cart", address="10.96.7.7:80", error="refused")]
POD = PodFacts("kube-proxy-n1", True)


def probed(failures: int, *, path: str = "ebpf", at_s: float = 1, baseline: int = 1) -> Probes:
    """A round of 50 probes."""
    return Probes(
        baseline=ProbeResult(at=ago(60), path="kube-proxy", attempts=50, failures=baseline),
        latest=ProbeResult(
            at=ago(at_s), path=path, attempts=50, failures=failures, failed=FAILED if failures else []
        ),
    )


@pytest.mark.parametrize(
    ("rung", "gate"),
    [
        (Rung.STANDBY, lambda s: start_gate(s, CTX)),
        (Rung.SHADOW, lambda s: shadow_gate(s, CTX)),
        (Rung.SERVING, lambda s: serving_gate(s, CTX)),
        (Rung.SOLE, lambda s: soak_gate(s, CTX)),
    ],
)
def test_a_healthy_node_passes(rung: Rung, gate: Callable[[Standing], Block | None]) -> None:
    assert gate(standing(rung)) is None


CASES: list[tuple[str, Callable[[Standing], Block | None], Standing, Kind, Reason, str]] = [
    (
        "an agent that has not looked for rules before DNAT",
        lambda s: bypassed.gate(s, ()),
        standing(says=status(bypassed=None)),
        Kind.WAIT,
        Reason.AGENT_NOT_READY,
        "it has not yet",
    ),
    (
        "a firewall before DNAT",
        lambda s: bypassed.gate(s, (Feature.NODE_PORT,)),
        standing(says=status(bypassed=list(FIREWALL))),
        Kind.REFUSE,
        Reason.RULES_BYPASSED,
        "iptables-nft ipv4 raw, PREROUTING: ! -s 10.0.0.0/8 -p tcp -m tcp --dport 30000:32767 -j DROP",
    ),
    (
        "more rules than are told",
        lambda s: bypassed.gate(s, ()),
        standing(says=status(bypassed=list(FIREWALL) * 5)),
        Kind.REFUSE,
        Reason.RULES_BYPASSED,
        "and 2 more",
    ),
    (
        "a node without a NodeMigration",
        gates.fresh,
        standing(migration=None),
        Kind.WAIT,
        Reason.AGENT_NOT_READY,
        "no NodeMigration yet",
    ),
    (
        "an agent that never reported",
        gates.fresh,
        standing(says=status(heartbeat=None), agent=None),
        Kind.WAIT,
        Reason.AGENT_NOT_READY,
        "no agent pod on the node",
    ),
    (
        "a heartbeat just too old",
        gates.fresh,
        standing(says=status(heartbeat=ago(STALE_AFTER_S + 1))),
        Kind.WAIT,
        Reason.FACTS_STALE,
        "is stale",
    ),
    (
        "a heartbeat long too old",
        gates.fresh,
        standing(says=status(heartbeat=ago(LOST_AFTER_S + 1))),
        Kind.WAIT,
        Reason.AGENT_LOST,
        "kubectl -n handover-system get pods",
    ),
    (
        "an agent pod that is not Ready",
        gates.agent_ready,
        standing(agent=PodFacts("agent-x", False)),
        Kind.WAIT,
        Reason.AGENT_NOT_READY,
        "agent pod agent-x not Ready",
    ),
    (
        "an agent of another release",
        gates.api_version,
        standing(says=status(agent=AgentFacts(version="0.0.9", api_version="handover.dev/v1alpha0"))),
        Kind.REFUSE,
        Reason.AGENT_API_VERSION,
        "speaks handover.dev/v1alpha0 (agent 0.0.9)",
    ),
    (
        "a node that is not Ready",
        gates.node_ready,
        standing(ready=False),
        Kind.WAIT,
        Reason.NODE_NOT_READY,
        "not Ready",
    ),
    (
        "a kernel without hooks",
        gates.kernel,
        standing(says=status(kernel=KernelFacts(release="4.19", missing=["cgroup/sock_release"]))),
        Kind.REFUSE,
        Reason.KERNEL_TOO_OLD,
        "4.19 lacks cgroup/sock_release",
    ),
    (
        "IPVS",
        gates.mode,
        standing(says=status(kube_proxy=KubeProxyFacts(mode=ProxyMode.IPVS, running=True))),
        Kind.REFUSE,
        Reason.MODE_UNSUPPORTED,
        "mode ipvs",
    ),
    (
        "no rules at all",
        gates.mode,
        standing(says=status(kube_proxy=KubeProxyFacts(running=True))),
        Kind.WAIT,
        Reason.MODE_UNKNOWN,
        "no rules of kube-proxy's at all",
    ),
    (
        "no kube-proxy pod",
        gates.kube_proxy_serves,
        standing(kube_proxy=()),
        Kind.WAIT,
        Reason.KUBE_PROXY_NOT_READY,
        "no kube-proxy pod",
    ),
    (
        "a kube-proxy pod about to leave",
        gates.kube_proxy_serves,
        standing(kube_proxy=(PodFacts("kp", True, terminating=True),)),
        Kind.WAIT,
        Reason.KUBE_PROXY_NOT_READY,
        "pod kp terminating",
    ),
    (
        "a pod, but the agent sees none",
        gates.kube_proxy_serves,
        standing(says=status(kube_proxy=KubeProxyFacts(mode=ProxyMode.IPTABLES))),
        Kind.WAIT,
        Reason.KUBE_PROXY_NOT_READY,
        "the agent sees no kube-proxy",
    ),
    (
        "a kube-proxy pod that should be gone",
        gates.kube_proxy_gone,
        standing(Rung.SOLE, kube_proxy=(POD,)),
        Kind.WAIT,
        Reason.KUBE_PROXY_STILL_RUNNING,
        "pod kube-proxy-n1 Ready",
    ),
    (
        "a kube-proxy without a pod",
        gates.kube_proxy_gone,
        standing(Rung.SERVING, kube_proxy=()),
        Kind.WAIT,
        Reason.KUBE_PROXY_STILL_RUNNING,
        "a static pod, or another process on port 10256?",
    ),
    (
        "no snapshot",
        gates.snapshot,
        standing(Rung.SHADOW, says=status(Rung.SHADOW, snapshot="")),
        Kind.WAIT,
        Reason.NO_SNAPSHOT,
        "none yet",
    ),
    (
        "differences",
        gates.parity,
        standing(says=status(parity=Parity(checked_at=NOW, differences=["10.96.0.1:443 missing", "b"]))),
        Kind.WAIT,
        Reason.PARITY_NOT_IN_SYNC,
        "2 differences, the first: 10.96.0.1:443 missing",
    ),
    (
        "nothing compared yet",
        gates.parity,
        standing(says=status(parity=Parity())),
        Kind.WAIT,
        Reason.PARITY_NOT_IN_SYNC,
        "not compared yet",
    ),
    (
        "no baseline",
        gates.baseline,
        standing(says=status(probes=Probes())),
        Kind.WAIT,
        Reason.PROBES_MISSING,
        "none yet",
    ),
    (
        "one failure more than the baseline",
        lambda s: gates.probes(s, 0.0),
        standing(Rung.SERVING, says=status(Rung.SERVING, probes=probed(2))),
        Kind.FAIL,
        Reason.PROBES_FAILED,
        "2 of 50 failed at 2026-01-01T00:09:59Z: shop/cart at 10.96.7.7:80: refused",
    ),
    (
        "probes from before the rung",
        lambda s: gates.probes(s, 0.0),
        standing(Rung.SERVING, says=status(Rung.SERVING, probes=probed(0, at_s=40))),
        Kind.WAIT,
        Reason.PROBES_MISSING,
        "the last one through ebpf at 2026-01-01T00:09:20Z",
    ),
    (
        "probes through kube-proxy",
        lambda s: gates.probes(s, 0.0),
        standing(Rung.SERVING, says=status(Rung.SERVING, probes=probed(0, path="kube-proxy"))),
        Kind.WAIT,
        Reason.PROBES_MISSING,
        "through kube-proxy",
    ),
    (
        "datapath errors",
        gates.datapath_errors,
        standing(says=status(datapath_errors=3)),
        Kind.FAIL,
        Reason.DATAPATH_ERRORS,
        "handover-agent check",
    ),
    (
        "a fault",
        gates.no_fault,
        standing(says=status(fault=FAULT)),
        Kind.WAIT,
        Reason.AGENT_FAULT,
        "LoaderFailed since 2026-01-01T00:09:30Z: clang says no",
    ),
    (
        "a fault that is final",
        gates.no_fault,
        standing(says=status(fault=Fault(reason="DeadManTripped", message="m", since=NOW))),
        Kind.FAIL,
        Reason.AGENT_FAULT,
        "DeadManTripped",
    ),
    (
        "a rung that is not reached",
        gates.settled,
        standing(wanted=Rung.SHADOW, says=status(step="filling the maps")),
        Kind.WAIT,
        Reason.RUNG_NOT_REACHED,
        "expected rung Shadow by 2026-01-01T00:11:00Z; seen: rung Standby, filling the maps",
    ),
    (
        "a rung that is not reached for a reason",
        gates.settled,
        standing(wanted=Rung.SHADOW, says=status(fault=FAULT)),
        Kind.WAIT,
        Reason.AGENT_FAULT,
        "LoaderFailed: clang says no",
    ),
    (
        "an order that the agent has not seen",
        gates.settled,
        standing(says=status(observed_generation=0)),
        Kind.WAIT,
        Reason.RUNG_NOT_REACHED,
        "not yet seen by the agent",
    ),
    (
        "a soak that is not over",
        lambda s: gates.soaked(s, 60, NOW),
        standing(Rung.SOLE),
        Kind.WAIT,
        Reason.SOAKING,
        "expected Sole until 2026-01-01T00:10:40Z",
    ),
]


@pytest.mark.parametrize(
    ("what", "gate", "s", "kind", "reason", "text"), CASES, ids=[case[0] for case in CASES]
)
def test_a_gate_names_the_node_what_was_expected_and_what_was_seen(
    what: str, gate: Callable[[Standing], Block | None], s: Standing, kind: Kind, reason: Reason, text: str
) -> None:
    block = gate(s)
    assert block is not None, what
    assert (block.kind, block.reason, block.node) == (kind, reason, "n1")
    assert block.message.startswith("node n1: expected ")
    assert text in block.message


@pytest.mark.parametrize(
    ("failures", "allowed", "passes"), [(1, 0.0, True), (2, 0.0, False), (3, 0.04, True), (4, 0.04, False)]
)
def test_probes_may_fail_as_often_as_the_baseline_and_the_allowed_share(
    failures: int, allowed: float, passes: bool
) -> None:
    s = standing(Rung.SERVING, says=status(Rung.SERVING, probes=probed(failures)))
    assert (gates.probes(s, allowed) is None) is passes


def test_a_cluster_with_nothing_to_probe_passes() -> None:
    nothing = Probes(
        baseline=ProbeResult(at=ago(60), path="kube-proxy"), latest=ProbeResult(at=ago(1), path="ebpf")
    )
    assert gates.probes(standing(Rung.SERVING, says=status(Rung.SERVING, probes=nothing)), 0.0) is None


def test_a_drained_node_needs_no_parity_with_rules_that_nobody_updates() -> None:
    ageing = status(Rung.SERVING, parity=Parity(checked_at=NOW, differences=["x"]))
    assert serving_gate(standing(Rung.SERVING, says=ageing), CTX) is not None
    assert serving_gate(standing(Rung.SERVING, says=ageing, drained=True), CTX) is None


def test_a_fault_during_the_soak_is_waited_for_a_minute_and_has_then_failed() -> None:
    for age_s, kind in ((30, Kind.WAIT), (61, Kind.FAIL)):
        fault = Fault(reason="X", message="m", since=ago(age_s))
        block = soak_gate(standing(Rung.SOLE, says=status(Rung.SOLE, fault=fault)), CTX)
        assert block is not None
        assert block.kind is kind


def test_a_message_of_stale_facts_does_not_change_every_second() -> None:
    facts = node(says=status(heartbeat=ago(50)))
    assert gates.fresh(stand(facts, NOW)) == gates.fresh(stand(facts, NOW + timedelta(seconds=7)))


def test_rules_before_dnat_are_no_matter_once_acknowledged() -> None:
    for found in (None, list(FIREWALL)):
        s = standing(says=status(bypassed=found))
        assert bypassed.gate(s, ()) is not None
        assert bypassed.gate(s, (Feature.RULES_BEFORE_DNAT,)) is None
