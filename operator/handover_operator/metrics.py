"""What the operator counts, for Prometheus."""

from handover_api.base import Rung
from handover_api.proxymigration import Phase
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from handover_operator.plan import Plan


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.passes = Histogram(
            "handover_operator_pass_seconds",
            "How long one pass took: observe, plan, act, summarize.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30),
        )
        self.failed_passes = Counter(
            "handover_operator_failed_passes", "Passes that ended with an error.", registry=self.registry
        )
        self.actions = Counter(
            "handover_operator_actions",
            "Actions of plans, by what became of them: done, outdated, failed.",
            ["action", "result"],
            registry=self.registry,
        )
        self.in_sight = Gauge(
            "handover_operator_in_sight",
            "1 while everything that is to be watched is being watched; nothing is planned otherwise.",
            registry=self.registry,
        )
        self._phase = Gauge(
            "handover_migration_phase", "1 for the phase that it is in.", ["phase"], registry=self.registry
        )
        self._nodes = Gauge(
            "handover_migration_nodes", "Selected nodes on each rung.", ["rung"], registry=self.registry
        )
        self._selected = Gauge("handover_migration_nodes_selected", "Selected nodes.", registry=self.registry)
        self._migrated = Gauge(
            "handover_migration_nodes_migrated", "Nodes on Sole with a passed soak.", registry=self.registry
        )
        self._failed = Gauge(
            "handover_migration_nodes_failed", "Nodes whose gate failed.", registry=self.registry
        )
        self.gate_failures = Counter(
            "handover_gate_failures", "Gates that failed, by reason.", ["reason"], registry=self.registry
        )

    def show(self, plan: Plan | None) -> None:
        """Show where the acting migration stands; None when there is none."""
        for phase in Phase:
            self._phase.labels(phase.value).set(plan is not None and plan.phase is phase)
        counts = plan.counts if plan is not None else None
        for rung in Rung:
            self._nodes.labels(rung.value).set(getattr(counts, rung.value.lower(), 0))
        self._selected.set(counts.selected if counts else 0)
        self._migrated.set(counts.migrated if counts else 0)
        self._failed.set(counts.failed if counts else 0)
