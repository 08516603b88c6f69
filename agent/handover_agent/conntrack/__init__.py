"""The kernel's connection tracking, as far as it concerns flows to Services.

    old_flows(table)                                # how many live on kube-proxy's entries
    reconcile_udp(ServingUdp(model).now(node))      # delete UDP entries that lead nowhere

Entries are matched exactly, one by one; the table is never flushed.
"""

from handover_agent.conntrack.ever import EverServed
from handover_agent.conntrack.netlink import ConntrackError
from handover_agent.conntrack.old import old_flows
from handover_agent.conntrack.serving import Serving, ServingUdp
from handover_agent.conntrack.stale import Pass, reconcile_udp

__all__ = ["ConntrackError", "EverServed", "Pass", "Serving", "ServingUdp", "old_flows", "reconcile_udp"]
