"""kube-proxy's rules on this node: what they are, what they do, how they go and how they come back.

    inspection = inspect()                      # what is there, in every back end and family
    compare(table, frontends_of(inspection))    # does our table do what they do?
    snapshot = Snapshot.take(directory)         # on disk, read back
    flush(snapshot)                             # gone, verified
    Snapshot.load(directory).restore()          # back, verified

Every call blocks and may be repeated after a crash. Errors are `KubeProxyError`s.
"""

from handover_agent.kubeproxy import forwarding, keeper
from handover_agent.kubeproxy.errors import (
    KubeProxyError,
    Leftovers,
    NothingFlushed,
    NotRestored,
    NotSupported,
    SnapshotInvalid,
    ToolFailed,
)
from handover_agent.kubeproxy.flush import flush
from handover_agent.kubeproxy.inspection import Inspection, inspect
from handover_agent.kubeproxy.parity import compare, frontends_of
from handover_agent.kubeproxy.served import Served
from handover_agent.kubeproxy.snapshot import Snapshot

__all__ = [
    "Inspection",
    "KubeProxyError",
    "Leftovers",
    "NotRestored",
    "NotSupported",
    "NothingFlushed",
    "Served",
    "Snapshot",
    "SnapshotInvalid",
    "ToolFailed",
    "compare",
    "flush",
    "forwarding",
    "frontends_of",
    "inspect",
    "keeper",
]
