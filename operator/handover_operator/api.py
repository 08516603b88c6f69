"""The API server, spoken to directly: lists in pages, watches, server-side apply, errors with a type each.

By hand on aiohttp, because the operator needs seven verbs of it, and a client that models the whole API costs
more than twice the processor time for them.
"""

import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import aiohttp

from handover_operator.access import Access, AccessError
from handover_operator.places import Kind, Place
from handover_operator.servers import NAME, Servers

Object = dict[str, Any]

MANAGER = "handover-operator"

_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"

_REQUEST_S = 30.0
_PAGE = 500
_WATCH_S = 240  # then the server ends the stream, and the next one goes on where it ended
_GRACE_S = 30.0  # a stream that outlives its end by this much is dead without knowing
_LINE_BYTES = 8 * 1024 * 1024  # etcd allows 1.5 MB an object; JSON may be longer


class ApiError(Exception):
    """The API server did not do what was asked: says what was tried, on what, and what it answered."""

    def __init__(self, tried: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{tried}: {message}")
        self.tried, self.status, self.reason, self.message = tried, status, reason, message


class UnreachableError(ApiError):
    """No answer at all."""


class ForbiddenError(ApiError):
    """Our service account may not do this: a Role or its binding is missing."""


class NotFoundError(ApiError):
    """The object, or the whole resource, is not there."""


class ConflictError(ApiError):
    """A precondition does not hold: somebody has changed the object, or it is another one by now."""


class GoneError(ApiError):
    """A watch asked for a past that the server has forgotten: list again."""


class InvalidError(ApiError):
    """The server's rules refuse the object."""


_BY_STATUS = {
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


def error_of(tried: str, status: int, answer: Any) -> ApiError:
    """The error for an answer of the server's, which is a Status object when all is well."""
    body: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {"message": str(answer)}
    kind = _BY_STATUS.get(status, ApiError)
    causes = (body.get("details") or {}).get("causes") or []
    if kind is InvalidError and any(cause.get("field") == "metadata.uid" for cause in causes):
        kind = (
            ConflictError  # it is another object of that name by now; the server calls that an invalid change
        )
    return kind(tried, status, str(body.get("reason", "")), str(body.get("message") or f"status {status}"))


class Api:
    """A client of one cluster's API servers, for one event loop. Use it as an async context manager."""

    def __init__(self, access: Access, servers: Servers | None = None) -> None:
        """`servers`: where to connect to instead of the access' own server."""
        self._access, self._servers = access, servers
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Api":
        connector = aiohttp.TCPConnector(
            ssl=self._access.tls() if self._access.server.startswith("https") else False,
            limit=32,
            socket_factory=_keepalive_socket,
            resolver=self._servers,
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=2**18)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, place: Place) -> Object:
        """The object. Raises NotFoundError and every other ApiError."""
        return await self._request("GET", place.path, f"get {place}")

    async def list_all(
        self, kind: Kind, namespace: str = "", selectors: Mapping[str, str] | None = None
    ) -> tuple[list[Object], str]:
        """All objects, in pages, and the resourceVersion to watch from. Raises ApiError."""
        items: list[Object] = []
        query = {"limit": str(_PAGE), **(selectors or {})}
        while True:
            page = await self._request("GET", kind.collection(namespace), f"list {kind.plural}", query=query)
            items += page["items"]
            if not (following := page["metadata"].get("continue")):
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = following

    async def watch(
        self, kind: Kind, version: str, namespace: str = "", selectors: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        """Events after a resourceVersion, bookmarks too, until the server ends the stream. Raises ApiError."""
        tried = f"watch {kind.plural}"
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
            **(selectors or {}),
        }
        timeout = aiohttp.ClientTimeout(total=_WATCH_S + _GRACE_S, sock_connect=_REQUEST_S)
        try:
            async with self._open().get(
                self._url(kind.collection(namespace)),
                params=query,
                headers=self._identity(tried),
                timeout=timeout,
            ) as response:
                if response.status != 200:
                    raise error_of(tried, response.status, _decoded(await response.read()))
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise error_of(tried, int(event["object"].get("code", 0)), event["object"])
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(tried, error) from error

    async def apply(
        self, place: Place, body: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Object:
        """Server-side apply as our field manager. Raises ConflictError when uid or resourceVersion differ."""
        path = f"{place.path}/{subresource}" if subresource else place.path
        full = {"apiVersion": place.kind.api_version, "kind": place.kind.name, **body}
        query = {"fieldManager": MANAGER, "force": "true" if force else "false", "fieldValidation": "Strict"}
        tried = f"apply {place}{f' ({subresource})' if subresource else ''}"
        return await self._request("PATCH", path, tried, query=query, body=full, content_type=_APPLY)

    async def json_patch(
        self, place: Place, operations: Sequence[Mapping[str, Any]], manager: str = MANAGER
    ) -> Object:
        """A JSON patch, all of it or nothing; a failed `test` raises InvalidError."""
        query = {"fieldManager": manager}
        return await self._request(
            "PATCH", place.path, f"patch {place}", query=query, body=operations, content_type=_JSON_PATCH
        )

    async def merge_patch(self, place: Place, body: Mapping[str, Any]) -> Object:
        """A JSON merge patch: null takes a field away, whoever owns it. Raises ApiError."""
        query = {"fieldManager": MANAGER}
        return await self._request(
            "PATCH", place.path, f"patch {place}", query=query, body=body, content_type=_MERGE_PATCH
        )

    async def create(self, kind: Kind, body: Mapping[str, Any], namespace: str = "") -> Object:
        """Create an object. Raises ApiError."""
        full = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        query = {"fieldManager": MANAGER}
        return await self._request(
            "POST", kind.collection(namespace), f"create a {kind.name}", query=query, body=full
        )

    async def delete(self, place: Place, uid: str) -> Object:
        """Delete this very object, not another of the same name. Raises ConflictError, NotFoundError."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        return await self._request("DELETE", place.path, f"delete {place}", body=body)

    async def _request(
        self,
        method: str,
        path: str,
        tried: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {**self._identity(tried), "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        try:
            async with self._open().request(
                method,
                self._url(path),
                params=query,
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=_REQUEST_S),
            ) as response:
                answer = _decoded(await response.read())
                if response.status >= 300:
                    raise error_of(tried, response.status, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(tried, error) from error
        if not isinstance(answer, dict):
            raise ApiError(
                tried, response.status, "", f"{self._access.server} does not answer with an object"
            )
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("Api is used outside of its `async with`")
        return self._session

    def _identity(self, tried: str) -> dict[str, str]:
        try:
            return self._access.headers()
        except AccessError as error:
            raise UnreachableError(tried, 0, "", str(error)) from error

    def _url(self, path: str) -> str:
        return (f"https://{NAME}" if self._servers is not None else self._access.server) + path

    def _unreachable(self, tried: str, error: BaseException) -> UnreachableError:
        detail = str(error) or type(error).__name__
        return UnreachableError(tried, 0, "", f"no answer from {self._access.server}: {detail}")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; aiohttp's own reader refuses those longer than its buffer."""
    pending = bytearray()
    async for chunk in stream.iter_any():
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            if line:
                yield line
        if len(pending) > _LINE_BYTES:
            raise aiohttp.ClientPayloadError(f"a watch event is longer than {_LINE_BYTES} bytes")


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")[:300]


def _keepalive_socket(address: Any) -> socket.socket:
    """A socket that notices within half a minute that the other end is gone: watches are silent for long."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setblocking(False)
    return made
