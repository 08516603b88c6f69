"""What a person should hear of an object, told as a Kubernetes Event: `kubectl describe service` shows it.

A help for people, nothing more: nothing waits for an Event, and one that cannot be written is dropped. The same
happening on the same object is one Event with a count, written once a minute at most, and whatever goes wrong on a
node, the API server hears of it a few times a minute only.
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from handover_agent.apierrors import ApiError, NotFound
from handover_agent.apiserver import EVENTS, FIELD_MANAGER, NODES, SERVICES, Client, Resource

log = logging.getLogger(__name__)

_AGAIN_S = 60.0
_MOST_PER_MINUTE = 20
_MOST_KNOWN = 500
_MESSAGE_CHARACTERS = 1024
_RESOURCES: dict[str, Resource] = {"Service": SERVICES, "Node": NODES}


@dataclass(frozen=True, slots=True)
class About:
    """The object that an Event is about."""

    kind: Literal["Service", "Node"]
    name: str
    namespace: str = ""  # of a Node: none

    @classmethod
    def service(cls, key: str) -> "About":
        """A Service by "namespace/name"."""
        namespace, _, name = key.partition("/")
        return cls("Service", name, namespace)


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened: `reason` in one word, `action` what was being done, and a sentence."""

    about: About
    reason: str
    action: str
    message: str
    warning: bool = True


@dataclass(slots=True)
class _Told:
    count: int = 0
    first: datetime = field(default_factory=lambda: datetime.now(UTC))
    last: datetime = field(default_factory=lambda: datetime.now(UTC))
    written: float | None = None  # on the clock
    written_count: int = 0


class Events:
    """Takes happenings and writes them; for one event loop."""

    def __init__(self, client: Client, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._node, self._clock = client, node, clock
        self._told: dict[Happening, _Told] = {}
        self._recent: deque[float] = deque()
        self.news = asyncio.Event()
        """Set when `write` is due at once; else it is due every few seconds."""

    def tell(self, happening: Happening) -> None:
        """Have it written soon. Does not wait, and never fails."""
        told = self._told.pop(happening, None) or _Told()
        told.count, told.last = told.count + 1, datetime.now(UTC)
        self._told[happening] = told  # the latest last
        while len(self._told) > _MOST_KNOWN:
            del self._told[next(iter(self._told))]
        self.news.set()

    async def write(self) -> None:
        """Write what is due."""
        for happening, told in list(self._told.items()):
            now = self._clock()
            early = told.written is not None and now - told.written < _AGAIN_S
            if early or told.count == told.written_count:
                continue
            while self._recent and now - self._recent[0] >= 60:
                self._recent.popleft()
            if len(self._recent) >= _MOST_PER_MINUTE:
                return
            self._recent.append(now)
            told.written, told.written_count = now, told.count
            await self._write(happening, told)

    async def _write(self, happening: Happening, told: _Told) -> None:
        about = happening.about
        try:
            found = await self._client.get(_RESOURCES[about.kind], about.name, about.namespace)
            event = body(
                happening, told.count, told.first, told.last, str(found["metadata"]["uid"]), self._node
            )
            await self._client.apply(
                EVENTS, event["metadata"]["name"], event, namespace=event["metadata"]["namespace"]
            )
        except NotFound:
            self._told.pop(happening, None)  # nobody is left to be told
        except ApiError as error:
            log.warning(
                "an event could not be written", extra={"reason": happening.reason, "error": str(error)}
            )


def body(
    happening: Happening, count: int, first: datetime, last: datetime, uid: str, node: str
) -> dict[str, Any]:
    """The Event object; the same happening on the same object has the same name on this node."""
    about, text = happening.about, happening.message[:_MESSAGE_CHARACTERS]
    identity = "\0".join((uid, happening.reason, text, node))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    subject = {"apiVersion": "v1", "kind": about.kind, "name": about.name, "uid": uid}
    namespace = about.namespace or "default"  # where the API wants the events of cluster-scoped objects
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name[:200]}.{digest}", "namespace": namespace},
        "involvedObject": subject | ({"namespace": about.namespace} if about.namespace else {}),
        "reason": happening.reason,
        "action": happening.action,
        "message": text,
        "type": "Warning" if happening.warning else "Normal",
        "count": count,
        "firstTimestamp": _text(first),
        "lastTimestamp": _text(last),
        "source": {"component": FIELD_MANAGER, "host": node},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": node,
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
