"""Requests to whichever API server answers: failover, credentials, deadlines, and errors that say what was
tried.

`apiserver` knows what to ask for; this knows how to get an answer out of one of several servers of which some
may be dead, slow, or somebody else.
"""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from handover_agent.apierrors import StatusError, Unauthorized, Unreachable, status_error
from handover_agent.credentials import Credentials
from handover_agent.servers import Candidate, Servers


@dataclass(frozen=True, slots=True)
class Request:
    """What to send, and what to call it in a message."""

    verb: str  # as RBAC has it: get, list, watch, patch, create
    what: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes | None = None
    content_type: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no harm: reads and applies, yes; a create, no."""
        return self.method != "POST"


class Transport:
    """Sends requests to the servers in their order until one answers."""

    def __init__(
        self, credentials: Credentials, servers: Servers, timeout_s: float, connect_timeout_s: float
    ) -> None:
        self._credentials, self._servers = credentials, servers
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Begin; belongs to the running event loop."""
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_keepalive_socket)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def call(self, request: Request) -> bytes:
        """The body of the answer."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=self._connect_timeout_s)
        try:
            return await self._read(request, timeout)
        except Unauthorized:
            self._credentials.forget()  # kubelet may have written a new token since
            return await self._read(request, timeout)

    @asynccontextmanager
    async def lines(self, request: Request, idle_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Inside, the answer has begun; iterate over its lines until it ends. Silence for `idle_s` is an
        error.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s, sock_read=idle_s)
        async with self._answer(request, timeout) as stream:
            yield self._split(request, stream)

    async def _read(self, request: Request, timeout: aiohttp.ClientTimeout) -> bytes:  # noqa: ASYNC109
        async with self._answer(request, timeout) as response:
            try:
                return await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._broken(request, "the answer", error) from error

    async def _split(self, request: Request, stream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
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
            raise self._broken(request, "the stream", error) from error

    def _broken(self, request: Request, part: str, error: Exception) -> Unreachable:
        at = self._servers.current or "the API server"
        return Unreachable(f"{request.verb} {request.what} at {at}: {part} broke: {_reason(error)}")

    @asynccontextmanager
    async def _answer(
        self,
        request: Request,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's kind, which knows phases
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 400 from the first server that gives any."""
        tried: list[str] = []
        for candidate in self._servers.candidates():
            try:
                response = await self._send(request, candidate, timeout)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._servers.failed(candidate)
                tried.append(f"{candidate.address}: {_reason(error)}")
                if not request.repeatable and not isinstance(error, aiohttp.ClientConnectorError):
                    break  # it may have been carried out
                continue
            async with response:
                self._servers.worked(candidate)
                if response.status >= 400:
                    raise await _failure(request, response)
                yield response
            return
        raise Unreachable(f"{request.verb} {request.what}: no API server answers ({'; '.join(tried)})")

    async def _send(
        self,
        request: Request,
        candidate: Candidate,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("use the client inside `async with`")
        headers = {**self._credentials.headers(), "Accept": "application/json"}
        if request.content_type:
            headers["Content-Type"] = request.content_type
        tls = self._credentials.tls()
        for again in (True, False):
            try:
                return await self._session.request(
                    request.method,
                    f"{self._credentials.scheme}://{candidate.address}{request.path}",
                    params=request.query,
                    data=request.body,
                    headers=headers,
                    timeout=timeout,
                    ssl=tls if tls is not None else True,
                    server_hostname=candidate.server_name if tls is not None else None,
                    allow_redirects=False,
                )
            except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                # A kept connection that the server has closed meanwhile says nothing against the server.
                if not again or not request.repeatable:
                    raise
        raise AssertionError("unreachable")


def _keepalive_socket(address: Any) -> socket.socket:
    """A socket that notices within half a minute that the other end is gone: watches are silent for longer."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setblocking(False)
    return made


async def _failure(request: Request, response: aiohttp.ClientResponse) -> StatusError:
    try:
        async with asyncio.timeout(5):
            raw = await response.content.read(65536)
        message = str(json.loads(raw).get("message", ""))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError):
        message = response.reason or ""
    retry = response.headers.get("Retry-After", "")
    retry_s = float(retry) if retry.isdigit() else 0.0
    return status_error(request.verb, request.what, response.status, message, retry_s)


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
