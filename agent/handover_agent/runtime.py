"""The running agent: its parts wired together on one event loop.

What is in the kernel serves without us. So nothing here is urgent except to look and to say: watches feed the
table, the ladder walks, and a handful of loops observe. When the process ends, at whatever instruction,
nothing is undone.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from handover_api.base import API_VERSION, Rung
from handover_api.nodemigration import AgentFacts, KernelFacts, NodeMigrationStatus

from handover_agent import bypassed, complaints, early, sizing
from handover_agent.addresses import local_addresses
from handover_agent.apierrors import ApiError
from handover_agent.apiserver import Client
from handover_agent.bpfsys import BpfError
from handover_agent.conntrack import ServingUdp
from handover_agent.credentials import Credentials
from handover_agent.datapath import Datapath
from handover_agent.devices import Listener
from handover_agent.events import Events
from handover_agent.facts import Facts
from handover_agent.footing import ApiCluster, KernelConntrack, KernelDatapath, KernelRules
from handover_agent.growth import Growth
from handover_agent.health.listening import NotListening
from handover_agent.health.local import LocalPolicies
from handover_agent.health.metrics import MetricsPort
from handover_agent.health.own import OwnPort
from handover_agent.health.proxy import ProxyHealth, ProxyPort
from handover_agent.health.services import ServicePorts, places
from handover_agent.health.takeover import Takeover
from handover_agent.kept import KeptTable
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.ladder.deadman import Limits
from handover_agent.ladder.journal import Journal
from handover_agent.ladder.machine import Ladder, Pace
from handover_agent.ladder.ports import Ground, RulesSeen
from handover_agent.layout import Sizes
from handover_agent.loops import Chore, Loops
from handover_agent.metrics import Exporter, Figures, registry
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.node import NodeObject, find_cgroup, kernel_release, node_info
from handover_agent.orders import Orders
from handover_agent.probe.rounds import Rounds
from handover_agent.probe.targets import Targets
from handover_agent.proxymetrics import AsKubeProxy
from handover_agent.pulse import Pulse
from handover_agent.report import Report, Writer, applying
from handover_agent.settings import Settings, SettingsError
from handover_agent.sizing import Need
from handover_agent.strays import Strays
from handover_agent.sync import Sync
from handover_agent.watch import Backoff, Feed

log = logging.getLogger(__name__)

_CHORE_S = 5.0
_BYPASSED_S = 2.0
_PRESSURE_S = 60.0
_KERNEL_S = 10.0


def credentials(settings: Settings) -> Credentials:
    """From a kubeconfig if one is named, else the pod's. Raises CredentialsError."""
    return Credentials.kubeconfig(settings.kubeconfig) if settings.kubeconfig else Credentials.in_cluster()


class Agent:
    """One node's agent. `run` until cancelled."""

    def __init__(self, settings: Settings) -> None:
        if not settings.node_name:
            raise SettingsError(
                "the node's name is not known: set NODE_NAME from spec.nodeName, or --node-name"
            )
        self._settings = settings
        state, node = settings.state, settings.node_name
        unread = NodeObject(node)
        cgroup = settings.cgroup or find_cgroup(settings.cgroup_search)
        self._client = Client(credentials(settings), memory=state.servers)
        self._model = Model()
        self._feed = Feed(self._client, self._model)
        self._report = Report(
            NodeMigrationStatus(agent=_agent_facts(settings), kernel=KernelFacts(release=kernel_release()))
        )
        self._table_pressed = asyncio.Event()
        self._pressure: Mapping[str, float] = {}
        self._events = Events(self._client, node)
        self._complaints = complaints.Complaints(self._events.tell)
        self._proxy = ProxyPort(settings.proxy_health_port, self._proxy_health)
        self._policies = LocalPolicies(self._model, node)
        self._as_kube_proxy = AsKubeProxy(
            self._model, self._policies, lambda: self._proxy.answers, lambda: self._proxy.held
        )
        self._port = Takeover(
            self._proxy,
            ServicePorts(lambda: self._proxy_health().healthy(datetime.now(UTC)), self._no_health_check),
            MetricsPort(
                str(settings.proxy_metrics_host),
                settings.proxy_metrics_port,
                registry(self._as_kube_proxy),
                state.metrics_address,
            ),
            self._policies,
            lambda: places(self._table.node),
        )
        self._facts = Facts(self._report, self._port)
        datapath = Datapath(settings.pins, cgroup, node_sockets_only=settings.socket_path == "node")
        self._datapath = KernelDatapath(datapath, self._sizes)
        self._devices = Listener()
        self._table = KeptTable(
            self._model,
            node_info(unread, local_addresses(), NodePortPlaces()),
            datapath.maps,
            NamesFile(state.names),
            stale=self._stale,
            changed=self._synced,
            watched=self._as_kube_proxy,
        )
        self._rules = KernelRules(
            state.snapshot,
            lambda behind_s: (
                self._table.table,
                self._table.lately.within(behind_s),
                self._table.node.local_addresses,
            ),
            told=self._rules_seen,
            compared=self._facts.compared,
            recorded=self._facts.recorded,
        )
        self._bypassed = bypassed.Looking(
            self._rules.early, self._model, self._table, told=self._facts.bypassed
        )
        self._cluster = ApiCluster(self._client, node)
        self._prober = Rounds(
            Targets(lambda: self._table.table, lambda: self._model.services).following,
            state.baseline,
            told=lambda probes: self._report.set(probes=probes),
        )
        self._report.set(probes=self._prober.probes)
        udp = ServingUdp(self._model)
        self._conntrack = KernelConntrack(lambda: udp.now(self._table.node), self._as_kube_proxy.reconciled)
        self._strays = Strays(self._conntrack, self._datapath, lambda: udp.now(self._table.node))
        self._ladder = Ladder(
            Ground(
                self._datapath,
                self._table,
                self._rules,
                self._cluster,
                self._port,
                self._prober,
                self._conntrack,
            ),
            Journal(state.journal),
            report=self._facts.standing,
            pace=Pace(grace_s=settings.grace_s),
        )
        self._growth = Growth(self._datapath, self._table, self._ladder.lock)
        self._loops = Loops(
            ladder=self._ladder,
            datapath=self._datapath,
            table=self._table,
            model=self._model,
            rules=self._rules,
            conntrack=self._conntrack,
            strays=self._strays,
            prober=self._prober,
            facts=self._facts,
            limits=Limits(unreachable_s=settings.dead_man_s) if settings.dead_man_s else None,
            unreachable=self._unreachable,
        )
        self._orders = Orders(
            self._client,
            unread,
            ladder=self._ladder,
            cluster=self._cluster,
            prober=self._prober,
            facts=self._facts,
            report=self._report,
            node_changed=self._loops.node_changed,
        )
        self._writer = Writer(
            self._report,
            applying(self._client, node, lambda: self._orders.wish.uid if self._orders.wish else ""),
            heartbeat_s=settings.heartbeat_s,
        )
        self._pulse = Pulse(self._facts, self._client)
        self._own = OwnPort(
            settings.health_port,
            unlively=self._pulse.stuck,
            unready=self._unready,
            registry=registry(Exporter(self._figures), self._as_kube_proxy),
        )
        self._kernel_error = ""

    async def run(self) -> None:
        """Until cancelled. Raises what makes a start impossible: AnotherAgent, OwnPortInUse, OSError."""
        handle = self._settings.state.lock()
        async with AsyncExitStack() as stack:
            stack.callback(os.close, handle)
            stack.enter_context(self._devices)
            await stack.enter_async_context(self._client)
            await self._own.start()
            stack.push_async_callback(self._own.stop)
            stack.push_async_callback(self._port.release)
            await self._look_at_kernel()
            async with asyncio.TaskGroup() as group:
                for name, task in self._tasks().items():
                    group.create_task(task, name=name)

    def _tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "api": self._connect_and_watch(),
            "ladder": self._walk(),
            "table": self._table.run(),
            "status": self._writer.run(),
            "pulse": self._pulse.run(),
            **self._loops.tasks(
                self._settings.verify_s,
                self._settings.probe_s,
                self._refresh_node,
                {
                    "devices": Chore(self._settings.verify_s, self._follow, self._devices.changed),
                    "ports": Chore(_CHORE_S, self._port.follow, self._port.changed),
                    "pressure": Chore(_PRESSURE_S, self._measure, asyncio.Event()),
                    "growth": Chore(_CHORE_S, self._growth.look, self._table_pressed),
                    "complaints": Chore(_CHORE_S, self._complain, asyncio.Event()),
                    "events": Chore(_CHORE_S, self._events.write, self._events.news),
                    "bypassed": Chore(_BYPASSED_S, self._bypassed.look, asyncio.Event()),
                    "kernel": Chore(_KERNEL_S, self._look_at_kernel, asyncio.Event()),
                },
            ),
        }

    async def _connect_and_watch(self) -> None:
        """Nothing is watched through the bootstrap address, which usually is the ClusterIP that we serve."""
        backoff = Backoff()
        while not self._client.direct:
            try:
                await self._client.connect()
            except ApiError as error:
                log.warning("no API server yet", extra={"error": str(error)})
            self._facts.api_server(self._client)
            if not self._client.direct:
                await asyncio.sleep(backoff.next_s())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run(), name="watch table")
            group.create_task(self._orders.run(), name="watch this node")

    async def _walk(self) -> None:
        pause = Backoff(first_s=1.0)
        while True:
            try:
                await self._ladder.start()
                break
            except (
                Exception
            ) as error:  # a tool that is missing, an unreadable table: said in the log and the status
                log.exception("cannot find out where this node stands", extra={"error": str(error)})
                self._facts.cannot_start(error)
                await asyncio.sleep(pause.next_s())
        await self._refresh_node()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ladder.run(), name="climb")
            await self._table.listed.wait()
            await early.fill(self._ladder.record, self._datapath, self._table)
            self._ladder.nudge()  # it has waited for that, with pauses of seconds

    async def _look_at_kernel(self) -> None:
        """Until it worked once."""
        if self._facts.kernel_features is not None:
            return
        try:
            features = await self._datapath.features()
        except BpfError as error:
            if str(error) != self._kernel_error:
                log.error("the kernel's features cannot be tried", extra={"error": str(error)})
            self._kernel_error = str(error)
            self._facts.kernel_not_tried(error)
            return
        self._facts.kernel_tried(
            KernelFacts(release=kernel_release(), features=features.found, missing=features.missing)
        )

    async def _follow(self) -> None:
        """A new pod's port gets its programs, and a new address of the node its NodePorts."""
        await self._datapath.follow()
        self._loops.node_changed.set()

    def _sizes(self) -> Sizes:
        """Asked for once the cluster has been listed, or at the latest when maps must be there."""
        settings = self._settings
        least = Sizes(frontends=settings.frontends, backends=settings.backends)
        return sizing.sizes(Need.of(self._table.table), sizing.connections(), least)

    def _synced(self, sync: Sync) -> None:
        if sync.full:
            self._table_pressed.set()
        self._facts.synced(sync)
        self._port.changed.set()

    async def _measure(self) -> None:
        self._pressure = await self._datapath.pressure()
        await self._datapath.forget_addresses()

    async def _complain(self) -> None:
        """Tell the owners of Services what they ask for in vain."""
        node, full = self._settings.node_name, self._table.sync.full
        if self._model.complete:
            self._complaints.now(
                [
                    *complaints.of_full_maps(full, node),
                    *complaints.of_pressed_maps(self._pressure, node),
                    *complaints.of_disputes(self._table.disputes),
                    *complaints.of_services(self._model.services.values()),
                    *complaints.of_unwritten(self._table.unwritten, node),
                    *complaints.of_bypassed(self._ahead_of(), node),
                ]
            )

    def _ahead_of(self) -> Sequence[bypassed.Found]:
        """Others' rules that packets come too late to, if our programs are attached."""
        attached = self._ladder.record.rung.height >= Rung.SERVING.height
        return self._bypassed.found if attached else ()

    def _no_health_check(self, service: str, port: int, error: NotListening) -> None:
        self._events.tell(complaints.of_health_check(service, port, error, self._settings.node_name))

    def _rules_seen(self, seen: RulesSeen) -> None:
        before = self._facts.node_ports
        self._facts.rules_seen(seen)
        if self._facts.node_ports != before:
            self._loops.node_changed.set()

    async def _refresh_node(self) -> None:
        """Addresses come and go on a node, and its zone label may be set late."""
        local = await asyncio.to_thread(local_addresses)
        if self._orders.node_looked_for:
            places = self._settings.places or self._facts.node_ports
            await self._table.set_node(node_info(self._orders.node, local, places))

    def _stale(self) -> str:
        return str(self._feed.error) if self._feed.error else ""

    def _unreachable(self) -> bool:
        if self._orders.wish is not None:
            return self._writer.unreachable
        return self._orders.error is not None

    def _unready(self) -> str:
        if not self._ladder.started.is_set():
            return "where this node stands is not known yet"
        if self._ladder.record.rung is Rung.STANDBY:
            return ""
        if not self._table.sync.open:
            return "the maps are not followed yet"
        if self._datapath.renewing:
            return "the programs of this version are not loaded yet"
        return ""

    def _proxy_health(self) -> ProxyHealth:
        sync = self._table.sync
        return ProxyHealth(sync.last_synced or datetime.now(UTC), sync.waiting_since, self._orders.eligible)

    def _figures(self) -> Figures:
        return Figures(
            status=self._report.status,
            sync=self._table.sync,
            fill_ratios={**self._table.fill_ratios, **self._pressure},
            repaired=self._table.repaired,
            strays=self._strays.found,
            counters=self._facts.counters,
        )


def _agent_facts(settings: Settings) -> AgentFacts:
    return AgentFacts(
        version=metadata.version("handover"),
        api_version=API_VERSION,
        pod=settings.pod_name,
        started_at=datetime.now(UTC),
    )
