"""From what the parts observe to the words of the status. One small method per observation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from handover_api.base import Rung
from handover_api.nodemigration import (
    BypassedRule,
    Fault,
    KernelFacts,
    KubeProxyFacts,
    Parity,
    ProxyMode,
    Unserved,
)

from handover_agent.apiserver import Client
from handover_agent.bypassed import Found
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.ladder.machine import Standing
from handover_agent.ladder.ports import HealthPort, RulesSeen
from handover_agent.report import Report
from handover_agent.sync import Sync

_PATIENCE = timedelta(seconds=3)
"""The Node and the order about it come by two watches, of which one may be ahead of the other."""
_MOST_DIFFERENCES, _MOST_LEFTOVERS = 20, 50


class Facts:
    """Translates observations into the report."""

    def __init__(self, report: Report, port: HealthPort) -> None:
        self._report, self._port = report, port
        self._fault: Fault | None = None
        self._refusal: Fault | None = None
        self._not_tried: Fault | None = None
        self._pods: list[str] | None = None
        self._foreign = False
        self._rules = RulesSeen()
        self._mode = ProxyMode.NONE
        self._node_ports: NodePortPlaces | None = None
        self._sync = Sync()
        self._map_differences: list[str] = []
        self._proxy_differences: list[str] = []
        self._proxy_frontends = 0
        self._checked_at: datetime | None = None
        self.counters: Mapping[str, int] = {}

    @property
    def kube_proxy_running(self) -> bool:
        """Whether a pod or the health port says so."""
        return bool(self._pods) or self._foreign

    @property
    def kernel_features(self) -> list[str] | None:
        """What was found by trying; None before that."""
        kernel = self._report.status.kernel
        return kernel.features if kernel.features or kernel.missing else None

    @property
    def node_ports(self) -> NodePortPlaces:
        """Where NodePorts are: as kube-proxy's rules have it, or had it before they were removed. Where there never
        were any, on all of the node's addresses.
        """
        return self._node_ports or NodePortPlaces()

    def refuse(self, message: str) -> None:
        """The order is not followed, and why; nothing takes it back. Said when it has been so for a while."""
        if not message:
            self._refusal = None
        elif self._refusal is None or self._refusal.message != message:
            self._refusal = Fault(reason="NodeReplaced", message=message, since=datetime.now(UTC))
        self.look_at_refusal()

    def look_at_refusal(self) -> None:
        """Time has passed: is it a fault by now?"""
        refusal = self._refusal
        old = refusal is not None and datetime.now(UTC) - refusal.since >= _PATIENCE
        self._report.set(fault=refusal if old else self._fault or self._not_tried)

    def kernel_tried(self, kernel: KernelFacts) -> None:
        """What the kernel can do was found out."""
        self._not_tried = None
        self._report.set(kernel=kernel)
        self.look_at_refusal()

    def kernel_not_tried(self, error: Exception) -> None:
        """Nothing is known of what the kernel can do: nobody may take that for a kernel which lacks nothing."""
        since = self._not_tried.since if self._not_tried is not None else datetime.now(UTC)
        message = f"what this node's kernel can do is not known: {error}"[:2048]
        self._not_tried = Fault(reason="KernelNotTried", message=message, since=since)
        self.look_at_refusal()

    def standing(self, standing: Standing) -> None:
        """The ladder moved, or says what it does."""
        self._fault = standing.fault
        self._report.set(
            rung=standing.record.rung,
            rung_since=standing.record.since,
            observed_generation=standing.generation,
            step=standing.step[:256],
        )
        self.look_at_refusal()
        self._tell_leftovers()
        self._report.settle()

    def cannot_start(self, error: Exception) -> None:
        """The ladder could not even look."""
        message = f"{type(error).__name__}: {error}"[:2048]
        since = self._fault.since if self._fault is not None else datetime.now(UTC)
        self._fault = Fault(reason="NodeUnreadable", message=message, since=since)
        self.look_at_refusal()
        self._report.settle()

    def rules_seen(self, seen: RulesSeen) -> None:
        """kube-proxy's rules were looked at. The mode outlives them: it is what the way back returns to."""
        self._rules = seen
        if seen.mode is not ProxyMode.NONE:
            self._mode = seen.mode
        self._node_ports = seen.node_ports or self._node_ports
        self._tell_kube_proxy()
        self._tell_leftovers()

    def recorded(self, digest: str, mode: ProxyMode, node_ports: NodePortPlaces | None) -> None:
        """The snapshot on disk, and how the rules in it were made, which may be gone."""
        self._report.set(snapshot=digest)
        self._node_ports = self._node_ports or node_ports
        if self._mode is ProxyMode.NONE and mode is not ProxyMode.NONE:
            self._mode = mode
            self._tell_kube_proxy()

    def pods_seen(self, pods: list[str]) -> None:
        """The watch of kube-proxy's pods on this node."""
        self._pods = pods
        self._tell_kube_proxy()

    async def look_at_port(self) -> None:
        """Whether somebody else holds kube-proxy's health port."""
        foreign = await self._port.foreign()
        if foreign != self._foreign:
            self._foreign = foreign
            self._tell_kube_proxy()

    def synced(self, sync: Sync) -> None:
        """The maps were written."""
        self._sync = sync
        if not sync.open:
            self._map_differences = self._proxy_differences = []
            self._checked_at = None
        self._tell_parity()

    def verified(self, differences: list[str]) -> None:
        """The maps were read anew; what differed has been repaired."""
        self._map_differences = differences
        self._checked_at = datetime.now(UTC)
        self._tell_parity()

    def compared(self, differences: list[str], frontends: int) -> None:
        """The table was compared with kube-proxy's rules."""
        self._proxy_differences, self._proxy_frontends = differences, frontends
        self._checked_at = datetime.now(UTC)
        self._tell_parity()

    def api_server(self, client: Client) -> None:
        """The API server's own address, while it is reached by that."""
        self._report.set(api_server=client.server if client.direct else "")

    def count(self, *, old_flows: int | None, translated: int, counters: Mapping[str, int]) -> None:
        """Numbers that never stand still."""
        self.counters = counters
        errors = sum(value for name, value in counters.items() if name.startswith("error_"))
        self._report.set(translated=translated, datapath_errors=errors)
        if old_flows is not None:
            self._report.set(old_flows=old_flows)

    def unserved(self, items: list[Unserved]) -> None:
        """What Services ask for that this datapath does not serve."""
        self._report.set(unserved=items)

    def bypassed(self, found: Sequence[Found]) -> None:
        """Others' rules that our programs are, or would be, ahead of."""
        self._report.set(
            bypassed=[BypassedRule(place=each.place[:256], rule=each.rule[:1024]) for each in found]
        )

    def _tell_kube_proxy(self) -> None:
        self._report.set(
            kube_proxy=KubeProxyFacts(
                mode=self._mode,
                backends=list(self._rules.backends),
                running=self.kube_proxy_running,
                rules=self._rules.count,
            )
        )

    def _tell_leftovers(self) -> None:
        """At Sole nothing of kube-proxy's should be left; below, its rules are no leftovers."""
        sole = self._report.status.rung is Rung.SOLE
        self._report.set(leftovers=list(self._rules.leftovers[:_MOST_LEFTOVERS]) if sole else [])

    def _tell_parity(self) -> None:
        problem = [self._sync.problem] if self._sync.problem else []
        differences = [*problem, *self._map_differences, *self._proxy_differences]
        self._report.set(
            parity=Parity(
                checked_at=self._checked_at,
                in_sync=self._sync.in_sync and not differences,
                frontends=self._sync.frontends,
                backends=self._sync.backends,
                kube_proxy_frontends=self._proxy_frontends,
                differences=[text[:512] for text in differences[:_MOST_DIFFERENCES]],
            )
        )
