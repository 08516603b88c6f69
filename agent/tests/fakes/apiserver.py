"""An API server in memory, over real HTTP on loopback: lists in pages, watches with events, expires, refuses.

It does what the agent's client depends on, the way the real one does it (continue tokens, label selectors
whose matches come and go as ADDED and DELETED, bookmarks, 410 in a watch as an ERROR event), and nothing
else. That the real one does so too is shown by the tests that run against a lab.
"""

import asyncio
import copy
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from handover_agent.credentials import Address

Json = dict[str, Any]


def matches(selector: str, labels: dict[str, str]) -> bool:
    """`a=b` and `!a`, comma-separated."""
    for term in filter(None, selector.split(",")):
        name, equals, value = term.removeprefix("!").partition("=")
        if equals and labels.get(name) != value:
            return False
        if term.startswith("!") and name in labels:
            return False
    return True


@dataclass
class Event:
    """One change: the object before and after, None where it is not there."""

    version: int
    path: str
    before: Json | None
    after: Json | None


@dataclass
class FakeApiServer:
    """The state; `serving` puts it on a port."""

    version: int = 10
    objects: dict[str, dict[str, Json]] = field(default_factory=dict)  # collection path → ns/name → object
    events: list[Event] = field(default_factory=list)
    oldest: int = 0  # versions before this have expired
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    applied: list[tuple[str, dict[str, str], Json]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)  # the next answers
    token: str = ""
    watches: int = 0  # now open
    break_pages: bool = False
    end_watches_at_once: bool = False
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _generation: int = 0

    async def put(self, path: str, thing: Json) -> None:
        """Create or replace an object of the collection at `path`, e.g. /api/v1/services."""
        thing = copy.deepcopy(thing)
        await self._change(path, _key(thing), thing)

    async def delete(self, path: str, key: str) -> None:
        await self._change(path, key, None)

    async def expire(self) -> None:
        """Compact: what happened so far can no longer be watched from before."""
        self.oldest = self.version + 1
        self.events.clear()

    async def disconnect(self) -> None:
        """End every open watch."""
        async with self._news:
            self._generation += 1
            self._news.notify_all()

    async def _change(self, path: str, key: str, after: Json | None) -> None:
        self.version += 1
        collection = self.objects.setdefault(path, {})
        before = collection.pop(key, None)
        if after is not None:
            after["metadata"]["resourceVersion"] = str(self.version)
            collection[key] = after
        self.events.append(Event(self.version, path, before, after))
        async with self._news:
            self._news.notify_all()

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Address]:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        try:
            yield Address("127.0.0.1", runner.addresses[0][1])
        finally:
            await self.disconnect()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.requests.append((request.method, request.path, query))
        if self.failures:
            status, message = self.failures.pop(0)
            headers = {"Retry-After": "1"} if status == 429 else {}
            return web.json_response({"kind": "Status", "message": message}, status=status, headers=headers)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        if request.method == "PATCH":
            body = json.loads(await request.read())
            self.applied.append((request.path, query, body))
            return web.json_response(body)
        if query.get("watch") == "true":
            return await self._watch(request, query)
        if request.method == "GET":
            return self._get(request.path, query)
        return web.json_response({"message": "not in this fake"}, status=405)

    def _get(self, path: str, query: dict[str, str]) -> web.Response:
        collection, key = self._find(path)
        if key:
            thing = self.objects.get(collection, {}).get(key)
            if thing is None:
                return web.json_response({"message": f"{key} not found"}, status=404)
            return web.json_response(thing)
        found = self._list(path, query.get("labelSelector", ""))
        limit, start = int(query.get("limit", "0")) or len(found) or 1, int(query.get("continue") or 0)
        if start and self.break_pages:
            self.break_pages = False
            return web.json_response({"message": "the continue token has expired"}, status=410)
        page, rest = found[start : start + limit], found[start + limit :]
        metadata = {"resourceVersion": str(self.version), "continue": str(start + limit) if rest else ""}
        return web.json_response({"kind": "List", "metadata": metadata, "items": page})

    def _find(self, path: str) -> tuple[str, str]:
        """The collection and, when the path is one object's, its key."""
        parts = path.strip("/").split("/")
        if "namespaces" in parts:
            at = parts.index("namespaces")
            namespace, rest = parts[at + 1], parts[at + 2 :]
            collection = "/" + "/".join([*parts[:at], rest[0]])
            return collection, f"{namespace}/{rest[1]}" if len(rest) > 1 else ""
        for collection in self.objects:
            if path.startswith(collection + "/"):
                return collection, path.removeprefix(collection + "/")
        return path, ""

    def _list(self, path: str, selector: str) -> list[Json]:
        collection, _ = self._find(path)
        parts = path.strip("/").split("/")
        prefix = parts[parts.index("namespaces") + 1] + "/" if "namespaces" in parts else ""
        return [
            thing
            for key, thing in sorted(self.objects.get(collection, {}).items())
            if key.startswith(prefix) and matches(selector, thing["metadata"].get("labels") or {})
        ]

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        selector, since, generation = (
            query.get("labelSelector", ""),
            int(query["resourceVersion"]),
            self._generation,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self.oldest - 1:
            await _send(
                response, "ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"}
            )
            return response
        self.watches += 1
        try:
            while self._generation == generation and not self.end_watches_at_once:
                for event in [e for e in self.events if e.version > since and e.path == request.path]:
                    since = event.version
                    await self._tell(response, event, selector)
                if since < self.version:
                    since = self.version
                    await _send(response, "BOOKMARK", {"metadata": {"resourceVersion": str(since)}})
                async with self._news:
                    if self._generation == generation and since == self.version:
                        await self._news.wait()
        finally:
            self.watches -= 1
        return response

    async def _tell(self, response: web.StreamResponse, event: Event, selector: str) -> None:
        """As the real one does: an object that no longer matches is DELETED to this watcher."""

        def seen(thing: Json | None) -> bool:
            return thing is not None and matches(selector, thing["metadata"].get("labels") or {})

        if seen(event.after):
            assert event.after is not None
            await _send(response, "MODIFIED" if seen(event.before) else "ADDED", event.after)
        elif seen(event.before):
            gone = copy.deepcopy(event.after or event.before)
            assert gone is not None
            gone["metadata"]["resourceVersion"] = str(event.version)
            await _send(response, "DELETED", gone)


async def _send(response: web.StreamResponse, kind: str, thing: Json) -> None:
    await response.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")


def _key(thing: Json) -> str:
    metadata = thing["metadata"]
    return (
        f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
    )
