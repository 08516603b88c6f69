"""What the agent does again and again besides walking the ladder: look, probe, reconcile, and let the keeper
go.

Each loop has its own pause and its own troubles: one that fails says so once and goes on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from handover_api.base import Feature, Rung
from handover_api.nodemigration import ProbeResult, Unserved

from handover_agent.conntrack import EverServed
from handover_agent.facts import Facts
from handover_agent.footing import KernelConntrack, KernelDatapath, KernelRules
from handover_agent.kept import KeptTable
from handover_agent.ladder.deadman import Limits, Vitals, must_restore
from handover_agent.ladder.machine import Ladder
from handover_agent.model import Model
from handover_agent.probe.rounds import Rounds
from handover_agent.strays import Strays
from handover_agent.unserved import all_unserved, foremost, lacking

log = logging.getLogger(__name__)

_FLOWS_S, _UDP_S, _UNSERVED_S = 5.0, 30.0, 2.0
_TELL_S = 1.0
"""As often as the kernel of a backend would say that nobody is there (net.ipv4.icmp_ratelimit)."""
_KEEPER_QUIET_S = 30.0
"""So long there must have been no old flow before the keeper goes."""
_MOST_UNSERVED = 100


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that somebody else wants done again and again: every `pause_s`, and when it is woken."""

    pause_s: float
    act: Callable[[], Awaitable[None]]
    wake: asyncio.Event


class Loops:
    """The loops, as coroutines for the runtime's task group."""

    def __init__(
        self,
        *,
        ladder: Ladder,
        datapath: KernelDatapath,
        table: KeptTable,
        model: Model,
        rules: KernelRules,
        conntrack: KernelConntrack,
        strays: Strays,
        prober: Rounds,
        facts: Facts,
        limits: Limits | None,
        unreachable: Callable[[], bool],
    ) -> None:
        self._ladder, self._datapath, self._table, self._model, self._rules = (
            ladder,
            datapath,
            table,
            model,
            rules,
        )
        self._conntrack, self._strays, self._prober, self._facts = conntrack, strays, prober, facts
        self._limits, self._unreachable = limits, unreachable
        self.node_changed = asyncio.Event()
        self._quiet_since: float | None = None
        self._failing: set[str] = set()
        self._unserved_seen: tuple[int, frozenset[Feature]] | None = None
        self._ever_served = EverServed()
        self._unreachable_since: float | None = None
        self._bad_rounds: deque[ProbeResult] = deque(maxlen=limits.rounds if limits else 1)

    def tasks(
        self,
        verify_s: float,
        probe_s: float,
        refresh_node: Callable[[], Awaitable[None]],
        chores: Mapping[str, Chore],
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """Name → loop."""
        return {
            "verify": self._repeat("verify", verify_s, self._verify),
            "node": self._repeat("node", verify_s, refresh_node, self.node_changed),
            "unserved": self._repeat("unserved", _UNSERVED_S, self._look_for_unserved),
            "flows": self._repeat("flows", _FLOWS_S, self._count_flows),
            "strays": self._repeat("strays", _UDP_S, self._look_for_strays, self._table.udp_changed),
            "stranded": self._repeat("stranded", _TELL_S, self._strays.tell),
            "probes": self._repeat("probes", probe_s, self._probe, self._ladder.arrived),
            **{
                name: self._repeat(name, chore.pause_s, chore.act, chore.wake)
                for name, chore in chores.items()
            },
        }

    async def _repeat(
        self, name: str, pause_s: float, act: Callable[[], Awaitable[None]], wake: asyncio.Event | None = None
    ) -> None:
        """Act, then wait for the pause or for what wakes it."""
        await self._ladder.started.wait()
        woken = wake or asyncio.Event()
        while True:
            woken.clear()
            try:
                await act()
                self._failing.discard(name)
            except Exception as error:  # a loop that observes must not end because it could not look once
                if name not in self._failing:
                    log.exception("cannot look", extra={"loop": name, "error": str(error)})
                self._failing.add(name)
            try:
                async with asyncio.timeout(pause_s):
                    await woken.wait()
            except TimeoutError:
                continue

    async def _verify(self) -> None:
        """The kernel's maps and kube-proxy's rules, read anew."""
        if self._ladder.lock.locked():
            return  # a step reads them itself
        if self._table.sync.open:
            self._facts.verified(await self._table.verify())
        await self._rules.inspect()
        await self._rules.snapshot()

    async def _look_for_unserved(self) -> None:
        features = self._facts.kernel_features
        if features is None:
            return  # nobody knows yet; `facts` says so
        without = lacking(features)
        if self._model.complete and (self._model.revision, without) != self._unserved_seen:
            self._unserved_seen = (self._model.revision, without)
            items = foremost(all_unserved(self._model.services.values(), without), _MOST_UNSERVED)
            self._facts.unserved(
                [
                    Unserved(feature=i.feature, service=i.service[:512], message=i.message[:1024])
                    for i in items
                ]
            )

    async def _count_flows(self) -> None:
        record = self._ladder.record
        if record.highest is Rung.STANDBY:
            self._ever_served.clear()
            self._facts.count(old_flows=0, translated=0, counters={})
            return
        old = await self._old_flows() if record.rung.height >= Rung.SERVING.height else 0
        self._facts.count(
            old_flows=old,
            translated=await self._datapath.translated(),
            counters=await self._datapath.counters(),
        )
        await self._release_keeper(old)

    async def _old_flows(self) -> int | None:
        """None while it cannot be known: without a table, nobody can tell which flows go to Services.

        A Service that was deleted meanwhile may still have connections: its frontends stay on the list. Once the keeper
        has gone there are none any more, nor can there be new ones: its rules went before it, and conntrack is not read.
        """
        if self._ladder.record.keeper_dropped:
            self._ever_served.clear()
            return 0
        if not self._table.sync.open:
            return None
        return await self._conntrack.old_flows(self._ever_served.update(self._table.table))

    async def _release_keeper(self, old_flows: int | None) -> None:
        """At a stable Sole, when the old flows have been gone for a while, nobody needs the keeper."""
        record = self._ladder.record
        if record.rung is not Rung.SOLE or record.towards is not None or old_flows != 0:
            self._quiet_since = None
            return
        now = time.monotonic()
        self._quiet_since = self._quiet_since or now
        if record.keeper_dropped or now - self._quiet_since < _KEEPER_QUIET_S:
            return
        async with self._ladder.lock:
            if self._ladder.record == record:
                self._ladder.remember(replace(record, keeper_dropped=True))
                await self._datapath.forget_left()  # it goes on translating only while something is in force
                await self._rules.release_keeper()
                log.info("keeper released: the old flows have ended")

    async def _look_for_strays(self) -> None:
        """kube-proxy looks through conntrack while it runs; where it does not, nobody else would."""
        record = self._ladder.record
        if self._model.complete:
            self._strays.refresh()
        if record.highest is not Rung.STANDBY and self._table.sync.in_sync:
            alone = record.rung is Rung.SOLE or not self._facts.kube_proxy_running
            await self._strays.look(conntrack=alone)
        await asyncio.sleep(1.0)  # a Service that is scaled changes several times

    async def _probe(self) -> None:
        self._ladder.arrived.clear()
        if self._ladder.record.rung.height < Rung.SERVING.height:
            self._bad_rounds.clear()
            return
        if (await self._datapath.programs()).serving:
            await self._prober.latest("ebpf")
            await self._watch_over()

    async def _watch_over(self) -> None:
        """The dead-man timer: counts what happens while nobody can be asked."""
        latest, now = self._prober.probes.latest, time.monotonic()
        if not self._unreachable() or latest is None:
            self._unreachable_since = None
            self._bad_rounds.clear()
            return
        self._unreachable_since = self._unreachable_since or now
        self._bad_rounds.append(latest)
        vitals = Vitals(
            rung=self._ladder.record.rung,
            unreachable_s=now - self._unreachable_since,
            baseline=self._prober.probes.baseline,
            rounds=tuple(self._bad_rounds),
            snapshot=self._rules.restorable,
        )
        if self._limits is not None and must_restore(vitals, self._limits):
            await self._ladder.trip()
            self._bad_rounds.clear()
