"""What the cluster says of this node, watched and followed: the order to it, its Node, and kube-proxy's pods here."""

import asyncio

from handover_agent.apierrors import ApiError
from handover_agent.apiserver import Client
from handover_agent.facts import Facts
from handover_agent.footing import ApiCluster
from handover_agent.ladder.machine import Goal, Ladder
from handover_agent.node import NodeObject
from handover_agent.probe.rounds import Plan, Rounds
from handover_agent.report import Report
from handover_agent.watch import Reflector
from handover_agent.wish import Pods, Single, Wish, node_kind, not_ours, pod_kind, wish_kind


class Orders:
    """For one event loop."""

    def __init__(
        self,
        client: Client,
        node: NodeObject,
        *,
        ladder: Ladder,
        cluster: ApiCluster,
        prober: Rounds,
        facts: Facts,
        report: Report,
        node_changed: asyncio.Event,
    ) -> None:
        """`node`: what is known of it before it has been read."""
        self.node = node
        self.wish: Wish | None = None
        """The order as it was last written, whether it is followed or not."""
        self._client, self._ladder, self._cluster, self._prober = client, ladder, cluster, prober
        self._facts, self._report, self._node_changed = facts, report, node_changed
        self._node_there = False
        self._wishes = Reflector(client, wish_kind(node.name), Single(self._wished))
        self._nodes = Reflector(client, node_kind(node.name), Single(self._node_seen))
        self._selector_changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wishes.run(), name="watch nodemigration")
            group.create_task(self._nodes.run(), name="watch node")
            group.create_task(self._watch_pods(), name="watch kube-proxy")

    @property
    def error(self) -> ApiError | None:
        """Why the order may be stale; None while it is watched."""
        return self._wishes.error

    @property
    def node_looked_for(self) -> bool:
        """Whether the Node has been asked for: `node` says what there is to know."""
        return self._nodes.synced.is_set()

    @property
    def eligible(self) -> bool:
        """Whether load balancers may send here."""
        return self._node_there and self.node.eligible

    async def _watch_pods(self) -> None:
        """Anew whenever the NodeMigration names other pods."""
        while True:
            self._selector_changed.clear()
            kind = pod_kind(self._cluster.selector, self.node.name)
            watch = Reflector(self._client, kind, Pods(self._pods_seen))
            async with (
                asyncio.TaskGroup() as group
            ):  # what nobody expects ends the agent, as in the other watches
                watching = group.create_task(watch.run(), name="watch kube-proxy pods")
                await self._selector_changed.wait()
                watching.cancel()

    def _wished(self, wish: Wish | None) -> None:
        self.wish = wish
        self._obey()
        if wish is None:
            return
        self._prober.plan = Plan.of(wish.spec.gates.probes)
        if wish.spec.kube_proxy != self._cluster.selector and wish.spec.kube_proxy.selector:
            self._cluster.selector = wish.spec.kube_proxy
            self._selector_changed.set()
        self._report.changed.set()

    def _obey(self) -> None:
        """Follow the order, if it is one for this machine; before that is known, nothing is done."""
        wish, known = self.wish, self.node.uid
        refused = not_ours(wish.spec, known) if wish is not None else ""
        self._facts.refuse(refused)
        if wish is None or refused or (wish.spec.node_uid and not known):
            self._ladder.want(Goal())
        else:
            self._ladder.want(Goal(wish.spec.rung, wish.spec.deadline, wish.generation))

    def _node_seen(self, node: NodeObject | None) -> None:
        """What is known of a Node that is gone goes on holding, but no load balancer should send here."""
        self._node_there = node is not None
        if node is not None:
            self.node = node
            self._node_changed.set()
            self._obey()

    def _pods_seen(self, pods: list[str]) -> None:
        self._facts.pods_seen(pods)
        self._ladder.nudge()
