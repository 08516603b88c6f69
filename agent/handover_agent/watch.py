"""List and watch one kind of object for ever, so that a sink always holds what the API server holds.

The initial list is read in pages, then events are followed from its resource version, with bookmarks so that
a reconnect seldom has to list again. An expired version (410) leads to a new list, which replaces the sink's
content as a whole: objects that vanished meanwhile are found that way. Anything else is tried again with
growing, jittered pauses, and what failed last is kept in `error` for the status.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from typing import Protocol as Interface

import msgspec

from handover_agent.apierrors import ApiError, Busy, Gone, Unreachable, status_error
from handover_agent.apiserver import ENDPOINT_SLICES, SERVICES, Client, Resource
from handover_agent.credentials import Address
from handover_agent.model import Model
from handover_agent.objects import Service, Slice
from handover_agent.table import ip_text
from handover_agent.wire import WireService, WireSlice, service_of, slice_of

log = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_NOT_HEADLESS = "!service.kubernetes.io/headless"
_NOT_OTHERS = "!service.kubernetes.io/service-proxy-name"


class Sink(Interface[T_contra]):
    """Who is told of the objects; its methods must not block."""

    def replace(self, objects: Iterable[T_contra]) -> None: ...
    def put(self, thing: T_contra, /) -> None: ...
    def remove(self, thing: T_contra, /) -> None: ...


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    follow: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: _ListMeta


class _Status(msgspec.Struct):
    code: int = 500
    message: str = ""


_PAGE, _EVENT = msgspec.json.Decoder(_Page), msgspec.json.Decoder(_Event)
_VERSIONED, _STATUS = msgspec.json.Decoder(_Versioned), msgspec.json.Decoder(_Status)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What to watch and how to decode it. `decode` raises msgspec.MsgspecError on what it cannot read."""

    resource: Resource
    decode: Callable[[bytes | msgspec.Raw], T]
    params: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""


def _decoder(wire: type[Any], flatten: Callable[[Any], T]) -> Callable[[bytes | msgspec.Raw], T]:
    decode = msgspec.json.Decoder(wire).decode
    return lambda raw: flatten(decode(raw))


# The filters act on the server: a label put on a Service later arrives as DELETED, one taken off as ADDED.
SERVICE_KIND: Kind[Service] = Kind(
    SERVICES, _decoder(WireService, service_of), {"labelSelector": f"{_NOT_HEADLESS},{_NOT_OTHERS}"}
)
SLICE_KIND: Kind[Slice] = Kind(
    ENDPOINT_SLICES, _decoder(WireSlice, slice_of), {"labelSelector": _NOT_HEADLESS}
)


class Backoff:
    """Growing pauses with jitter, so that a thousand agents do not come back at the same moment."""

    def __init__(
        self,
        first_s: float = 0.5,
        most_s: float = 30.0,
        jitter: Callable[[], float] = random.random,
        spread_s: float = 2.0,
    ) -> None:
        self._first_s, self._most_s, self._jitter, self._spread_s = first_s, most_s, jitter, spread_s
        self._tries = 0

    def next_s(self) -> float:
        """How long to wait now."""
        pause = min(self._first_s * 2.0**self._tries, self._most_s)
        self._tries = min(self._tries + 1, 16)
        return pause * (0.5 + self._jitter() / 2)

    def apart_s(self) -> float:
        """How long to wait before what all agents have to do at this moment, though nothing has failed."""
        return self._spread_s * self._jitter()

    def reset(self) -> None:
        """It works again."""
        self._tries = 0


class Reflector(Generic[T]):
    """Keeps a sink equal to what the API server has of one kind."""

    def __init__(
        self,
        client: Client,
        kind: Kind[T],
        sink: Sink[T],
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._kind, self._sink, self._clock = client, kind, sink, clock
        self._backoff = backoff or Backoff()
        self._version = ""  # empty: list (again)
        self.synced = asyncio.Event()
        self.error: ApiError | None = None  # why the sink may be stale; None while the watch runs

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone:
                log.info("watch expired, listing again", extra={"resource": self._kind.resource.text()})
                # The list itself may have expired, between two pages. A watch expires for every agent at once, when an API
                # server starts anew: not all of them should ask for the whole list in the same second.
                await asyncio.sleep(self._backoff.apart_s() if self._version else self._backoff.next_s())
                self._version = ""
            except ApiError as error:
                pause = self._backoff.next_s()
                if isinstance(error, Busy):
                    pause = max(pause, error.retry_after_s)
                if type(self.error) is not type(error):
                    log.warning(
                        "watch failed", extra={"resource": self._kind.resource.text(), "error": str(error)}
                    )
                self.error = error
                await asyncio.sleep(pause)

    async def _list(self) -> None:
        objects: list[T] = []
        kind, follow, began = self._kind, "", self._clock()
        while True:
            raw = await self._client.page(kind.resource, follow, kind.params, kind.namespace)
            page = _decode(_PAGE, raw)
            for item in page.items or ():
                if (decoded := self._decode(item)) is not None:
                    objects.append(decoded)
            follow = page.metadata.follow
            if not follow:
                break
            await asyncio.sleep(0)  # a page is some milliseconds of decoding; let heartbeats through
        self._sink.replace(objects)
        self._version = page.metadata.resource_version
        self._backoff.reset()
        self._healthy()
        took = round(self._clock() - began, 3)
        log.info("listed", extra={"resource": kind.resource.text(), "objects": len(objects), "seconds": took})
        self.synced.set()

    async def _watch(self) -> None:
        kind, told = self._kind, False
        began = self._clock()
        spread_s = random.randint(240, 480)  # noqa: S311 - so that agents do not all come back at once
        async with self._client.watch(
            kind.resource, self._version, kind.params, timeout_s=spread_s, namespace=kind.namespace
        ) as lines:
            self._healthy()
            async for line in lines:
                event = _decode(_EVENT, line)
                if event.type == "ERROR":
                    status = _decode(_STATUS, event.object)
                    raise status_error("watch", kind.resource.text(), status.code, status.message)
                told = True
                self._backoff.reset()
                self._take(event)
        if not told and self._clock() - began < 1.0:
            await asyncio.sleep(
                self._backoff.next_s()
            )  # a server that ends watches at once must not be pestered

    def _take(self, event: _Event) -> None:
        self._version = _decode(_VERSIONED, event.object).metadata.resource_version
        if event.type == "BOOKMARK" or (decoded := self._decode(event.object)) is None:
            return
        if event.type == "DELETED":
            self._sink.remove(decoded)
        else:
            self._sink.put(decoded)

    def _healthy(self) -> None:
        if self.error is not None:
            log.info("watch works again", extra={"resource": self._kind.resource.text()})
            self.error = None

    def _decode(self, raw: bytes | msgspec.Raw) -> T | None:
        """One object that cannot be read must not keep the others from being served."""
        try:
            return self._kind.decode(raw)
        except msgspec.MsgspecError as error:
            log.error(
                "an object cannot be decoded and is left out",
                extra={
                    "resource": self._kind.resource.text(),
                    "error": str(error),
                    "start": bytes(raw)[:200],
                },
            )
            return None


class Feed:
    """The two watches that fill a model, and the API servers' addresses on the way."""

    def __init__(self, client: Client, model: Model, backoff: Callable[[], Backoff] = Backoff) -> None:
        self.services = Reflector(client, SERVICE_KIND, model.services_sink, backoff())
        self.slices = Reflector(client, SLICE_KIND, _Learning(model, client), backoff())

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.services.run(), name="watch services")
            group.create_task(self.slices.run(), name="watch endpointslices")

    async def synced(self) -> None:
        """Return when both have been listed once. Bound it with a deadline of your own."""
        await self.services.synced.wait()
        await self.slices.synced.wait()

    @property
    def error(self) -> ApiError | None:
        """Why the model may be stale; None while both watches run."""
        return self.services.error or self.slices.error


class _Learning:
    """The slices' sink, which also tells the client where the API servers are when `default/kubernetes`
    changes.
    """

    def __init__(self, model: Model, client: Client) -> None:
        self._model, self._client = model, client

    def replace(self, objects: Iterable[Slice]) -> None:
        self._model.slices_sink.replace(objects)
        self._learn()

    def put(self, slice_: Slice) -> None:
        self._model.slices_sink.put(slice_)
        if slice_.service == "default/kubernetes":
            self._learn()

    def remove(self, slice_: Slice) -> None:
        self._model.slices_sink.remove(slice_)
        if slice_.service == "default/kubernetes":
            self._learn()

    def _learn(self) -> None:
        self._client.servers.learn(
            Address(ip_text(endpoint.address), port.port)
            for slice_ in self._model.slices("default/kubernetes")
            for port in slice_.ports
            if port.name in ("https", "http")
            for endpoint in slice_.endpoints
        )


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the API server's answer cannot be read: {error}") from error
