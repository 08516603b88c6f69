"""The demo's acts, from a cluster with kube-proxy to one with the agent and back, each with live traffic
on it.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from handover_api.proxymigration import Phase, ProxyMigrationStatus

from e2e import footprint
from e2e.demo import summary
from e2e.demo.phases import AFTERWARDS, BASELINE, SERVICE, SOAK, WAY_BACK, on_the_way_up, way_up
from e2e.demo.screen import Picture, Screen
from e2e.footprint import Footprint
from e2e.kube import KubeError
from e2e.lab import Lab
from e2e.lab.images import BASE
from e2e.migration import Migration
from e2e.standings import Standing
from e2e.traffic import deploy
from e2e.traffic.report import Report
from e2e.trial import Trial, TrialError, until

_LOOK_EVERY_S = 0.5
_PER_NODE_S = 150.0
_STALLED_S = 45.0


class DemoError(Exception):
    """The demo cannot go on: says what it waited for and what it saw."""


@dataclass(slots=True)
class Story:
    """One performance on a lab that is up and has Handover installed."""

    lab: Lab
    screen: Screen
    soak: str
    baseline_s: float
    trial: Trial = field(init=False)
    migration: Migration = field(init=False)
    _before: Footprint = field(default_factory=dict)
    _phase: str = ""
    _seen: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self.trial = Trial(self.lab)
        self.migration = Migration(self.trial)

    def play(self) -> list[str]:
        """All acts; returns what is wrong, which is nothing when all is well."""
        self._traffic()
        self._up()
        self._service()
        self._back()
        leftovers = self._leftovers()
        self._enter("end")
        report = self.trial.traffic.settled(AFTERWARDS)
        self.screen.table(summary.HEADER, summary.rows(report))
        expected = [BASELINE, *(way_up(n.name) for n in self.lab.plan.nodes), SOAK, SERVICE, WAY_BACK]
        return summary.verdict(report, expected, leftovers)

    def _traffic(self) -> None:
        self.screen.say("putting traffic on the cluster: clients in pods, on the nodes, and outside")
        self.migration.go_home()  # of a demo that was left standing
        self.trial.start_traffic(outside=True)
        self.screen.say("recording what the nodes look like: nft, iptables, BPF, routes, labels, DaemonSet")
        self._before = footprint.record(self.lab, self.trial.kube)
        self._enter(BASELINE)
        over = time.monotonic() + self.baseline_s
        self._watch(lambda status: time.monotonic() > over, self.baseline_s + 30, lambda found: BASELINE)

    def _up(self) -> None:
        self.screen.say(
            f"kubectl apply: ProxyMigration with target eBPF, one node at a time, soak {self.soak}"
        )
        self.migration.ask("eBPF", soak=self.soak)
        within_s = _PER_NODE_S * len(self.lab.plan.nodes)
        self._watch(lambda status: status.phase is Phase.MIGRATED, within_s, on_the_way_up)
        self.screen.say("every node is served by the agent alone; kube-proxy and its rules are gone")

    def _service(self) -> None:
        self._enter(SERVICE)
        kube = self.trial.kube
        self.screen.say("creating a Service and its pods, with no kube-proxy in the cluster")
        kube.apply(*deploy.late(BASE))
        service = until("the Service has its addresses", self._addresses, 30)
        self._scaled(2)
        self.trial.traffic.targets(
            [{"name": "late", "address": address, "port": 80, "expect": "served"} for address in service]
        )
        self._watch(lambda status: self.trial.traffic.met(), 30, lambda found: SERVICE)
        for replicas in (4, 1):
            self.screen.say(f"scaling it to {replicas}")
            kube.patch("Deployment", "late", {"spec": {"replicas": replicas}}, deploy.NAMESPACE)
            self._scaled(replicas)
        self.screen.say("deleting it")
        self.trial.traffic.targets([])
        kube.delete("Service", "late", deploy.NAMESPACE)
        kube.delete("Deployment", "late", deploy.NAMESPACE)
        self._watch(lambda status: not self._late_pods(), 60, lambda found: SERVICE)

    def _back(self) -> None:
        self._enter(WAY_BACK)
        self.screen.say("kubectl apply: target KubeProxy, all the way back")
        self.migration.ask("KubeProxy", soak=self.soak)
        within_s = _PER_NODE_S * len(self.lab.plan.nodes)
        self._watch(lambda status: status.phase is Phase.REVERSED, within_s, lambda found: WAY_BACK)
        self.migration.go_home()
        self._enter(AFTERWARDS)
        self.trial.wait_for_requests(10_000)

    def _leftovers(self) -> str:
        self.screen.say("comparing every node with what was recorded before the start")
        try:
            self.migration.wait_for_footprint(self._before)
        except TrialError as error:
            return str(error)
        self.screen.say("leftovers: none")
        return ""

    # -- watching --------------------------------------------------------------------------------

    def _watch(
        self,
        over: Callable[[ProxyMigrationStatus], bool],
        within_s: float,
        phase: Callable[[list[Standing]], str],
    ) -> None:
        """Show the cluster until an act is over, and tell the traffic which phase it is. Raises DemoError."""
        deadline = time.monotonic() + within_s
        stalled_since: float | None = None
        while True:
            status, standings = self.migration.status(), self.migration.standings()
            self._enter(phase(standings))
            self.screen.show(self._picture(status, standings))
            if over(status):
                return
            if status.phase is not Phase.STALLED:
                stalled_since = None
            stalled_since = stalled_since or time.monotonic()
            stuck = status.phase is Phase.STALLED and time.monotonic() - stalled_since > _STALLED_S
            if stuck or time.monotonic() > deadline:
                raise DemoError(f"the migration does not go on:\n  {self.migration.picture()}")
            time.sleep(_LOOK_EVERY_S)

    def _picture(self, status: ProxyMigrationStatus, standings: list[Standing]) -> Picture:
        report = self.trial.traffic.report()
        now, answered = time.monotonic(), sum(phase.total.answered for phase in report.phases)
        before, answered_before = self._seen
        self._seen = (now, answered)
        rate = (answered - answered_before) / max(now - before, 0.001) if before else 0.0
        migrated = f", migrated {status.migrated}" if status.migrated else ""
        message = (
            f"ProxyMigration: {status.phase}{migrated}: {status.message}"
            if standings
            else "kube-proxy serves"
        )
        return Picture(self._phase, message, standings, report, rate)

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.trial.traffic.phase(phase)

    # -- the Service that comes and goes ---------------------------------------------------------

    def _addresses(self) -> list[str] | None:
        service = self.trial.kube.find("Service", "late", deploy.NAMESPACE)
        found: list[str] = (service or {}).get("spec", {}).get("clusterIPs", [])
        return found or None

    def _scaled(self, replicas: int) -> None:
        """Show the cluster until the Deployment has as many pods as it should, and no more."""

        def there(status: ProxyMigrationStatus) -> bool:
            item = self.trial.kube.get("Deployment", "late", deploy.NAMESPACE)
            ready: int = item["status"].get("readyReplicas", 0)
            return ready == replicas == len(self._late_pods())

        self._watch(there, 90, lambda found: SERVICE)

    def _late_pods(self) -> list[object]:
        return list(self.trial.kube.list("Pod", deploy.NAMESPACE, "app=late"))

    def report(self) -> Report | None:
        """What the traffic has seen so far; None when there is none yet."""
        with contextlib.suppress(TrialError, KubeError):
            return self.trial.traffic.report()
        return None
