"""A live copy of one collection of the API, as true as the last list made it.

Not kopf's indexes: they never come up with 5,000 objects, and what vanishes while a watch is broken stays in
them for ever. Here a list replaces the whole copy, and a copy that is not being kept up says so: nobody plans
on it. Objects are read into what is needed of them as they come in, so that a pass over all costs next to
nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from handover_operator.api import Api, ApiError, GoneError, Object
from handover_operator.places import Kind

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0

Key = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Collection:
    """Which objects to copy."""

    kind: Kind
    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @property
    def selectors(self) -> dict[str, str]:
        """The query that selects them."""
        wanted = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in wanted.items() if value}

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        which = f" ({self.labels or self.fields})" if self.labels or self.fields else ""
        return f"{self.kind.plural}{where}{which}"


def key_of(item: Mapping[str, Any]) -> Key:
    """What tells objects of one kind apart."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Watched(Generic[T]):
    """The copy. `run` keeps it up until it is cancelled; `live` says whether it can be trusted now."""

    def __init__(
        self, api: Api, collection: Collection, read: Callable[[Object], T], changed: Callable[[], None]
    ) -> None:
        self.collection = collection
        self.trouble: ApiError | None = None
        self._api = api
        self._read = read
        self._changed = changed
        self._objects: dict[Key, T] = {}
        self._version = 0  # how far the watch has come
        self._ahead: dict[Key, int] = {}  # objects that were learned ahead of the watch, and their versions
        self._listed = False
        self._pause_s = _FIRST_PAUSE_S

    @property
    def live(self) -> bool:
        """It has been listed, and changes since then have been followed."""
        return self._listed and self.trouble is None

    @property
    def objects(self) -> Mapping[Key, T]:
        """The objects now, by namespace and name. Do not keep it: a list replaces it."""
        return self._objects

    def learn(self, item: Object) -> None:
        """Take in the answer to a write of ours, so that the next plan does not ask for the same again.

        Ignored when the watch has come further than the answer: then it knows better.
        """
        key, version = key_of(item), _version_of(item)
        if self._listed and version > self._version and key in self._objects:
            self._objects[key] = self._read(item)
            self._ahead[key] = version

    async def run(self) -> None:
        """List and watch for ever; whatever goes wrong is said once and tried again."""
        while True:
            try:
                await self._follow()
            except GoneError:
                log.info("the watch fell behind; listing again", extra={"what": str(self.collection)})
            except ApiError as error:
                self._say(error)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _follow(self) -> None:
        collection = self.collection
        items, version = await self._api.list_all(collection.kind, collection.namespace, collection.selectors)
        self._objects = {key_of(item): self._read(item) for item in items}
        self._version = _number(version)
        self._ahead = {}
        self._listed = True
        if self.trouble is not None:
            log.info("in sight again", extra={"what": str(collection)})
            self.trouble = None
        self._changed()
        while True:
            async for event in self._api.watch(
                collection.kind, version, collection.namespace, collection.selectors
            ):
                self._pause_s = _FIRST_PAUSE_S
                version = event["object"]["metadata"]["resourceVersion"]
                self._take_in(event)

    def _take_in(self, event: Object) -> None:
        item = event["object"]
        self._version = _version_of(item)
        if event["type"] == "BOOKMARK":
            return
        key = key_of(item)
        if self._version < self._ahead.get(key, 0):
            return  # older than what was learned
        self._ahead.pop(key, None)
        if event["type"] == "DELETED":
            self._objects.pop(key, None)
        else:
            self._objects[key] = self._read(item)
        self._changed()

    def _say(self, error: ApiError) -> None:
        if self.trouble is None or str(self.trouble) != str(error):
            log.warning("out of sight: %s; trying again", error, extra={"what": str(self.collection)})
        self.trouble = error
        self._changed()


def _version_of(item: Mapping[str, Any]) -> int:
    return _number(item["metadata"].get("resourceVersion", "0"))


def _number(version: str) -> int:
    """resourceVersions are numbers that grow: promised since Kubernetes 1.35, and so before."""
    return int(version) if version.isdecimal() else 0
