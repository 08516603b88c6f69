"""All that the operator sees of the cluster, in one place, and whether it may be believed now."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handover_api.base import KubeProxyRef

from handover_operator import observe, places
from handover_operator.api import Api, ApiError, Object
from handover_operator.facts import DaemonSetFacts, MigrationFacts, NodeFacts
from handover_operator.observe import SeenNodeMigration, SeenPod
from handover_operator.watch import Collection, Watched


@dataclass(frozen=True, slots=True)
class AgentPods:
    """Where the agents' pods are."""

    namespace: str = "handover-system"
    labels: str = "app.kubernetes.io/name=handover-agent"


class Cluster:
    """Live copies of everything that matters. `run` keeps them up until it is cancelled."""

    def __init__(self, api: Api, agents: AgentPods, changed: Callable[[], None]) -> None:
        self._api = api
        self._changed = changed
        self.migrations = self._copy(Collection(places.PROXY_MIGRATION), observe.read_migration)
        self.node_migrations = self._copy(Collection(places.NODE_MIGRATION), observe.read_node_migration)
        self._nodes = self._copy(Collection(places.NODE), observe.read_node)
        self._agents = self._copy(
            Collection(places.POD, agents.namespace, labels=agents.labels), observe.read_pod
        )
        self._daemon_sets: Watched[Object] | None = None
        self._kube_proxies: Watched[SeenPod | None] | None = None
        self._tasks: dict[Watched[Any], asyncio.Task[None]] = {}
        self._crashed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Keep all copies up. Ends only by being cancelled, or with the error of a copy that broke."""
        self._crashed = asyncio.get_running_loop().create_future()
        try:
            for copy in (self.migrations, self.node_migrations, self._nodes, self._agents):
                self._start(copy)
            await self._crashed
        finally:
            for copy in list(self._tasks):
                await self._stop(copy)

    async def follow(self, ref: KubeProxyRef) -> None:
        """Follow this DaemonSet and its pods, and no other; a no-op when they are followed already."""
        wanted = Collection(places.DAEMON_SET, ref.namespace, fields=f"metadata.name={ref.name}")
        if self._daemon_sets is None or self._daemon_sets.collection != wanted:
            await self._stop(self._daemon_sets)
            await self._stop(self._kube_proxies)
            self._kube_proxies = None
            self._daemon_sets = self._copy(wanted, lambda item: item)
            self._start(self._daemon_sets)
        if not self._daemon_sets.live or not self.node_migrations.live:
            return
        labels = self._labels(ref)
        if not labels:
            return
        pods = Collection(places.POD, ref.namespace, labels=labels)
        if self._kube_proxies is None or self._kube_proxies.collection != pods:
            await self._stop(self._kube_proxies)
            self._kube_proxies = self._copy(pods, observe.read_pod)
            self._start(self._kube_proxies)

    def troubles(self) -> list[str]:
        """What keeps the view from being believed, in words; empty when it can be planned on."""
        found = []
        for copy in self._copies():
            if copy.trouble is not None:
                found.append(str(copy.trouble))
            elif not copy.live:
                found.append(f"list {copy.collection}: not answered yet")
        return found

    def errors(self) -> list[ApiError]:
        """What copies are in trouble with."""
        return [copy.trouble for copy in self._copies() if copy.trouble is not None]

    def acting(self) -> list[MigrationFacts]:
        """The ProxyMigrations, the one that acts first. Raises UnreadableError when that cannot be said."""
        seen = list(self.migrations.objects.values())
        for migration in seen:
            if migration.facts is None:
                raise observe.UnreadableError(migration.unreadable)
        return observe.migrations(seen)

    def nodes(self) -> list[NodeFacts]:
        """Every node, with what is on it."""
        return observe.nodes(
            self._nodes.objects.values(),
            self.node_migrations.objects.values(),
            self._kube_proxies.objects.values() if self._kube_proxies else (),
            self._agents.objects.values(),
        )

    def daemon_set(self) -> Object | None:
        """kube-proxy's DaemonSet as the API has it."""
        return next(iter(self._daemon_sets.objects.values()), None) if self._daemon_sets else None

    def daemon_set_facts(self) -> DaemonSetFacts:
        """The same as the planner knows it."""
        return observe.daemon_set(self.daemon_set())

    def seen_node_migration(self, name: str) -> SeenNodeMigration | None:
        """A NodeMigration with what a write needs."""
        return self.node_migrations.objects.get(("", name))

    def node_uid(self, name: str) -> str | None:
        """The uid of a node; None when there is no such node."""
        node = self._nodes.objects.get(("", name))
        return None if node is None else node.uid

    def learn(self, item: Object) -> None:
        """Take in the answer to a write of ours."""
        kind = item.get("kind")
        copies: tuple[Watched[Any] | None, ...] = (
            self.migrations,
            self.node_migrations,
            self._nodes,
            self._daemon_sets,
        )
        for copy in copies:
            if copy is not None and copy.collection.kind.name == kind:
                copy.learn(item)

    def _labels(self, ref: KubeProxyRef) -> str:
        """The selector of kube-proxy's pods. NodeMigrations remember it for when the DaemonSet is gone."""
        item = self.daemon_set()
        if item is not None:
            return observe.selector_text(item["spec"]["selector"])
        for migration in self.node_migrations.objects.values():
            remembered = migration.facts.spec.kube_proxy
            if remembered.selector and (remembered.namespace, remembered.name) == (ref.namespace, ref.name):
                return observe.selector_text({"matchLabels": remembered.selector})
        return self._kube_proxies.collection.labels if self._kube_proxies else ""

    def _copies(self) -> list[Watched[Any]]:
        followed: list[Watched[Any]] = [c for c in (self._daemon_sets, self._kube_proxies) if c is not None]
        return [self.migrations, self.node_migrations, self._nodes, self._agents, *followed]

    def _copy(self, collection: Collection, read: Callable[[Object], Any]) -> Watched[Any]:
        return Watched(self._api, collection, read, self._changed)

    def _start(self, copy: Watched[Any]) -> None:
        task = asyncio.create_task(copy.run(), name=f"watch {copy.collection}")
        task.add_done_callback(self._ended)
        self._tasks[copy] = task

    async def _stop(self, copy: Watched[Any] | None) -> None:
        task = self._tasks.pop(copy, None) if copy is not None else None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A copy that breaks by a mistake of ours must end the process, not leave it with an old view."""
        crashed = self._crashed
        if task.cancelled() or crashed is None or crashed.done():
            return
        error = task.exception()
        if error is not None:
            crashed.set_exception(error)
