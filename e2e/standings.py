"""Where the nodes stand, in the words of the NodeMigrations: what the demo shows and the tests wait for.
Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationSpec, NodeMigrationStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """One node: what is wanted of it, and what its agent says."""

    node: str
    wanted: Rung
    status: NodeMigrationStatus

    @property
    def rung(self) -> Rung:
        """The rung that was reached."""
        return self.status.rung

    @property
    def moving(self) -> bool:
        """Between two rungs, or on one of the two in the middle."""
        return self.rung is not self.wanted or self.rung in {Rung.SHADOW, Rung.SERVING}

    def __str__(self) -> str:
        """One line for a person."""
        status = self.status
        where = str(self.rung) if self.rung is self.wanted else f"{self.rung} → {self.wanted}"
        proxy = f"kube-proxy {'runs' if status.kube_proxy.running else 'is gone'}"
        flows = f"{status.translated} translated, {status.old_flows} old"
        facts = f"{proxy}, {status.kube_proxy.rules} rules, {flows}"
        fault = f"; {status.fault.reason}: {status.fault.message}" if status.fault else ""
        return f"{self.node}: {where}; {facts}; {status.step or '-'}{fault}"


def standings(items: Iterable[Mapping[str, Any]]) -> list[Standing]:
    """From NodeMigrations as the API server gives them, in order of names."""
    found = [
        Standing(
            item["metadata"]["name"],
            NodeMigrationSpec.model_validate(item["spec"]).rung,
            NodeMigrationStatus.model_validate(item.get("status", {})),
        )
        for item in items
    ]
    return sorted(found, key=lambda standing: standing.node)
