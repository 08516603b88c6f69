"""The ladder's ports with the real node behind them: the datapath, kube-proxy's rules, the API server,
conntrack.

Everything that blocks runs in a named thread, one per concern: the rules' thread never has two tools at work
on the same tables, and a slow iptables-save keeps nobody else waiting.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from handover_api.nodemigration import KubeProxySelector, ProxyMode

from handover_agent import kubeproxy, loader
from handover_agent.apiserver import PODS, Client
from handover_agent.bpffs import LayoutMismatch
from handover_agent.conntrack import Pass, Serving, old_flows, reconcile_udp
from handover_agent.datapath import Datapath
from handover_agent.features import Features
from handover_agent.kubeproxy import Snapshot, SnapshotInvalid, forwarding, keeper, nodeports
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.ladder.ports import Blocked, Programs, RulesSeen
from handover_agent.lately import Before
from handover_agent.layout import Sizes, map_specs
from handover_agent.maps import PinnedMaps
from handover_agent.model import NotListed
from handover_agent.packetpath import handing
from handover_agent.packetpath import rules as path_rules
from handover_agent.sockets.gone import stranded
from handover_agent.sockets.refusal import refuse
from handover_agent.table import FrontendKey, Protocol, Table

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_SELECTOR = {"k8s-app": "kube-proxy"}


class Thread:
    """One named thread; calls wait for their turn."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))


class KernelDatapath:
    """`ports.Datapath`."""

    def __init__(self, datapath: Datapath, sizes: Callable[[], Sizes]) -> None:
        """`sizes` are asked for when the maps are about to be made."""
        self._datapath, self._sizes = datapath, sizes
        self._thread, self._strays = Thread("datapath"), Thread("strays")
        self.renewing = False
        """Whether programs of this version are being loaded, or could not be: whatever is there serves meanwhile."""

    @property
    def unsettled(self) -> bool:
        """As `Datapath.unsettled`."""
        return self._datapath.unsettled

    async def missing(self) -> list[str]:
        return (await self.features()).missing

    async def features(self) -> Features:
        """What the kernel can do, found by trying."""
        return await self._thread(self._datapath.probe_features)

    async def settle(self) -> None:
        if self._datapath.unsettled:
            await self.load()

    async def load(self) -> None:
        state = await self._thread(self._datapath.state)
        wanted = state.loaded and state.version == self._datapath.wanted_version()
        if not wanted or self._datapath.unsettled:
            began, self.renewing = time.monotonic(), True
            try:
                await self._thread(self._datapath.load_maps, map_specs(self._sizes()))
            except LayoutMismatch as error:
                raise Blocked("LayoutNotTakenOver", str(error)) from error
            took = round(time.monotonic() - began, 3)
            log.info("programs loaded", extra={"version": loader.version(), "seconds": took})
        self.renewing = False

    async def sizes(self) -> Sizes:
        """How large the maps are."""
        return await self._thread(self._datapath.sizes)

    async def make_larger(self, sizes: Sizes) -> PinnedMaps:
        """As `Datapath.make_larger`."""
        return await self._thread(self._datapath.make_larger, sizes)

    async def take_larger(self) -> None:
        """As `Datapath.take_larger`."""
        await self._thread(self._datapath.take_larger)

    async def attach(self, *, alone: bool) -> None:
        await self._thread(lambda: self._datapath.attach(alone=alone))

    async def follow(self) -> None:
        await self._thread(self._datapath.follow)

    async def set_accepting(self, accepting: bool) -> None:
        await self._thread(self._datapath.set_accepting, accepting)

    async def detach(self) -> None:
        await self._thread(self._datapath.detach)

    async def unload(self) -> None:
        await self._thread(self._datapath.unload)
        self.renewing = False

    async def programs(self) -> Programs:
        state = await self._thread(self._datapath.state)
        return Programs(state.loaded, state.attached, state.accepting)

    async def translated_udp(self) -> int:
        return await self._thread(self._datapath.remembered.translated, Protocol.UDP)

    async def translated(self) -> int:
        """All sockets that are translated, for the status."""
        return await self._thread(self._datapath.remembered.translated)

    async def pressure(self) -> dict[str, float]:
        """How full the maps are that programs write."""
        return await self._thread(self._datapath.remembered.pressure)

    async def forget_addresses(self) -> None:
        """As `Datapath.forget_addresses`."""
        await self._thread(self._datapath.remembered.forget_addresses)

    async def counters(self) -> dict[str, int]:
        return await self._thread(self._datapath.counters)

    async def forget_udp_flows(self, serving: Serving) -> int:
        """Remove the packet path's UDP flows to endpoints that are gone; how many."""
        return await self._strays(self._datapath.remembered.forget_udp_flows, serving)

    async def watch_stranded(self, serving: Serving) -> bool:
        """As `Datapath.watch_stranded`."""
        return await self._strays(self._datapath.remembered.watch_stranded, serving)

    async def keep_left(self, serving: Serving) -> int:
        """Leave to conntrack the UDP flows that it translates, as long as it does; how many."""
        return await self._strays(self._datapath.remembered.keep_left, serving)

    async def forget_left(self) -> None:
        """Leave none to it any more."""
        await self._strays(self._datapath.remembered.forget_left)

    async def tell_stranded(self, serving: Serving) -> int:
        """Tell connected UDP sockets that have sent to an endpoint which is gone; how many."""
        return await self._strays(
            lambda: refuse(stranded(self._datapath.remembered.noted_stranded(), serving))
        )


class KernelRules:
    """`ports.Rules`. `table` gives the table, what it was in the last seconds, and the node's addresses; `told` hears of
    every inspection, `compared` of every look at parity, for the status.
    """

    def __init__(
        self,
        directory: Path,
        table: Callable[[float], tuple[Table, Before, Collection[bytes]]],
        told: Callable[[RulesSeen], None],
        compared: Callable[[list[str], int], None],
        recorded: Callable[[str, ProxyMode, NodePortPlaces | None], None],
    ) -> None:
        self._directory, self._table, self._told, self._compared = directory, table, told, compared
        self._recorded = recorded
        self._thread = Thread("rules")
        self.digest = ""
        """Of the snapshot on disk, as last read."""
        self.restorable = False
        """Whether there are any rules of kube-proxy's in it."""

    async def inspect(self) -> RulesSeen:
        seen = await self._thread(_inspect)
        self._told(seen)
        return seen

    async def parity(self, behind_s: float) -> list[str]:
        theirs = await self._thread(lambda: kubeproxy.frontends_of(kubeproxy.inspect()))
        table, before, local = self._table(behind_s)  # later than the rules, or they could be ahead of it
        ours = dict(table)
        differences = await self._thread(kubeproxy.compare, ours, theirs, frozenset(local), before)
        self._compared(differences, len(theirs))
        return differences

    async def take_snapshot(self) -> str:
        taken = await self._thread(Snapshot.take, self._directory)
        self._note(*_facts_of(taken))
        log.info("snapshot taken", extra={"digest": self.digest, "directory": str(self._directory)})
        return self.digest

    async def snapshot(self) -> str:
        self._note(*await self._thread(self._read))
        return self.digest

    async def restore(self) -> None:
        written = await self._thread(lambda: Snapshot.load(self._directory).restore())
        log.info("kube-proxy's rules put back", extra={"places": ", ".join(written)})

    async def flush(self) -> None:
        removed = await self._thread(lambda: kubeproxy.flush(Snapshot.load(self._directory)))
        log.info("kube-proxy's rules removed", extra={"items": len(removed)})

    async def forget_snapshot(self) -> None:
        await self._thread(Snapshot.remove, self._directory)
        self._note("", ProxyMode.NONE, None)

    async def ensure_keeper(self) -> None:
        await self._thread(lambda: keeper.ensure(self._accepted()))

    async def ensure_accepts(self) -> None:
        await self._thread(lambda: forwarding.ensure(self._accepted()))

    async def remove_keeper(self) -> None:
        await self._thread(keeper.remove)

    async def ensure_path(self) -> None:
        table, _, local = self._table(0)
        served = {key.port for key in table if key.protocol is Protocol.UDP and key.address in local}
        await self._thread(path_rules.ensure, path_rules.free_ports(served))

    async def remove_path(self) -> None:
        await self._thread(path_rules.remove)
        await self._thread(handing.unguard)

    async def release_keeper(self) -> None:
        """The old flows have ended: established connections need no table of ours any more."""
        await self._thread(keeper.release)

    def _accepted(self) -> forwarding.Recorded:
        """What kube-proxy accepted, by the snapshot; without one, the rules in force have to tell."""
        try:
            return Snapshot.load(self._directory).filters
        except SnapshotInvalid:
            return forwarding.NOTHING

    def _note(self, digest: str, mode: ProxyMode, node_ports: NodePortPlaces | None) -> None:
        self.digest, self.restorable = digest, bool(digest) and mode is not ProxyMode.NONE
        self._recorded(digest, mode, node_ports)

    def _read(self) -> tuple[str, ProxyMode, NodePortPlaces | None]:
        if not Snapshot.is_there(self._directory):
            return "", ProxyMode.NONE, None
        try:
            found = Snapshot.load(self._directory)
        except SnapshotInvalid as error:
            log.error("snapshot unusable", extra={"error": str(error)})
            return "", ProxyMode.NONE, None
        return _facts_of(found)


class ApiCluster:
    """`ports.Cluster`: kube-proxy's pods on this node, listed anew at each call."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self.selector = KubeProxySelector(selector=DEFAULT_SELECTOR)

    def direct(self) -> bool:
        return self._client.direct

    async def kube_proxy_pods(self) -> list[str]:
        pods = await self._client.list_objects(
            PODS, pod_query(self.selector, self._node), self.selector.namespace
        )
        return [
            f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ]


class KernelConntrack:
    """`ports.Conntrack`."""

    def __init__(self, serving: Callable[[], Serving], told: Callable[[Iterable[Pass]], None]) -> None:
        """`told` hears of each pass, for the metrics."""
        self._serving, self._told = serving, told
        self._thread = Thread("conntrack")

    async def reconcile_udp(self) -> int:
        return await self._reconcile(untranslated=False)

    async def forget_untranslated_udp(self) -> int:
        try:
            return await self._reconcile(untranslated=True)
        except NotListed as error:  # without the API server: kube-proxy looks for them itself when it starts
            log.warning("UDP conntrack entries were not looked through", extra={"error": str(error)})
            return 0

    async def _reconcile(self, *, untranslated: bool) -> int:
        passes = await self._thread(reconcile_udp, self._serving(), untranslated=untranslated)
        self._told(passes)
        deleted = sum(each.deleted for each in passes)
        if deleted:
            log.info("stale UDP conntrack entries removed", extra={"entries": deleted})
        return deleted

    async def old_flows(self, frontends: Collection[FrontendKey]) -> int:
        """Connections to these frontends that live on kube-proxy's entries."""
        return await self._thread(old_flows, list(frontends))


def pod_query(selector: KubeProxySelector, node: str) -> Mapping[str, str]:
    """The query for kube-proxy's pods on a node."""
    labels = selector.selector or DEFAULT_SELECTOR
    return {
        "labelSelector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "fieldSelector": f"spec.nodeName={node}",
    }


def _inspect() -> RulesSeen:
    try:
        found = kubeproxy.inspect()
    except kubeproxy.NotSupported as error:
        mode = ProxyMode.IPVS if error.mode == "ipvs" else ProxyMode.NONE
        return RulesSeen(mode=mode, count=1, unsupported=str(error))
    return RulesSeen(
        mode=found.mode,
        backends=found.backends,
        count=found.rule_count,
        leftovers=tuple(found.leftovers()),
        node_ports=nodeports.places(found.rulesets, found.nft),
    )


def _facts_of(snapshot: Snapshot) -> tuple[str, ProxyMode, NodePortPlaces | None]:
    """Its digest, how the rules in it were made, and where they have NodePorts."""
    places = nodeports.places(snapshot.rulesets, snapshot.nft)
    return snapshot.digest, snapshot.manifest.mode, places
