"""The Services and EndpointSlices as last seen, and which Services something changed for.

The watch feeds it, the wanted table is derived from it. It forgets nothing by itself and decides nothing: a
Service is *dirty* when it, or a slice of it, is not what it was when the dirty set was last taken. Nothing
may be compiled before both kinds have been listed once, or the first table would refuse every Service whose
endpoints are not there yet.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from handover_agent.objects import Service, Slice

_NONE: Mapping[str, Slice] = {}


class Trigger(NamedTuple):
    """When a change of a Service's endpoints came about in the cluster, in Unix time."""

    service: str
    ipv4: bool
    at: float


class NotListed(Exception):
    """Something asked for a table before Services and EndpointSlices had both been listed."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"no table yet: {missing} not listed; wait for the watch's `synced`")


class Services:
    """The sink of the Services' watch."""

    def __init__(self, model: "Model") -> None:
        self._model = model

    def replace(self, objects: Iterable[Service]) -> None:
        """Take over a whole list."""
        model, fresh = self._model, {service.key: service for service in objects}
        old, model.services = model.services, fresh
        model.listed_services = True
        changed = [key for key in old.keys() | fresh.keys() if old.get(key) != fresh.get(key)]
        model.service_changes += len(changed)
        model.touch(*changed)

    def put(self, service: Service) -> None:
        """Take over one that was added or modified."""
        if self._model.services.get(service.key) != service:
            self._model.services[service.key] = service
            self._model.service_changes += 1
            self._model.touch(service.key)

    def remove(self, service: Service) -> None:
        """Drop one that is gone, or no longer matches the watch's selector."""
        if self._model.services.pop(service.key, None) is not None:
            self._model.service_changes += 1
            self._model.touch(service.key)


class Slices:
    """The sink of the EndpointSlices' watch."""

    def __init__(self, model: "Model") -> None:
        self._model = model

    def replace(self, objects: Iterable[Slice]) -> None:
        """Take over a whole list."""
        model, old = self._model, self._model.slices_by_service
        fresh: dict[str, dict[str, Slice]] = {}
        for slice_ in objects:
            if slice_.service:
                bare = _bare(slice_)
                fresh.setdefault(slice_.service, {})[slice_.key] = bare
                if old.get(slice_.service, _NONE).get(slice_.key) != bare:
                    self._note(slice_)
        gone = [owner for key, owner in model.owners.items() if key not in fresh.get(owner, _NONE)]
        model.endpoint_changes += len(gone)
        model.forget_triggers(*gone)
        model.slices_by_service = fresh
        model.owners = {key: service for service, slices in fresh.items() for key in slices}
        model.listed_slices = True
        model.touch(*(key for key in old.keys() | fresh.keys() if old.get(key) != fresh.get(key)))

    def put(self, slice_: Slice) -> None:
        """Take over one that was added or modified; its label may have moved it to another Service."""
        before = self._model.owners.get(slice_.key)
        if before is not None and before != slice_.service:
            self.remove(slice_)
        if not slice_.service:
            return
        slices, bare = self._model.slices_by_service.setdefault(slice_.service, {}), _bare(slice_)
        if slices.get(slice_.key) != bare:
            slices[slice_.key] = bare
            self._note(slice_)
            self._model.owners[slice_.key] = slice_.service
            self._model.touch(slice_.service)

    def remove(self, slice_: Slice) -> None:
        """Drop one that is gone."""
        owner = self._model.owners.pop(slice_.key, None)
        if owner is None:
            return
        slices = self._model.slices_by_service[owner]
        del slices[slice_.key]
        if not slices:
            del self._model.slices_by_service[owner]
        self._model.endpoint_changes += 1
        self._model.forget_triggers(owner)
        self._model.touch(owner)

    def _note(self, slice_: Slice) -> None:
        model = self._model
        model.endpoint_changes += 1
        if slice_.triggered > model.since:
            model.triggers.append(Trigger(slice_.service, slice_.ipv4, slice_.triggered))


def _bare(slice_: Slice) -> Slice:
    """Without the time, which is no part of what is wanted."""
    return replace(slice_, triggered=0.0) if slice_.triggered else slice_


class Model:
    """What the cluster wants, in one place; used from one event loop."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.slices_by_service: dict[str, dict[str, Slice]] = {}
        self.owners: dict[str, str] = {}  # slice → Service
        self.dirty: set[str] = set()
        self.listed_services = self.listed_slices = False
        self.services_sink, self.slices_sink = Services(self), Slices(self)
        self.changed = asyncio.Event()  # set while somebody has changes to take
        self.revision = 0
        self.since = time.time()  # what came about before this, others were asked to see to
        self.service_changes = self.endpoint_changes = 0
        self.triggers: list[Trigger] = []  # of changes that nobody has taken yet
        self.touched_at = 0.0  # in Unix time
        self._followers: list[set[str]] = []

    def follow(self) -> set[str]:
        """A set of one's own that the Services which change are added to; the follower takes them out."""
        followed = set(self.services)
        self._followers.append(followed)
        return followed

    def touch(self, *services: str) -> None:
        """Something changed (for these Services)."""
        self.dirty.update(services)
        for followed in self._followers:
            followed.update(services)
        self.revision += 1
        self.touched_at = time.time()
        self.changed.set()

    def forget_triggers(self, *services: str) -> None:
        """Slices of theirs are gone: the time that such a slice names is that of an earlier change."""
        if self.triggers and services:
            self.triggers = [trigger for trigger in self.triggers if trigger.service not in services]

    @property
    def complete(self) -> bool:
        """Whether both kinds have been listed once, so that a table may be made."""
        return self.listed_services and self.listed_slices

    def require_complete(self) -> None:
        """Raises NotListed until both kinds have been listed once."""
        if not self.complete:
            raise NotListed("EndpointSlices" if self.listed_services else "Services")

    def slices(self, service: str) -> Collection[Slice]:
        """The EndpointSlices of a Service ("namespace/name")."""
        return self.slices_by_service.get(service, _NONE).values()

    def take_dirty(self) -> set[str]:
        """The Services that changed since the last call; `changed` is cleared. Raises NotListed."""
        self.require_complete()
        taken, self.dirty = self.dirty, set()
        self.changed.clear()
        return taken
