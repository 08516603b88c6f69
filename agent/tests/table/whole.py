"""A model's table, compiled from nothing."""

from handover_agent.compile import NodeInfo
from handover_agent.model import Model
from handover_agent.table import Table
from handover_agent.wanted import WantedTable


def compile_table(model: Model, node: NodeInfo) -> Table:
    """Every Service once, with nothing left over from before: what `WantedTable.refresh` has to add up to."""
    wanted = WantedTable(node)
    for name, service in model.services.items():
        wanted.update(name, service, model.slices(name))
    return dict(wanted.table)
