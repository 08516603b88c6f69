"""A cluster in miniature: API objects, kube-proxy's DaemonSet, and an agent on every node that does what it is told.

The agents here are naive on purpose. A real agent checks for itself that kube-proxy is there before it lets go; this
one does not (but for the flush, which it refuses while a kube-proxy pod is there), so that a mistake of the planner's is seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from handover_api.base import API_VERSION, Feature, Rung
from handover_api.nodemigration import (
    AgentFacts,
    BypassedRule,
    Fault,
    KernelFacts,
    KubeProxyFacts,
    NodeMigrationSpec,
    NodeMigrationStatus,
    Parity,
    ProbeFailure,
    ProbeResult,
    Probes,
    ProxyMode,
    Unserved,
)
from handover_api.proxymigration import ProxyMigrationSpec, ProxyMigrationStatus
from handover_operator import actions as do
from handover_operator.facts import (
    DaemonSetFacts,
    MigrationFacts,
    NodeFacts,
    NodeMigrationFacts,
    OwnerFacts,
    PodFacts,
)
from handover_operator.plan import Plan, plan
from handover_operator.summarize import summarize

_LADDER = tuple(Rung)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = ProbeResult(at=EPOCH, path="kube-proxy", attempts=50)
BAD = (ProbeFailure(service="shop/cart", address="10.96.7.7:80", error="connection refused"),)
FIREWALL = (
    BypassedRule(
        place="iptables-nft ipv4 raw",
        rule="PREROUTING: ! -s 10.0.0.0/8 -p tcp -m tcp --dport 30000:32767 -j DROP",
    ),
)
OUTSIDE = (Unserved(feature=Feature.NODE_PORT, service="shop/web", message="NodePort 30080 from outside"),)


def above(rung: Rung) -> Rung:
    """The next rung up; Sole stays Sole."""
    return _LADDER[min(rung.height + 1, len(_LADDER) - 1)]


def below(rung: Rung) -> Rung:
    """The next rung down; Standby stays Standby."""
    return _LADDER[max(rung.height - 1, 0)]


@dataclass
class Stored:
    """A NodeMigration in the API."""

    uid: str
    generation: int
    spec: NodeMigrationSpec
    status: NodeMigrationStatus = field(default_factory=NodeMigrationStatus)


@dataclass
class Machine:
    """One node: what really is on it, and what its agent has said about it."""

    name: str
    uid: str
    zone: str = ""
    exists: bool = True
    ready: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    drained: bool = False
    # kube-proxy
    pod: str = "running"  # none, starting, running, terminating
    rules: bool = True
    static_pod: bool = False
    # agent and datapath
    agent: bool = True  # its pod is there and Ready
    stuck: bool = False  # cannot take a step
    rung: Rung = Rung.STANDBY
    rung_since: datetime = EPOCH
    accepting: bool = False
    seen: tuple[int, NodeMigrationSpec, str] | None = None  # the order that the agent knows of
    # what the agent will say
    mis_serves: bool = False
    in_sync: bool = True
    errors: int = 0
    disk_full: bool = False  # no snapshot can be kept
    missing_hooks: tuple[str, ...] = ()
    mode: ProxyMode = ProxyMode.IPTABLES
    api_version: str = API_VERSION
    bypassed: tuple[BypassedRule, ...] = ()
    baseline: ProbeResult | None = None
    rebooted: bool = False  # nobody serves until kube-proxy or the agent is back: not the planner's doing
    migration: Stored | None = None

    @property
    def served(self) -> bool:
        """Somebody serves new connections."""
        return self.accepting or (self.rules and (self.pod == "running" or not self.drained))


@dataclass
class Trace:
    """What the operator knew, decided and did, for whoever checks it."""

    migration: MigrationFacts
    nodes: list[NodeFacts]
    daemonset: DaemonSetFacts
    now: datetime
    plan: Plan
    failed: frozenset[str]  # what a status has ever said to have failed at this generation


@cache
def _agent(api_version: str) -> AgentFacts:
    return AgentFacts(version="1", api_version=api_version)


@cache
def _kernel(missing: tuple[str, ...]) -> KernelFacts:
    return KernelFacts(release="6.1", missing=list(missing))


@cache
def _kube_proxy(mode: ProxyMode, running: bool, rules: bool) -> KubeProxyFacts:
    return KubeProxyFacts(mode=mode, running=running, rules=5 if rules else 0)


class World:
    """The cluster. Every method is one thing that can happen."""

    def __init__(
        self,
        nodes: int,
        spec: ProxyMigrationSpec,
        *,
        zones: int = 1,
        watch: Callable[["World", Trace], None] | None = None,
    ) -> None:
        self.now = EPOCH
        self.machines = [
            Machine(f"n{i + 1:02}", f"uid-n{i + 1:02}", f"z{i % zones + 1}") for i in range(nodes)
        ]
        self.spec = spec
        self.generation = 1
        self.status = ProxyMigrationStatus()
        self.deleting = False
        self.finalizer = False
        self.exists = True
        self.older: str | None = None
        self.daemonset = True
        self.prepared = False
        self.in_force = False
        self.owners: tuple[OwnerFacts, ...] = ()
        self.unserved: tuple[Unserved, ...] = ()
        self.watch = watch
        self._uids = 0
        self._names = nodes
        self._failed: set[str] = set()
        self._failed_generation = 1

    # -- the operator ---------------------------------------------------------------------------------------------

    def observe(self) -> Trace:
        """Take the facts and plan on them."""
        migration = MigrationFacts(
            "main",
            "uid-main",
            self.generation,
            EPOCH,
            self.spec,
            self.status,
            deleting=self.deleting,
            finalizer=self.finalizer,
            older=self.older,
        )
        nodes = [self._facts(m) for m in self.machines if m.exists or m.migration]
        daemonset = DaemonSetFacts(self.daemonset, self.prepared, self.in_force, self.owners)
        self._forget_failures()
        made = plan(migration, nodes, daemonset, self.now)
        trace = Trace(migration, nodes, daemonset, self.now, made, frozenset(self._failed))
        if self.watch is not None:
            self.watch(self, trace)
        return trace

    def carry_out(self, trace: Trace, limit: int | None = None) -> bool:
        """Do what was planned, up to the first action that fails; with a limit the operator dies after so many."""
        for number, action in enumerate(trace.plan.actions):
            if limit is not None and number >= limit:
                return False
            if not self._do(action):
                return False
        if limit is None and self.exists:
            self.status = summarize(trace.plan, trace.migration, trace.now)
            if self.status.observed_generation == self.generation:
                self._failed |= set(self.status.failed_nodes)
        return True

    def operate(self) -> Trace:
        """One undisturbed pass of the operator's loop."""
        trace = self.observe()
        self.carry_out(trace)
        return trace

    def delete(self) -> None:
        """A person deletes the ProxyMigration."""
        self.deleting = True
        self.exists = self.finalizer

    def change(self, **changes: object) -> None:
        """A person changes the spec."""
        self.spec = self.spec.model_copy(update=changes)
        self.generation += 1

    # -- a node ---------------------------------------------------------------------------------------------------

    def kubelet(self, m: Machine) -> bool:
        """The DaemonSet's controller and the kubelet take one step with kube-proxy's pod. True if they did."""
        wanted = self.daemonset and m.exists and not (m.drained and self.in_force)
        moves = {
            ("none", True): "starting",
            ("starting", True): "running",
            ("running", False): "terminating",
            ("starting", False): "terminating",
            ("terminating", True): "none",
            ("terminating", False): "none",
        }
        after = moves.get((m.pod, wanted))
        if after is None:
            return False
        m.pod = after
        if after == "running":
            m.rules, m.rebooted = True, False
        return True

    def agent(self, m: Machine) -> bool:
        """The agent sees, takes one step, and says so. True if it took a step."""
        self.agent_sees(m)
        moved = self.agent_works(m)
        self.agent_reports(m)
        return moved

    def agent_sees(self, m: Machine) -> None:
        """The agent learns of its order as it is now."""
        if m.agent and m.exists:
            m.seen = (m.migration.generation, m.migration.spec, m.migration.uid) if m.migration else None

    def agent_works(self, m: Machine) -> bool:
        """The agent takes one step towards the order that it knows of."""
        if not m.agent or not m.exists or m.stuck or m.seen is None:
            return False
        _, spec, _ = m.seen
        if m.rung.height < spec.rung.height:
            return self._step_up(m)
        if m.rung.height > spec.rung.height:
            return self._step_down(m)
        return False

    def agent_reports(self, m: Machine) -> None:
        """The agent writes its status; the heartbeat is this too."""
        if not m.agent or not m.exists or m.migration is None or m.seen is None:
            return
        generation, _, uid = m.seen
        if uid != m.migration.uid:
            return
        attached = m.rung.height >= Rung.SERVING.height
        failing = m.mis_serves and attached
        m.migration.status = NodeMigrationStatus(
            observed_generation=generation,
            rung=m.rung,
            rung_since=m.rung_since,
            step="",
            heartbeat=self.now,
            agent=_agent(m.api_version),
            kernel=_kernel(m.missing_hooks),
            kube_proxy=_kube_proxy(m.mode, m.pod != "none" or m.static_pod, m.rules),
            parity=Parity(
                checked_at=self.now,
                in_sync=m.in_sync,
                frontends=3,
                backends=9,
                kube_proxy_frontends=3,
                differences=[] if m.in_sync else ["10.96.0.1:443 missing"],
            ),
            probes=Probes(
                baseline=m.baseline,
                latest=ProbeResult(
                    at=self.now,
                    path="ebpf" if attached else "kube-proxy",
                    attempts=50,
                    failures=12 if failing else 0,
                    failed=list(BAD) if failing else [],
                ),
            ),
            unserved=list(self.unserved),
            bypassed=list(m.bypassed),
            datapath_errors=m.errors,
            snapshot="abc" if m.rung is not Rung.STANDBY and not m.disk_full else "",
            fault=Fault(reason="Stuck", message="the loader fails", since=m.rung_since) if m.stuck else None,
        )

    def reboot(self, m: Machine) -> None:
        """The node comes back with nothing in its kernel."""
        m.rung, m.rung_since, m.accepting, m.rules = Rung.STANDBY, self.now, False, False
        m.baseline, m.seen, m.agent, m.rebooted = None, None, True, True
        m.pod = "none"

    def add(self) -> Machine:
        """A node joins."""
        self._names += 1
        name = f"n{self._names:02}"
        m = Machine(name, f"uid-{name}", self.machines[0].zone if self.machines else "z1")
        m.pod = "none"
        self.machines.append(m)
        return m

    def remove(self, m: Machine) -> None:
        """A node leaves; its NodeMigration stays."""
        m.exists = False

    def replace(self, m: Machine) -> None:
        """A new machine under an old name."""
        fresh = Machine(m.name, f"{m.uid}'", m.zone, pod="none", rules=False, rebooted=True)
        fresh.migration = m.migration
        self.machines[self.machines.index(m)] = fresh

    def heal(self) -> None:
        """Whatever was broken is mended."""
        self.daemonset = True
        self.unserved = ()
        for m in self.machines:
            m.ready = m.agent = m.in_sync = True
            m.stuck = m.mis_serves = m.static_pod = m.disk_full = False
            m.errors, m.bypassed = 0, ()

    def react(self, machines: list[Machine] | None = None) -> bool:
        """Everything but the operator takes one step, in the given order. True if anything moved."""
        moved = False
        for m in machines if machines is not None else self.machines:
            moved = self.kubelet(m) or moved
            moved = self.agent(m) or moved
        return moved

    def pass_time(self, seconds: float, *, beat: bool = True) -> None:
        """Time goes by; agents that live say so, unless nobody hears them."""
        self.now += timedelta(seconds=seconds)
        if beat:
            for m in self.machines:
                self.agent_reports(m)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _step_up(self, m: Machine) -> bool:
        to = above(m.rung)
        if to is Rung.SHADOW:
            m.baseline = GOOD
        elif to is Rung.SERVING:
            m.accepting, m.rebooted = True, False
        elif m.pod != "none" or m.static_pod:
            return False  # the agent's own check; the planner must never rely on it
        else:
            m.rules = False
        m.rung, m.rung_since = to, self.now
        return True

    def _step_down(self, m: Machine) -> bool:
        to = below(m.rung)
        if m.rung is Rung.SOLE:
            m.rules = True
        elif m.rung is Rung.SERVING:
            m.accepting = False
        else:
            m.baseline, m.errors = None, 0
        m.rung, m.rung_since = to, self.now
        return True

    def _forget_failures(self) -> None:
        """A new generation forgets failures, and so does a node that goes away or is left out."""
        if self._failed_generation != self.generation:
            self._failed_generation, self._failed = self.generation, set()
        wanted = self.spec.node_selector.items()
        self._failed &= {m.name for m in self.machines if m.exists and wanted <= m.labels.items()}

    def _facts(self, m: Machine) -> NodeFacts:
        pods: tuple[PodFacts, ...] = ()
        if m.exists and m.pod != "none":
            pods = (PodFacts(f"kube-proxy-{m.name}", m.pod != "starting", m.pod == "terminating"),)
        stored = m.migration
        return NodeFacts(
            m.name,
            m.uid,
            m.zone,
            m.ready,
            dict(m.labels),
            m.drained,
            pods,
            PodFacts(f"agent-{m.name}", True) if m.agent and m.exists else None,
            NodeMigrationFacts(stored.uid, stored.generation, stored.spec, stored.status) if stored else None,
            exists=m.exists,
        )

    def _do(self, action: do.Action) -> bool:
        match action:
            case do.AddFinalizer():
                self.finalizer = True
            case do.RemoveFinalizer():
                self.finalizer = False
                self.exists = not self.deleting
            case do.PrepareDaemonSet():
                self.prepared = self.in_force = True
            case do.RestoreDaemonSet():
                self.prepared = self.in_force = False
            case do.DrainKubeProxy(node):
                self._machine(node).drained = True
            case do.UndrainKubeProxy(node):
                self._machine(node).drained = False
            case do.EnsureNodeMigration(node, spec, uid):
                return self._ensure(self._machine(node), spec, uid)
            case do.DeleteNodeMigration(node, uid):
                m = self._machine(node)
                if m.migration is not None and m.migration.uid == uid:
                    m.migration = None
                if not m.exists:
                    self.machines.remove(m)
            case do.SetRung(node, spec, uid, generation):
                stored = self._machine(node).migration
                if stored is None or stored.uid != uid or stored.generation != generation:
                    return False
                self._write(stored, spec)
        return True

    def _ensure(self, m: Machine, spec: NodeMigrationSpec, uid: str) -> bool:
        if m.migration is None:
            if uid:
                return False
            self._uids += 1
            m.migration = Stored(f"nm-{self._uids}", 1, spec)
            return True
        if m.migration.uid != uid:
            return False
        self._write(m.migration, spec)
        return True

    def _write(self, stored: Stored, spec: NodeMigrationSpec) -> None:
        if stored.spec != spec:
            stored.spec = spec
            stored.generation += 1

    def _machine(self, name: str) -> Machine:
        return next(m for m in self.machines if m.name == name)
