"""What happened, told as Kubernetes Events: `kubectl describe pm` and `kubectl describe node` show them.

A help for people, nothing more: no step waits for an Event, and none is taken back because one could not be
written.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from handover_operator import places
from handover_operator.actions import Event
from handover_operator.api import MANAGER, Api, ApiError, ConflictError
from handover_operator.facts import MigrationFacts
from handover_operator.places import Place

log = logging.getLogger(__name__)

_NAMESPACE = "default"  # where the API wants the events of cluster-scoped objects
_MESSAGE_BYTES = 1024
_ECHO_S = 10.0  # a plan made before our own write has come back asks for the same again
_SUFFIX = 16

_Told = tuple[str, str, str | None]


class Reporter:
    """Writes Events, each happening once."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._told: dict[_Told, float] = {}

    async def tell(
        self, event: Event, migration: MigrationFacts, node_uid: str | None, now: datetime
    ) -> None:
        """Tell it about the ProxyMigration, and about the node if it is about one. Never raises ApiError."""
        told: _Told = (event.reason, event.message, event.node)
        moment = self._clock()
        self._told = {key: at for key, at in self._told.items() if moment - at < _ECHO_S}
        if told in self._told:
            return
        self._told[told] = moment
        log.log(
            logging.WARNING if event.warning else logging.INFO,
            "%s",
            event.message,
            extra={"reason": str(event.reason), "node": event.node, "migration": migration.name},
        )
        message = f"{event.node}: {event.message}" if event.node else event.message
        await self._write(event, places.PROXY_MIGRATION.at(migration.name), migration.uid, message, now)
        if event.node and node_uid:
            await self._write(event, places.NODE.at(event.node), node_uid, event.message, now)

    async def _write(self, event: Event, about: Place, uid: str, message: str, now: datetime) -> None:
        body = body_of(event, about, uid, message, now)
        try:
            try:
                await self._api.create(places.EVENT, body, _NAMESPACE)
            except ConflictError:
                place = places.EVENT.at(body["metadata"]["name"], _NAMESPACE)
                count = int((await self._api.get(place)).get("count") or 1) + 1
                await self._api.merge_patch(place, {"count": count, "lastTimestamp": body["lastTimestamp"]})
        except ApiError as error:
            log.warning("an event could not be written: %s", error)


def body_of(event: Event, about: Place, uid: str, message: str, now: datetime) -> dict[str, Any]:
    """The Event object. The same happening on the same object has the same name, and is counted."""
    text = message if len(message) <= _MESSAGE_BYTES else message[: _MESSAGE_BYTES - 2] + " …"
    digest = hashlib.sha256("\0".join((uid, event.reason, text)).encode()).hexdigest()[:_SUFFIX]
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": f"{about.name[: 253 - _SUFFIX - 1]}.{digest}", "namespace": _NAMESPACE},
        "involvedObject": {
            "apiVersion": about.kind.api_version,
            "kind": about.kind.name,
            "name": about.name,
            "uid": uid,
        },
        "reason": str(event.reason),
        "message": text,
        "type": "Warning" if event.warning else "Normal",
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
    }
