"""An API server in a dictionary, for the operator's unit tests: server-side apply, preconditions, finalizers, watches.

What it does is what the real one does, as far as the operator uses it: e2e/tests/operator/test_fake_api.py asks both
the same questions.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from handover_operator.api import MANAGER, ApiError, ConflictError, InvalidError, NotFoundError, Object
from handover_operator.places import Kind, Place

Path = tuple[str, ...]
_Key = tuple[str, str, str]

# Lists that server-side apply merges item by item, by the path's end; all others are one value.
_MERGED: dict[str, Callable[[Any], str]] = {
    "finalizers": str,
    "ownerReferences": lambda item: str(item["uid"]),
    "conditions": lambda item: str(item["type"]),
}
_SERVERS = (
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "name",
    "namespace",
)


class FakeApi:
    """Stands in for `Api`. `refuse` makes the next matching requests fail."""

    def __init__(self) -> None:
        self.objects: dict[_Key, Object] = {}
        self.writes: list[str] = []  # what changed anything, in order
        self.requests: list[str] = []  # everything that was asked
        self._claims: dict[tuple[_Key, str], set[Path]] = {}
        self._numbers = itertools.count(1)
        self._version = 1
        self._events: list[tuple[str, _Key, Object]] = []
        self._news = asyncio.Condition()
        self._refusals: list[tuple[str, ApiError]] = []
        self._telling: asyncio.Task[None] | None = None

    def put(self, place: Place, item: Mapping[str, Any]) -> Object:
        """Make an object be there, as somebody else would have."""
        key = _key(place)
        made = {"apiVersion": place.kind.api_version, "kind": place.kind.name, **deepcopy(dict(item))}
        identity = {"name": place.name, **({"namespace": place.namespace} if place.namespace else {})}
        stamp = {"uid": f"uid-{next(self._numbers)}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        made["metadata"] = {**stamp, "generation": 1, **identity, **made.get("metadata", {})}
        return self._store(key, made, "ADDED")

    def refuse(self, tried: str, error: ApiError) -> None:
        """Let the next request whose description begins so fail."""
        self._refusals.append((tried, error))

    async def get(self, place: Place) -> Object:
        """As the real one."""
        self._maybe_refuse(f"get {place}")
        return deepcopy(self._found(place, f"get {place}"))

    async def list_all(
        self, kind: Kind, namespace: str = "", selectors: Mapping[str, str] | None = None
    ) -> tuple[list[Object], str]:
        """As the real one; of selectors it knows `key=value` labels and `metadata.name`."""
        self._maybe_refuse(f"list {kind.plural}")
        chosen = [
            deepcopy(item)
            for (plural, where, _), item in self.objects.items()
            if plural == kind.plural and namespace in ("", where) and _selected(item, selectors or {})
        ]
        return chosen, str(self._version)

    async def watch(
        self, kind: Kind, version: str, namespace: str = "", selectors: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        """As the real one, without bookmarks and without an end."""
        seen = int(version)
        while True:
            self._maybe_refuse(f"watch {kind.plural}")
            for type_, (plural, where, _), item in list(self._events):
                newer = int(item["metadata"]["resourceVersion"]) > seen
                if (
                    newer
                    and plural == kind.plural
                    and namespace in ("", where)
                    and _selected(item, selectors or {})
                ):
                    yield {"type": type_, "object": deepcopy(item)}
            seen = max(seen, self._version)
            async with self._news:
                while self._version <= seen and not self._refuses(f"watch {kind.plural}"):
                    await self._news.wait()

    async def apply(
        self, place: Place, body: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Object:
        """As the real one, always with force."""
        tried = f"apply {place}{f' ({subresource})' if subresource else ''}"
        self._maybe_refuse(tried)
        key, asked = _key(place), dict(body.get("metadata", {}))
        there = self.objects.get(key)
        if there is None:
            if asked.get("uid"):
                raise ConflictError(tried, 409, "Conflict", "uid mismatch")
            there = self.put(place, {"metadata": {}})
            self._forget_event()
            created = True
        else:
            created = False
        self._check(tried, there, asked)
        wanted = {k: v for k, v in body.items() if k == "status"} if subresource else _main(body)
        claim = set(_leaves(wanted))
        claims = (key, f"{MANAGER}/{subresource}")
        result = deepcopy(there)
        others = {
            path for (k, m), paths in self._claims.items() if k == key and m != claims[1] for path in paths
        }
        for path in self._claims.get(claims, set()) - claim - others:
            _remove(result, path)
        for path in claim:
            _set(result, path, _at(wanted, path))
        self._claims[claims] = claim
        return deepcopy(self._save(key, there, result, tried, created=created, status=bool(subresource)))

    async def json_patch(
        self, place: Place, operations: Sequence[Mapping[str, Any]], manager: str = MANAGER
    ) -> Object:
        """As the real one: test, add, replace and remove."""
        tried = f"patch {place}"
        self._maybe_refuse(tried)
        there = self._found(place, tried)
        return deepcopy(self._save(_key(place), there, patched(there, operations, tried), tried))

    async def merge_patch(self, place: Place, body: Mapping[str, Any]) -> Object:
        """As the real one."""
        tried = f"patch {place}"
        self._maybe_refuse(tried)
        there = self._found(place, tried)
        self._check(tried, there, dict(body.get("metadata", {})))
        result = _merged(there, {**body, "metadata": _main(body).get("metadata", {})})
        return deepcopy(self._save(_key(place), there, result, tried))

    async def create(self, kind: Kind, body: Mapping[str, Any], namespace: str = "") -> Object:
        """As the real one."""
        place = kind.at(body["metadata"]["name"], namespace)
        self._maybe_refuse(f"create {place}")
        if _key(place) in self.objects:
            raise ConflictError(f"create {place}", 409, "AlreadyExists", "it exists already")
        self.writes.append(f"create {place}")
        return deepcopy(self.put(place, body))

    async def delete(self, place: Place, uid: str) -> Object:
        """As the real one: an object with finalizers is only marked."""
        tried = f"delete {place}"
        self._maybe_refuse(tried)
        there = self._found(place, tried)
        self._check(tried, there, {"uid": uid})
        marked = deepcopy(there)
        marked["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:01Z")
        return deepcopy(self._save(_key(place), there, marked, tried))

    async def tell(self) -> None:
        """Wake the watches; writes through this class do it by themselves."""
        async with self._news:
            self._news.notify_all()

    def _save(
        self,
        key: _Key,
        there: Object,
        result: Object,
        tried: str,
        *,
        created: bool = False,
        status: bool = False,
    ) -> Object:
        if not created and result == there:
            return there
        if not status and not created and result.get("spec") != there.get("spec"):
            result["metadata"]["generation"] = there["metadata"].get("generation", 0) + 1
        self.writes.append(tried)
        if "deletionTimestamp" in result["metadata"] and not result["metadata"].get("finalizers"):
            self._store(key, result, "DELETED")
            del self.objects[key]
            self._claims = {(k, m): paths for (k, m), paths in self._claims.items() if k != key}
            return result
        return self._store(key, result, "ADDED" if created else "MODIFIED")

    def _store(self, key: _Key, item: Object, event: str) -> Object:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = item
        self._events.append((event, key, deepcopy(item)))
        with contextlib.suppress(RuntimeError):  # no loop yet, so nobody who watches
            self._telling = asyncio.get_running_loop().create_task(self.tell())
        return item

    def _forget_event(self) -> None:
        self._events.pop()

    def _found(self, place: Place, tried: str) -> Object:
        try:
            return self.objects[_key(place)]
        except KeyError:
            raise NotFoundError(tried, 404, "NotFound", f"{place} not found") from None

    def _refuses(self, tried: str) -> bool:
        return any(tried.startswith(beginning) for beginning, _ in self._refusals)

    def _maybe_refuse(self, tried: str) -> None:
        self.requests.append(tried)
        for refusal in self._refusals:
            if tried.startswith(refusal[0]):
                self._refusals.remove(refusal)
                raise refusal[1]

    @staticmethod
    def _check(tried: str, there: Object, asked: Mapping[str, Any]) -> None:
        for name in ("uid", "resourceVersion"):
            if asked.get(name) and asked[name] != there["metadata"][name]:
                raise ConflictError(tried, 409, "Conflict", f"{name} is {there['metadata'][name]}")


def patched(item: Mapping[str, Any], operations: Sequence[Mapping[str, Any]], tried: str = "patch") -> Object:
    """What a JSON patch makes of an object. Raises InvalidError when a test fails."""
    result: Object = deepcopy(dict(item))
    for operation in operations:
        path = tuple(part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        if operation["op"] == "test":
            if _at(result, path) != operation["value"]:
                raise InvalidError(tried, 422, "Invalid", f"test of {operation['path']} failed")
        elif operation["op"] == "remove":
            _remove(result, path)
        else:
            _set(result, path, deepcopy(operation["value"]))
    return result


def _key(place: Place) -> _Key:
    return place.kind.plural, place.namespace, place.name


def _main(body: Mapping[str, Any]) -> Object:
    """What an apply to the main resource may set: not the status, and nothing that is the server's."""
    metadata = {k: v for k, v in body.get("metadata", {}).items() if k not in _SERVERS}
    rest = {k: v for k, v in body.items() if k not in ("status", "metadata", "apiVersion", "kind")}
    return {**rest, "metadata": metadata}


def _leaves(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, dict) and value:
        return [leaf for name, child in value.items() for leaf in _leaves(child, (*path, name))]
    if isinstance(value, list) and path and path[-1] in _MERGED:
        return [(*path, f"[{_MERGED[path[-1]](item)}]") for item in value]
    return [path] if path and value != {} else []


def _at(item: Any, path: Path) -> Any:
    for i, name in enumerate(path):
        if name.startswith("[") and isinstance(item, list):
            return next((child for child in item if _MERGED[path[i - 1]](child) == name[1:-1]), None)
        item = item.get(name) if isinstance(item, dict) else None
    return deepcopy(item)


def _set(item: Object, path: Path, value: Any) -> None:
    for name in path[:-2]:
        item = item.setdefault(name, {})
    if path[-1].startswith("[") and path[-2] in _MERGED:
        found = item.setdefault(path[-2], [])
        key = _MERGED[path[-2]]
        kept = [child for child in found if key(child) != key(value)]
        if len(kept) == len(found) or value not in found:
            found[:] = [*kept, value]
        return
    if len(path) > 1:
        item = item.setdefault(path[-2], {})
    item[path[-1]] = value


def _remove(item: Object, path: Path) -> None:
    """Remove a leaf, and the parents that stand empty because of it."""
    if path[-1].startswith("[") and path[-2] in _MERGED:
        found = _at(item, path[:-1])
        kept = [child for child in found or [] if _MERGED[path[-2]](child) != path[-1][1:-1]]
        if kept:
            _set(item, path[:-1], kept)
        else:
            _remove(item, path[:-1])
        return
    parent = item
    for name in path[:-1]:
        parent = parent.get(name, {})
    parent.pop(path[-1], None)
    if len(path) > 2 and parent == {}:
        _remove(item, path[:-1])


def _merged(item: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    result = dict(deepcopy(item)) if isinstance(item, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return {k: v for k, v in result.items() if not (k == "finalizers" and v == [])}


def _selected(item: Object, selectors: Mapping[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    for part in filter(None, selectors.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    field = selectors.get("fieldSelector", "")
    return not field or item["metadata"]["name"] == field.partition("=")[2]
