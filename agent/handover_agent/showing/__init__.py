"""What `handover-agent` shows of a node: a module for each command, which looks and changes nothing.

    services, backends   frontends.py     what the maps serve
    affinity             affinity.py      clients and the backends that they stay with
    flows                flows.py         connections that are translated now (connections.py: as values)
    drops                drops.py         what was not served (counting.py: what to do about it)
    maps                 fill.py          how full the maps are
    check                checking.py      whether this node is as it should be
    trace                trace/           the way of one connection

Each has a `Command` (command.py) and answers with a value that is a table and a document (listing.py). What
they all need to look at the node is in node.py.
"""

from handover_agent.showing.affinity import AFFINITY
from handover_agent.showing.checking import CHECK
from handover_agent.showing.drops import DROPS
from handover_agent.showing.fill import MAPS
from handover_agent.showing.flows import FLOWS
from handover_agent.showing.frontends import BACKENDS, SERVICES
from handover_agent.showing.trace import TRACE

COMMANDS = (SERVICES, BACKENDS, FLOWS, AFFINITY, DROPS, MAPS, CHECK, TRACE)
"""In the order in which --help lists them."""

__all__ = ["COMMANDS"]
