"""Every reason that a condition, a failure or an event of ours may carry: an API that people and alerts rely
on.
"""

from enum import StrEnum


class Reason(StrEnum):
    # before anything is changed
    ANOTHER_MIGRATION = "AnotherMigration"
    INVALID_SPEC = "InvalidSpec"
    KUBE_PROXY_NOT_FOUND = "KubeProxyNotFound"
    OWNER_WOULD_FIGHT = "OwnerWouldFight"
    NO_NODES_MATCH = "NoNodesMatch"
    AGENT_NOT_READY = "AgentNotReady"
    AGENT_API_VERSION = "AgentApiVersion"
    KERNEL_TOO_OLD = "KernelTooOld"
    MODE_UNSUPPORTED = "ModeUnsupported"
    MODE_UNKNOWN = "ModeUnknown"
    KUBE_PROXY_NOT_READY = "KubeProxyNotReady"
    RULES_BYPASSED = "RulesBypassed"
    NODE_NOT_READY = "NodeNotReady"
    # a node's gates
    FACTS_STALE = "FactsStale"
    AGENT_LOST = "AgentLost"
    AGENT_FAULT = "AgentFault"
    RUNG_NOT_REACHED = "RungNotReached"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_SNAPSHOT = "NoSnapshot"
    PARITY_NOT_IN_SYNC = "ParityNotInSync"
    PROBES_MISSING = "ProbesMissing"
    PROBES_FAILED = "ProbesFailed"
    DATAPATH_ERRORS = "DatapathErrors"
    KUBE_PROXY_STILL_RUNNING = "KubeProxyStillRunning"
    SOAKING = "Soaking"
    # what stops the line
    ACTION_REFUSED = "ActionRefused"
    NOT_ALLOWED_TO_SEE = "NotAllowedToSee"
    DAEMON_SET_REVERTED = "DaemonSetReverted"
    UNSERVED = "Unserved"
    DEGRADED = "Degraded"
    ZONE_LIMIT = "ZoneLimit"
    # where the whole stands
    PREFLIGHT = "Preflight"
    MIGRATING = "Migrating"
    MIGRATED = "Migrated"
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"
    REVERSING = "Reversing"
    REVERSED = "Reversed"
    DELETING = "Deleting"
    # events
    STEP = "Step"
    DRAINED = "KubeProxyDrained"
    UNDRAINED = "KubeProxyReturns"
    NODE_MIGRATED = "NodeMigrated"
    NODE_FELL = "NodeFell"
    DAEMON_SET_PREPARED = "DaemonSetPrepared"
    DAEMON_SET_RESTORED = "DaemonSetRestored"
    NODE_FORGOTTEN = "NodeForgotten"
