"""kube-proxy's rules, their snapshot and the keeper, and the packet path's table, which the same tools write."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from handover_api.nodemigration import ProxyMode

from handover_agent import bypassed, kubeproxy
from handover_agent.kubeproxy import Snapshot, SnapshotInvalid, forwarding, keeper, nodeports
from handover_agent.kubeproxy.iptables import Source
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.kubeproxy.rulesets import Rules
from handover_agent.ladder.ports import RulesSeen
from handover_agent.lately import Before
from handover_agent.packetpath import handing
from handover_agent.packetpath import rules as path_rules
from handover_agent.table import Protocol, Table
from handover_agent.thread import Thread

log = logging.getLogger(__name__)


_Early = Mapping[Source, Mapping[str, Rules]]


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """What is asked of the snapshot again and again: to read and verify it costs as much as it has rules."""

    digest: str = ""
    mode: ProxyMode = ProxyMode.NONE
    node_ports: NodePortPlaces | None = None
    filters: forwarding.Recorded = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        places = nodeports.places(snapshot.rulesets, snapshot.nft)
        return cls(snapshot.digest, snapshot.manifest.mode, places, snapshot.filters)


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
        self._on_disk = _OnDisk()
        self._early_rules: _Early | None = None
        self._early: tuple[_Early, tuple[bypassed.Hooked, ...]] | None = None

    @property
    def digest(self) -> str:
        """Of the snapshot on disk, as last read."""
        return self._on_disk.digest

    @property
    def restorable(self) -> bool:
        """Whether there are any rules of kube-proxy's in it."""
        return bool(self.digest) and self._on_disk.mode is not ProxyMode.NONE

    async def inspect(self) -> RulesSeen:
        seen, early = await self._thread(_inspect)
        self._early_rules = self._early_rules if early is None else early
        self._told(seen)
        return seen

    async def early(self) -> tuple[bypassed.Hooked, ...] | None:
        """Others' rules that come before kube-proxy's DNAT, the same value until the next inspection; None before the
        first. Not a part of that: what of others' cannot be read must keep no step of the ladder waiting.
        """
        rules = self._early_rules
        if rules is None:
            return None
        if self._early is None or self._early[0] is not rules:
            self._early = (rules, await self._thread(bypassed.read, rules))
        return self._early[1]

    async def parity(self, behind_s: float) -> list[str]:
        theirs = await self._thread(lambda: kubeproxy.frontends_of(kubeproxy.inspect()))
        table, before, local = self._table(behind_s)  # later than the rules, or they could be ahead of it
        ours = dict(table)
        differences = await self._thread(kubeproxy.compare, ours, theirs, frozenset(local), before)
        self._compared(differences, len(theirs))
        return differences

    async def take_snapshot(self) -> str:
        self._note(await self._thread(lambda: _OnDisk.of(Snapshot.take(self._directory))))
        log.info("snapshot taken", extra={"digest": self.digest, "directory": str(self._directory)})
        return self.digest

    async def snapshot(self) -> str:
        self._note(await self._thread(self._read))
        return self.digest

    async def restore(self) -> None:
        written = await self._thread(lambda: Snapshot.load(self._directory).restore())
        log.info("kube-proxy's rules put back", extra={"places": ", ".join(written)})

    async def flush(self) -> None:
        removed = await self._thread(lambda: kubeproxy.flush(Snapshot.load(self._directory)))
        log.info("kube-proxy's rules removed", extra={"items": len(removed)})

    async def forget_snapshot(self) -> None:
        await self._thread(Snapshot.remove, self._directory)
        self._note(_OnDisk())

    async def ensure_keeper(self) -> None:
        await self._thread(keeper.ensure, self._on_disk.filters)

    async def ensure_accepts(self) -> None:
        await self._thread(forwarding.ensure, self._on_disk.filters)

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

    def _note(self, found: _OnDisk) -> None:
        self._on_disk = found
        self._recorded(found.digest, found.mode, found.node_ports)

    def _read(self) -> _OnDisk:
        if not Snapshot.is_there(self._directory):
            return _OnDisk()
        try:
            return _OnDisk.of(Snapshot.load(self._directory))
        except SnapshotInvalid as error:
            log.error("snapshot unusable", extra={"error": str(error)})
            return _OnDisk()


def _inspect() -> tuple[RulesSeen, _Early | None]:
    try:
        found = kubeproxy.inspect()
    except kubeproxy.NotSupported as error:
        mode = ProxyMode.IPVS if error.mode == "ipvs" else ProxyMode.NONE
        return RulesSeen(mode=mode, count=1, unsupported=str(error)), None
    seen = RulesSeen(
        mode=found.mode,
        backends=found.backends,
        count=found.rule_count,
        leftovers=tuple(found.leftovers()),
        node_ports=nodeports.places(found.rulesets, found.nft),
    )
    tables = {
        source: {name: rules[name] for name in bypassed.TABLES if name in rules}
        for source, rules in found.rulesets.items()
    }
    return seen, tables
