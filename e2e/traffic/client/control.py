"""How the client is told what to do and asked what it saw: a few HTTP requests, served by the same loop.

    GET  /report?from=N    phases from number N on, the last failures, how many connections are held
    POST /phase/NAME       a phase begins
    PUT  /patience         seconds that an answer may take before it counts as lost
    PUT  /targets          a JSON list of {name, address, port, protocol: TCP|UDP, expect: served|refused|gone}

Asked by address from outside of the cluster's Services, so that it works when those do not.
"""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from .loop import READ, WRITE, Loop

_LONGEST_REQUEST = 1 << 20

# What answers a request: method, path, query, body → what becomes JSON. Raises ValueError for a bad request.
Handler = Callable[[str, str, dict[str, str], bytes], object]


@dataclass(slots=True, eq=False)
class _Conversation:
    sock: socket.socket
    received: bytes = b""
    to_send: bytes = b""


class Control:
    """A small HTTP server: one request per connection."""

    def __init__(self, loop: Loop, port: int, handler: Handler) -> None:
        self._loop, self._handler = loop, handler
        self._listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16, reuse_port=False
        )
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        loop.watch(self._listener, READ, self._accept)

    def close(self) -> None:
        self._loop.close(self._listener)

    def _accept(self, events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it went away before it was accepted
        sock.setblocking(False)
        conversation = _Conversation(sock)
        self._loop.watch(sock, READ, lambda events: self._event(conversation))

    def _event(self, talk: _Conversation) -> None:
        try:
            if talk.to_send:
                talk.to_send = talk.to_send[talk.sock.send(talk.to_send) :]
                if not talk.to_send:
                    self._loop.close(talk.sock)
                return
            data = talk.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        talk.received += data
        if not data or len(talk.received) > _LONGEST_REQUEST:
            self._loop.close(talk.sock)
            return
        answer = self._answer(talk.received)
        if answer is not None:
            talk.to_send = answer
            self._loop.change(talk.sock, WRITE)

    def _answer(self, received: bytes) -> bytes | None:
        head, separator, body = received.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = head.decode("latin-1").split("\r\n")
        lengths = [line.split(":")[1] for line in lines[1:] if line.lower().startswith("content-length:")]
        if len(body) < int(lengths[0] if lengths else 0):
            return None
        try:
            method, address, _ = lines[0].split(" ")
            url = urlsplit(address)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            status, result = "200 OK", self._handler(method, unquote(url.path), query, body)
        except (ValueError, KeyError, TypeError) as error:
            status, result = "400 Bad Request", {"error": f"{type(error).__name__}: {error}"}
        payload = json.dumps(result, separators=(",", ":")).encode()
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode() + payload
