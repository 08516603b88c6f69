"""The wanted table of a whole cluster, kept up Service by Service.

Two Services may claim one frontend (two externalIPs, or an externalIP that is somebody's ClusterIP). Who gets
it must be the same on every node, in every order of events and after every restart: a ClusterIP, which the
API server gives out once, goes before everything else; then the older Service; then the name.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from handover_agent.compile import NodeInfo, compile_service
from handover_agent.model import Model
from handover_agent.objects import Service, Slice
from handover_agent.table import Entry, FrontendKey, Table

Delta = Mapping[FrontendKey, Entry | None]


class _Claims(NamedTuple):
    created: str
    cluster_ips: int  # so many of the keys are ClusterIPs, the first ones
    keys: tuple[FrontendKey, ...]


class WantedTable:
    """The table for one node, and what changed in it since that was last taken."""

    def __init__(self, node: NodeInfo) -> None:
        self._node = node
        self._table: dict[FrontendKey, Entry] = {}
        self._claims: dict[str, _Claims] = {}
        self._contested: dict[FrontendKey, dict[str, Entry]] = {}  # where more than one Service claims
        self._delta: dict[FrontendKey, Entry | None] = {}

    @property
    def table(self) -> Table:
        """All that is wanted now (a live view)."""
        return self._table

    @property
    def node(self) -> NodeInfo:
        return self._node

    def set_node(self, node: NodeInfo, model: Model) -> None:
        """Compile everything again if the node (addresses, zone) is not what it was."""
        if node != self._node:
            self._node = node
            self._update(model, list(model.services))

    def refresh(self, model: Model) -> Delta:
        """Compile what is dirty in the model; returns what changed in the table, None meaning gone.

        Raises NotListed until the model is complete.
        """
        self._update(model, sorted(model.take_dirty()))  # one order, so that every node meets limits alike
        delta, self._delta = self._delta, {}
        return delta

    def _update(self, model: Model, names: Iterable[str]) -> None:
        for name in names:
            self.update(name, model.services.get(name), model.slices(name))

    def update(self, name: str, service: Service | None, slices: Collection[Slice]) -> None:
        """Compile one Service anew; None when it is gone."""
        rows, cluster_ips = compile_service(service, slices, self._node) if service else ((), 0)
        old = self._claims.pop(name, None)
        if rows and service is not None:
            self._claims[name] = _Claims(service.created, cluster_ips, tuple(key for key, _ in rows))
        fresh = dict(rows)
        if old is not None:
            for key in old.keys:
                if key not in fresh:
                    self._settle(key, name, None)
        for key, entry in fresh.items():
            self._settle(key, name, entry)

    def _settle(self, key: FrontendKey, name: str, entry: Entry | None) -> None:
        """`name` claims `key` with this entry, or (None) no longer does: who has it now?"""
        holder = self._table.get(key)
        contest = self._contested.get(key)
        if contest is None and holder is not None and _owner(holder) != name and entry is not None:
            contest = self._contested[key] = {_owner(holder): holder}
        if contest is None:
            self._set(key, entry)
            return
        if entry is None:
            contest.pop(name, None)
        else:
            contest[name] = entry
        winner = min(contest, key=lambda claimant: self._rank(claimant, key))
        self._set(key, contest[winner])
        if len(contest) == 1:
            del self._contested[key]

    def _rank(self, name: str, key: FrontendKey) -> tuple[bool, str, str]:
        claims = self._claims[name]
        return key not in claims.keys[: claims.cluster_ips], claims.created, name

    def _set(self, key: FrontendKey, entry: Entry | None) -> None:
        if entry is None:
            if self._table.pop(key, None) is not None:
                self._delta[key] = None
        elif self._table.get(key) != entry:
            self._table[key] = self._delta[key] = entry


def _owner(entry: Entry) -> str:
    return entry.service.partition(":")[0]


def compile_table(model: Model, node: NodeInfo) -> Table:
    """The whole table, from nothing. Raises NotListed until the model is complete."""
    model.require_complete()
    wanted = WantedTable(node)
    for name, service in model.services.items():
        wanted.update(name, service, model.slices(name))
    return dict(wanted.table)
