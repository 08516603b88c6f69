"""A small asynchronous client of the API server that survives the loss of any one of them.

Why not a ready-made client: the agent must reach the servers by their own addresses (never through the
ClusterIP that it serves), fail over between them, and hand raw JSON to msgspec, which ready-made clients
decode into trees of objects first. Every wait here has a deadline.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from handover_agent.apierrors import ApiError, StatusError, Unauthorized, Unreachable, status_error
from handover_agent.credentials import Address, Credentials
from handover_agent.servers import Candidate, Servers

FIELD_MANAGER = "handover-agent"
PAGE = 500


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as URLs have it."""

    group: str  # empty: the core group
    version: str
    plural: str
    namespaced: bool = True

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
NODES = Resource("", "v1", "nodes", namespaced=False)
PODS = Resource("", "v1", "pods")
NODE_MIGRATIONS = Resource("handover.dev", "v1alpha1", "nodemigrations", namespaced=False)

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
        self._credentials = credentials
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.servers = Servers(
            Candidate(credentials.bootstrap, credentials.bootstrap_name),
            credentials.server_name,
            clock,
            memory,
        )

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

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
        path = ENDPOINT_SLICES.path(namespace="default")
        document = json.loads(
            await self._call(
                "list", ENDPOINT_SLICES.text("kubernetes", "default"), "GET", path, _OF_KUBERNETES
            )
        )
        self.servers.learn(
            Address(address, port["port"])
            for item in document.get("items") or ()
            for port in item.get("ports") or ()
            if port.get("name") in ("https", "http") and port.get("port")
            for endpoint in item.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
            for address in endpoint.get("addresses", ())[:1]
        )

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """One object."""
        return _object(
            await self._call("get", resource.text(name, namespace), "GET", resource.path(name, namespace))
        )

    async def list_pages(
        self, resource: Resource, params: Mapping[str, str] | None = None, namespace: str = ""
    ) -> AsyncIterator[tuple[bytes, Callable[[str], None]]]:
        """Each page's raw JSON with a function to be told the page's `metadata.continue` before the next is
        asked for.
        """
        follow: list[str] = [""]
        while True:
            query = {**(params or {}), "limit": str(PAGE)}
            if follow[0]:
                query["continue"] = follow[0]
            raw = await self._call("list", resource.text(), "GET", resource.path(namespace=namespace), query)
            follow[0] = ""
            yield raw, lambda token: follow.__setitem__(0, token)
            if not follow[0]:
                return

    async def list_objects(
        self, resource: Resource, params: Mapping[str, str] | None = None, namespace: str = ""
    ) -> list[dict[str, Any]]:
        """All objects, decoded; for the small lists (pods of a node), not for the table's."""
        objects: list[dict[str, Any]] = []
        async for raw, proceed in self.list_pages(resource, params, namespace):
            page = _object(raw)
            objects += page.get("items") or []
            proceed((page.get("metadata") or {}).get("continue") or "")
        return objects

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        params: Mapping[str, str] | None = None,
        *,
        timeout_s: int = 300,
        idle_s: float = 150.0,
        namespace: str = "",
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Inside, the watch stands; iterate over the raw JSON of its events until the server ends it.

        The server is asked to end it after `timeout_s`. Bookmarks come every minute, so that a stream which
        is silent for `idle_s` is dead: Unreachable.
        """
        query = {
            **(params or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s, sock_read=idle_s)
        what, path = resource.text(), resource.path(namespace=namespace)
        async with self._open("watch", what, "GET", path, query, timeout=timeout) as stream:
            yield self._lines(what, stream)

    async def _lines(self, what: str, stream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Lines of any length: a slice of a thousand endpoints is longer than a stream reader's own limit."""
        rest: list[bytes] = []
        try:
            async for chunk in stream.content.iter_any():
                *lines, last = chunk.split(b"\n")
                for line in lines:
                    if whole := b"".join((*rest, line)):
                        yield whole
                    rest = []
                if last:
                    rest.append(last)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"watch {what} at {self.server}: the stream broke: {_reason(error)}") from error

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
        """Server-side apply of the fields in `body` (with apiVersion, kind and metadata.name), e.g. of a
        status.
        """
        return _object(
            await self._call(
                "patch",
                resource.text(name, namespace) + (f" ({subresource})" if subresource else ""),
                "PATCH",
                resource.path(name, namespace, subresource),
                {"fieldManager": field_manager, "force": "true" if force else "false"},
                body=json.dumps(body).encode(),
                content_type="application/apply-patch+yaml",
            )
        )

    async def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = ""
    ) -> dict[str, Any]:
        """Create an object (an Event, say). Not repeated when its answer is lost."""
        path = resource.path(namespace=namespace)
        return _object(
            await self._call(
                "create",
                resource.text(),
                "POST",
                path,
                body=json.dumps(body).encode(),
                content_type="application/json",
            )
        )

    async def _call(
        self,
        verb: str,
        what: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "",
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=self._connect_timeout_s)
        for again in (True, False):
            try:
                async with self._open(
                    verb, what, method, path, query, body=body, content_type=content_type, timeout=timeout
                ) as response:
                    try:
                        return await response.read()
                    except (aiohttp.ClientError, TimeoutError, OSError) as error:
                        raise Unreachable(
                            f"{verb} {what} at {self.server}: the answer broke off: {_reason(error)}"
                        ) from error
            except Unauthorized:
                if not again:
                    raise
                self._credentials.forget()  # kubelet may have written a new token since
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _open(
        self,
        verb: str,
        what: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's kind, which knows phases
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 400 from the first server that gives any. Reads and applies may safely be sent
        twice.
        """
        if self._session is None:
            raise RuntimeError("use the client inside `async with`")
        headers = {**self._credentials.headers(), "Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        tls = self._credentials.tls()
        tried: list[str] = []
        for candidate in self.servers.candidates():
            url = f"{self._credentials.scheme}://{candidate.address}{path}"
            try:
                response = await self._session.request(
                    method, url, params=query, data=body, headers=headers, timeout=timeout,
                    ssl=tls if tls is not None else True,
                    server_hostname=candidate.server_name if tls is not None else None,
                    allow_redirects=False,
                )  # fmt: skip
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.servers.failed(candidate)
                tried.append(f"{candidate.address}: {_reason(error)}")
                if method == "POST" and not isinstance(error, aiohttp.ClientConnectorError):
                    break  # it may have been carried out
                continue
            async with response:
                self.servers.worked(candidate)
                if response.status >= 400:
                    raise await _failure(verb, what, response)
                yield response
            return
        raise Unreachable(f"{verb} {what}: no API server answers ({'; '.join(tried)})")


async def _failure(verb: str, what: str, response: aiohttp.ClientResponse) -> StatusError:
    try:
        async with asyncio.timeout(5):
            raw = await response.content.read(65536)
        message = str(json.loads(raw).get("message", ""))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError):
        message = response.reason or ""
    retry = response.headers.get("Retry-After", "")
    return status_error(verb, what, response.status, message, float(retry) if retry.isdigit() else 0.0)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise ApiError(f"the API server's answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ApiError("the API server's answer is no object")
    return document


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno  # asyncio's text says "Connect call failed" for each of them
        return os.strerror(number) if number and number > 0 else str(error.os_error)
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
