"""What the ladder stands on: everything that a step may ask of, or do to, the node and the cluster.

The steps are written against these few interfaces, so that a test can record every call, fail each one in
turn and look at what is left of the node. The real ones are in `handover_agent.footing`. Calls that block in
the kernel run in threads behind them; whatever they raise ends the step, which is tried again from its
beginning.
"""

from dataclasses import dataclass
from typing import Protocol as Interface

from handover_api.nodemigration import ProxyMode

from handover_agent.kubeproxy.nodeports import NodePortPlaces


class Blocked(Exception):
    """A step cannot go on now: `reason` is one word for the status, the message tells a person what was seen
    and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Waiting(Exception):
    """Nothing is wrong, something just has not happened yet; the step is tried again after `retry_s`."""

    def __init__(self, what: str, retry_s: float = 0.5) -> None:
        super().__init__(what)
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the datapath's programs stand."""

    loaded: bool
    attached: bool
    accepting: bool

    @property
    def serving(self) -> bool:
        """Whether new connections are translated."""
        return self.attached and self.accepting


@dataclass(frozen=True, slots=True)
class RulesSeen:
    """kube-proxy's rules as they are in the kernel now."""

    mode: ProxyMode = ProxyMode.NONE
    backends: tuple[str, ...] = ()
    count: int = 0
    leftovers: tuple[str, ...] = ()
    """Every table and chain that is on the ownership list: what a flush would have to remove."""
    unsupported: str = ""
    """Why this kind of rules cannot be taken over; empty when it can."""
    node_ports: NodePortPlaces | None = None
    """Where NodePorts are by these rules; None when they do not say."""

    @property
    def in_force(self) -> bool:
        """Whether kube-proxy's rules serve something here."""
        return self.mode is not ProxyMode.NONE and self.count > 0


class Datapath(Interface):
    """The programs and maps in the kernel. Every call is idempotent."""

    async def missing(self) -> list[str]: ...
    async def settle(self) -> None:
        """Take over what an agent with another layout of the maps has left, or what a take-over has. Raises Blocked."""
        ...

    async def load(self) -> None: ...
    async def attach(self, *, alone: bool) -> None:
        """Serve new connections; `alone`: nobody else does, so what can be served is, whatever is wrong with devices."""
        ...

    async def set_accepting(self, accepting: bool) -> None: ...
    async def detach(self) -> None: ...
    async def unload(self) -> None: ...
    async def programs(self) -> Programs: ...
    async def follow(self) -> None:
        """While attached, have the programs on the devices that there are now."""
        ...

    async def translated_udp(self) -> int:
        """UDP sockets that need the programs as long as they are used; TCP needs them only to connect."""
        ...


class Table(Interface):
    """The wanted table, and its way into the maps."""

    def behind(self) -> str:
        """Why the table may not be what the cluster wants now; empty when it is."""
        ...

    async def fill(self) -> None:
        """Open the maps and write the table into them; from then on it is kept up by itself."""
        ...

    async def verify(self) -> list[str]:
        """Read the maps anew, repair what differs, and tell what that was."""
        ...

    async def close(self) -> None:
        """Stop writing: the maps are about to go."""
        ...


class Rules(Interface):
    """kube-proxy's rules, their snapshot on disk, the keeper, and the packet path's table."""

    async def inspect(self) -> RulesSeen: ...
    async def parity(self, behind_s: float) -> list[str]:
        """Where kube-proxy's rules do neither what the table says nor what it said a moment ago, at most so long."""
        ...

    async def take_snapshot(self) -> str: ...
    async def snapshot(self) -> str:
        """The digest of the snapshot as read from disk and verified just now; empty when there is none."""
        ...

    async def restore(self) -> None: ...
    async def flush(self) -> None: ...
    async def forget_snapshot(self) -> None: ...
    async def ensure_keeper(self) -> None: ...
    async def ensure_accepts(self) -> None:
        """The part of the keeper that stays for as long as kube-proxy is away."""
        ...

    async def remove_keeper(self) -> None: ...
    async def ensure_path(self) -> None: ...
    async def remove_path(self) -> None: ...


class Cluster(Interface):
    """What only the API server can tell, asked anew at each call."""

    def direct(self) -> bool: ...
    async def kube_proxy_pods(self, *, fresh: bool = True) -> list[str]:
        """Not `fresh`: as the API server's cache has them. To list them anew reads all of etcd's before Kubernetes 1.31."""
        ...


class HealthPort(Interface):
    """The port that every kube-proxy binds; who holds it is the node's proxy."""

    @property
    def held(self) -> bool: ...
    async def bind(self) -> None:
        """Bind it in both families and answer there. Raises Blocked when another process has it."""
        ...

    async def release(self) -> None: ...
    async def foreign(self) -> bool:
        """Whether another process holds it."""
        ...


class Prober(Interface):
    """Rounds of probes; their results go to the status."""

    async def baseline(self) -> None: ...
    async def latest(self, path: str) -> None: ...
    async def forget(self) -> None: ...


class Conntrack(Interface):
    """The kernel's entries of UDP clients whose endpoint is gone; how many were removed."""

    async def reconcile_udp(self) -> int: ...
    async def forget_untranslated_udp(self) -> int:
        """Instead, those that were made while our datapath translated, and that would hide its clients from kube-proxy's
        rules. Goes without the API server.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ground:
    """All of it, as the steps are handed it."""

    datapath: Datapath
    table: Table
    rules: Rules
    cluster: Cluster
    port: HealthPort
    prober: Prober
    conntrack: Conntrack
