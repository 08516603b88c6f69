"""Carrying out what a plan asks for: one action, one or two writes, with preconditions on each.

Nothing is retried here beyond the moment's conflicts: what fails is planned again from what the cluster says
then.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from handover_api.nodemigration import NodeMigrationSpec

from handover_operator import drain, places
from handover_operator.actions import (
    Action,
    AddFinalizer,
    DeleteNodeMigration,
    DrainKubeProxy,
    EnsureNodeMigration,
    PrepareDaemonSet,
    RemoveFinalizer,
    RestoreDaemonSet,
    SetRung,
    UndrainKubeProxy,
)
from handover_operator.affinity import DRAINED, LABEL
from handover_operator.api import Api, ApiError, ConflictError, InvalidError, NotFoundError, Object
from handover_operator.cluster import Cluster
from handover_operator.facts import MigrationFacts
from handover_operator.observe import FINALIZER
from handover_operator.places import Place

log = logging.getLogger(__name__)

_TRIES = 4
"""kube-proxy's DaemonSet changes by itself while its pods come and go; a write asks again with the newest."""


class ActionFailedError(Exception):
    """An action could not be carried out: says which, and what the API server answered."""

    def __init__(self, action: Action, cause: Exception) -> None:
        super().__init__(f"{type(action).__name__}: {cause}")
        self.action, self.cause = action, cause

    @property
    def outdated(self) -> bool:
        """Somebody was faster; the next plan will know."""
        return isinstance(self.cause, ConflictError | NotFoundError)

    @property
    def refused(self) -> bool:
        """Trying again will not help: a right is missing, or something does not let it pass."""
        if isinstance(self.cause, drain.RecordError):
            return True
        return isinstance(self.cause, ApiError) and self.cause.status in (400, 403, 422)


class Actor:
    """Carries out actions for one migration."""

    def __init__(self, api: Api, cluster: Cluster) -> None:
        self._api = api
        self._cluster = cluster
        self._by_type: dict[type[Any], Callable[[Any, MigrationFacts], Awaitable[None]]] = {
            AddFinalizer: self._add_finalizer,
            RemoveFinalizer: self._remove_finalizer,
            PrepareDaemonSet: self._prepare,
            RestoreDaemonSet: self._restore,
            EnsureNodeMigration: self._ensure,
            DeleteNodeMigration: self._delete,
            SetRung: self._set_rung,
            DrainKubeProxy: self._drain,
            UndrainKubeProxy: self._undrain,
        }

    async def carry_out(self, action: Action, migration: MigrationFacts) -> None:
        """Do it. Raises ActionFailedError."""
        try:
            await self._by_type[type(action)](action, migration)
        except (ApiError, drain.RecordError) as error:
            raise ActionFailedError(action, error) from error

    async def _add_finalizer(self, _action: AddFinalizer, migration: MigrationFacts) -> None:
        metadata = {"name": migration.name, "uid": migration.uid, "finalizers": [FINALIZER]}
        place = places.PROXY_MIGRATION.at(migration.name)
        self._cluster.learn(await self._api.apply(place, {"metadata": metadata}))

    async def _remove_finalizer(self, _action: RemoveFinalizer, migration: MigrationFacts) -> None:
        place = places.PROXY_MIGRATION.at(migration.name)
        identity = {"name": migration.name, "uid": migration.uid}
        try:
            item = await self._api.apply(place, {"metadata": identity})
            left = [name for name in item["metadata"].get("finalizers", []) if name != FINALIZER]
            if left != item["metadata"].get("finalizers", []):
                # Somebody else claims it too, a copy of the object in Git perhaps; it is ours to take away.
                version = item["metadata"]["resourceVersion"]
                patch = {"metadata": {"uid": migration.uid, "resourceVersion": version, "finalizers": left}}
                item = await self._api.merge_patch(place, patch)
            self._cluster.learn(item)
        except NotFoundError:
            return  # it went with its finalizer

    async def _prepare(self, _action: PrepareDaemonSet, migration: MigrationFacts) -> None:
        async def once(place: Place, item: Object) -> Object:
            return await self._api.apply(place, drain.preparation(item))

        await self._on_daemon_set(migration, once)

    async def _restore(self, _action: RestoreDaemonSet, migration: MigrationFacts) -> None:
        async def once(place: Place, item: Object) -> Object:
            back = drain.restoration(item)
            if back.operations:
                item = await self._api.json_patch(place, back.operations, back.manager)
            if drain.remains(item):
                item = await self._api.apply(place, drain.nothing_of_ours(item))
            return item

        await self._on_daemon_set(migration, once)

    async def _on_daemon_set(
        self, migration: MigrationFacts, once: Callable[[Place, Object], Awaitable[Object]]
    ) -> None:
        """Write on the newest version of kube-proxy's DaemonSet, and again when it changed in between."""
        ref = migration.spec.kube_proxy
        place = places.DAEMON_SET.at(ref.name, ref.namespace)
        for attempt in range(1, _TRIES + 1):
            item = await self._api.get(place)
            try:
                self._cluster.learn(await once(place, item))
                return
            except (ConflictError, InvalidError) as error:
                # A failed `test` of a JSON patch is answered as invalid.
                if attempt == _TRIES:
                    raise
                log.info("%s; asking again", error)

    async def _ensure(self, action: EnsureNodeMigration, _migration: MigrationFacts) -> None:
        place = places.NODE_MIGRATION.at(action.node)
        body = _node_migration(action.spec)
        if action.uid:
            body["metadata"]["uid"] = action.uid
        elif await self._exists(place):
            # An apply would put an existing one back to where a new one begins.
            raise ConflictError(f"create {place}", 409, "AlreadyExists", "it exists by now")
        self._cluster.learn(await self._api.apply(place, body))

    async def _set_rung(self, action: SetRung, _migration: MigrationFacts) -> None:
        """Only when the NodeMigration is the one that was planned on: same uid, same generation."""
        place = places.NODE_MIGRATION.at(action.node)
        seen = self._cluster.seen_node_migration(action.node)
        body = _node_migration(action.spec)
        if seen is not None and (seen.facts.uid, seen.facts.generation) == (action.uid, action.generation):
            body["metadata"] |= {"uid": action.uid, "resourceVersion": seen.version}
            try:
                self._cluster.learn(await self._api.apply(place, body))
                return
            except ConflictError:
                pass  # its agent has reported in between, most likely, which changes no plan by itself
        newest = (await self._api.get(place))["metadata"]
        if (newest["uid"], newest["generation"]) != (action.uid, action.generation):
            raise ConflictError(
                f"order {action.node} to {action.rung}", 409, "Outdated", "planned on an older one"
            )
        body["metadata"] |= {"uid": action.uid, "resourceVersion": newest["resourceVersion"]}
        self._cluster.learn(await self._api.apply(place, body))

    async def _delete(self, action: DeleteNodeMigration, _migration: MigrationFacts) -> None:
        try:
            await self._api.delete(places.NODE_MIGRATION.at(action.node), action.uid)
        except NotFoundError:
            return

    async def _drain(self, action: DrainKubeProxy, _migration: MigrationFacts) -> None:
        place = places.NODE.at(action.node)
        identity = {"name": action.node, "uid": self._node_uid(place)}
        self._cluster.learn(
            await self._api.apply(place, {"metadata": {**identity, "labels": {LABEL: DRAINED}}})
        )

    async def _undrain(self, action: UndrainKubeProxy, _migration: MigrationFacts) -> None:
        # Not by an empty apply: the label has to go whoever put it there.
        place = places.NODE.at(action.node)
        patch = {"metadata": {"uid": self._node_uid(place), "labels": {LABEL: None}}}
        self._cluster.learn(await self._api.merge_patch(place, patch))

    def _node_uid(self, place: Place) -> str:
        uid = self._cluster.node_uid(place.name)
        if uid is None:
            raise NotFoundError(f"write {place}", 404, "NotFound", "the node is gone")
        return uid

    async def _exists(self, place: Place) -> bool:
        try:
            await self._api.get(place)
        except NotFoundError:
            return False
        return True


def _node_migration(spec: NodeMigrationSpec) -> dict[str, Any]:
    """A NodeMigration as we apply it: the whole spec, so that what is left out goes away.

    It has no owner: who deletes the ProxyMigration in the foreground, as Argo CD does, would take away all of them at
    once, and with them every order and its order.
    """
    return {
        "metadata": {"name": spec.node_name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def node_of(action: Action) -> str | None:
    """The node that an action is about, if it is about one."""
    node: str | None = getattr(action, "node", None)
    return node
