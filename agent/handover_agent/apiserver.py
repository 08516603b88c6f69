"""A small asynchronous client of the API server that survives the loss of any one of them.

Why not a ready-made client: the agent must reach the servers by their own addresses (never through the
ClusterIP that it serves), fail over between them, and hand raw JSON to msgspec, which ready-made clients
decode into trees of objects first. Every wait here has a deadline.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from handover_agent.apierrors import ApiError
from handover_agent.credentials import Address, Credentials
from handover_agent.servers import Candidate, Servers
from handover_agent.transport import Request, Transport

FIELD_MANAGER = "handover-agent"
PAGE = 500


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as URLs have it."""

    group: str  # empty: the core group
    version: str
    plural: str

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The URL path of one object, or of all (of a namespace)."""
        parts = [f"/apis/{self.group}" if self.group else "/api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        return "/".join(part for part in (*parts, self.plural, name, subresource) if part)

    def text(self, name: str = "", namespace: str = "") -> str:
        """How messages call it: plural.group, and the object's name."""
        kind = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{kind} {namespace}/{name}" if name and namespace else f"{kind} {name}".rstrip()


ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
SERVICES = Resource("", "v1", "services")
NODES = Resource("", "v1", "nodes")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
NODE_MIGRATIONS = Resource("handover.dev", "v1alpha1", "nodemigrations")

_NONE: Mapping[str, str] = {}
_OF_KUBERNETES = {"labelSelector": "kubernetes.io/service-name=kubernetes"}


class Client:
    """Calls to the API server. Use as `async with Client(...) as client`, then `await client.connect()`.

    Every call raises an `ApiError` of `apierrors`: `CredentialsError`, `Unreachable`, or a `StatusError` such
    as `Forbidden`, `NotFound`, `Gone`, `Busy`.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        memory: Path | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        bootstrap = Candidate(credentials.bootstrap, credentials.bootstrap_name)
        self.servers = Servers(bootstrap, credentials.server_name, clock, memory)
        self._transport = Transport(credentials, self.servers, timeout_s, connect_timeout_s)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    @property
    def server(self) -> str:
        """host:port of the API server in use; empty when none answered last."""
        return str(self.servers.current) if self.servers.current else ""

    @property
    def direct(self) -> bool:
        """Whether that server is reached by its own address, so that no ClusterIP is needed."""
        return self.servers.direct

    async def connect(self) -> None:
        """Learn the servers' own addresses and go over to one of them.

        Remembered ones are asked first, the bootstrap address only when none of them answers. That the own
        addresses are not reachable from here is no error: `direct` stays False and every later call tries
        them again.
        """
        await self._learn()
        if not self.servers.direct:
            await self._learn()  # the first answer came by the bootstrap address; this goes to what it told

    async def _learn(self) -> None:
        slices = _object(await self.page(ENDPOINT_SLICES, params=_OF_KUBERNETES, namespace="default"))
        self.servers.learn(
            Address(address, port["port"])
            for item in slices.get("items") or ()
            for port in item.get("ports") or ()
            if port.get("name") in ("https", "http") and port.get("port")
            for endpoint in item.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
            for address in endpoint.get("addresses", ())[:1]
        )

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """One object."""
        request = Request("get", resource.text(name, namespace), resource.path(name, namespace))
        return _object(await self._transport.call(request))

    async def page(
        self,
        resource: Resource,
        follow: str = "",
        params: Mapping[str, str] = _NONE,
        namespace: str = "",
    ) -> bytes:
        """The raw JSON of a list's first page, or of the one that `follow` (`metadata.continue`) stands for."""
        query = {**params, "limit": str(PAGE)} | ({"continue": follow} if follow else {})
        request = Request("list", resource.text(), resource.path(namespace=namespace), query)
        return await self._transport.call(request)

    async def list_objects(
        self,
        resource: Resource,
        params: Mapping[str, str] = _NONE,
        namespace: str = "",
        *,
        resource_version: str = "",
    ) -> list[dict[str, Any]]:
        """All objects, decoded; for the small lists (pods of a node), not for the table's.

        As they are now; with `resource_version` "0" as the server's cache has them, which costs it next to nothing.
        """
        objects: list[dict[str, Any]] = []
        follow = ""
        query = {**params, "resourceVersion": resource_version} if resource_version else params
        while True:
            page = _object(await self.page(resource, follow, params if follow else query, namespace))
            objects += page.get("items") or []
            follow = (page.get("metadata") or {}).get("continue") or ""
            if not follow:
                return objects

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        params: Mapping[str, str] = _NONE,
        *,
        timeout_s: int = 300,
        idle_s: float = 150.0,
        namespace: str = "",
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Inside, the watch stands; iterate over the raw JSON of its events until the server ends it.

        The server is asked to end it after `timeout_s`. Bookmarks come every minute, so that a stream which
        is silent for `idle_s` is dead: Unreachable.
        """
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        request = Request("watch", resource.text(), resource.path(namespace=namespace), query)
        return self._transport.lines(request, idle_s)

    async def apply(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        subresource: str = "",
        field_manager: str = FIELD_MANAGER,
        force: bool = True,
    ) -> dict[str, Any]:
        """Server-side apply of the fields in `body` (with apiVersion, kind, metadata.name), e.g. a status."""
        request = Request(
            "patch",
            resource.text(name, namespace) + (f" ({subresource})" if subresource else ""),
            resource.path(name, namespace, subresource),
            {"fieldManager": field_manager, "force": "true" if force else "false"},
            "PATCH",
            json.dumps(body).encode(),
            "application/apply-patch+yaml",
        )
        return _object(await self._transport.call(request))

    async def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = ""
    ) -> dict[str, Any]:
        """Create an object (an Event, say). Not repeated when its answer is lost."""
        path, raw = resource.path(namespace=namespace), json.dumps(body).encode()
        request = Request("create", resource.text(), path, {}, "POST", raw, "application/json")
        return _object(await self._transport.call(request))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise ApiError(f"the API server's answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ApiError("the API server's answer is no object")
    return document
