"""The wanted table of a whole cluster, kept up Service by Service.

Two Services may claim one frontend (two externalIPs, or an externalIP that is somebody's ClusterIP). Who gets
it must be the same on every node, in every order of events and after every restart: a ClusterIP, which the
API server gives out once, goes before everything else; then the older Service; then the name. Whoever has a
frontend has it for arrivals from outside too: one Service's policy never applies to another one's backends.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from handover_agent.compile import NodeInfo, Row, compile_service
from handover_agent.model import Model
from handover_agent.objects import Service, Slice
from handover_agent.table import Entry, FrontendKey, Scope, Table

Delta = Mapping[FrontendKey, Entry | None]


class _Claims(NamedTuple):
    created: str
    cluster_ips: int  # so many of the keys are ClusterIPs, the first ones
    keys: tuple[FrontendKey, ...]


class Dispute(NamedTuple):
    """A frontend that a Service ("namespace/name") asks for and another one has."""

    key: FrontendKey
    loser: str
    owner: str


class WantedTable:
    """The table for one node, and what changed in it since that was last taken."""

    def __init__(self, node: NodeInfo) -> None:
        self._node = node
        self._table: dict[FrontendKey, Entry] = {}
        self._claims: dict[str, _Claims] = {}
        self._contested: dict[FrontendKey, dict[str, Row]] = {}  # where more than one Service claims
        self._delta: dict[FrontendKey, Entry | None] = {}
        self._before: dict[FrontendKey, Entry | None] = {}
        self.replaced: Delta = {}
        """What the frontends of the last refresh's delta were before it."""

    @property
    def table(self) -> Table:
        """All that is wanted now (a live view)."""
        return self._table

    def disputes(self) -> list[Dispute]:
        """Who asks in vain, in a stable order."""
        return sorted(
            Dispute(key, claimant, _owner(self._table[key]))
            for key, claimants in self._contested.items()
            for claimant in claimants
            if claimant != _owner(self._table[key])
        )

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
        self.replaced, self._before = self._before, {}
        return delta

    def _update(self, model: Model, names: Iterable[str]) -> None:
        for name in names:
            self.update(name, model.services.get(name), model.slices(name))

    def update(self, name: str, service: Service | None, slices: Collection[Slice]) -> None:
        """Compile one Service anew; None when it is gone."""
        rows, cluster_ips = compile_service(service, slices, self._node) if service else ((), 0)
        old = self._claims.pop(name, None)
        if rows and service is not None:
            self._claims[name] = _Claims(service.created, cluster_ips, tuple(row.key for row in rows))
        if old is not None:
            fresh = {row.key for row in rows}
            for key in old.keys:
                if key not in fresh:
                    self._settle(key, name, None)
        for row in rows:
            self._settle(row.key, name, row)

    def _settle(self, key: FrontendKey, name: str, row: Row | None) -> None:
        """`name` claims `key` with this row, or (None) no longer does: who has it now?"""
        holder = self._table.get(key)
        contest = self._contested.get(key)
        if contest is None and holder is not None and _owner(holder) != name and row is not None:
            held = Row(key, holder, self._table.get(_external(key)))
            contest = self._contested[key] = {_owner(holder): held}
        if contest is None:
            self._set(key, row)
            return
        if row is None:
            contest.pop(name, None)
        else:
            contest[name] = row
        winner = min(contest, key=lambda claimant: self._rank(claimant, key))
        self._set(key, contest[winner])
        if len(contest) == 1:
            del self._contested[key]

    def _rank(self, name: str, key: FrontendKey) -> tuple[bool, str, str]:
        claims = self._claims[name]
        return key not in claims.keys[: claims.cluster_ips], claims.created, name

    def _set(self, key: FrontendKey, row: Row | None) -> None:
        before = self._table.get(key)
        if row is not None:
            self._put(key, row.entry)
            if row.external is not None:
                self._put(_external(key), row.external)
                return
        elif before is not None:
            self._drop(key)
        if before is not None:
            self._drop(_external(key))

    def _put(self, key: FrontendKey, entry: Entry) -> None:
        before = self._table.get(key)
        if before != entry:
            self._before.setdefault(key, before)
            self._table[key] = self._delta[key] = entry

    def _drop(self, key: FrontendKey) -> None:
        before = self._table.pop(key, None)
        if before is not None:
            self._before.setdefault(key, before)
            self._delta[key] = None


def _external(key: FrontendKey) -> FrontendKey:
    return FrontendKey(key.address, key.port, key.protocol, Scope.EXTERNAL)


def _owner(entry: Entry) -> str:
    return entry.service.partition(":")[0]
