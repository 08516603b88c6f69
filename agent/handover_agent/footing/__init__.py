"""The ladder's ports with the real node behind them: the datapath, kube-proxy's rules, the API server,
conntrack.

Everything that blocks runs in a named thread, one per concern: the rules' thread never has two tools at work
on the same tables, and a slow iptables-save keeps nobody else waiting.
"""

from handover_agent.footing.cluster import ApiCluster
from handover_agent.footing.conntrack import KernelConntrack
from handover_agent.footing.datapath import KernelDatapath
from handover_agent.footing.rules import KernelRules

__all__ = ["ApiCluster", "KernelConntrack", "KernelDatapath", "KernelRules"]
