"""Serves, and asks what it is told to: in a pod, on a node itself, or outside of the cluster.

A server says who it is and whom it sees; whoever asks says what came of it: that, or `refused`, or `dropped`. It is
told over a TCP port, one JSON line for each question. It goes into pods as it is: only the standard library.
"""

import contextlib
import errno
import json
import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Address = tuple[str, int]

REFUSED, DROPPED, UNREACHABLE = "refused", "dropped", "unreachable"
_WORDS = {
    errno.ECONNREFUSED: REFUSED,
    errno.ETIMEDOUT: DROPPED,
    errno.ENETUNREACH: UNREACHABLE,
    errno.EHOSTUNREACH: UNREACHABLE,
}
# What the kernel has repeated (a SYN, after a second by itself) or we have (a datagram) would have been answered or
# refused by now: all that could is on this machine, and answers from within its kernel.
_AFTER_REPEATING_S, _ATTEMPTS, _DATAGRAM_S = 0.4, 3, 0.5
_ANSWER_S = 10.0
_SESSIONS: dict[tuple[str, Address, int], socket.socket] = {}
"""Sockets for datagrams that stay open from one question to the next."""
_RETRANSMITS = 2  # where struct tcp_info has them, as one byte
_SCTP, _INIT, _INIT_ACK = 132, 1, 2
_SCTP_HEADER, _INIT_CHUNK = struct.Struct(">HHII"), struct.Struct(">BBHIIHHI")
_RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}


def family_of(host: str) -> socket.AddressFamily:
    """By its colons."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# -- serving --


def told(name: str, port: int, sender: Any, size: int) -> bytes:
    """What a server says, as long as what it was sent."""
    fields = {"by": name, "port": port, "from": sender[0], "got": size}
    return json.dumps(fields).encode().ljust(size)


def serve_streams(name: str, host: str, port: int) -> None:
    """Says it to everyone who connects; and again for each line, as long as the connection lasts."""
    with socket.create_server((host, port), family=family_of(host), backlog=256) as listener:
        while True:
            connection, sender = listener.accept()
            threading.Thread(
                target=_converse, args=(connection, told(name, port, sender, 0)), daemon=True
            ).start()


def _converse(connection: socket.socket, text: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(text + b"\n")
        for _ in connection.makefile("rb"):
            connection.sendall(text + b"\n")


def serve_datagrams(name: str, host: str, port: int) -> None:
    """Says it to everyone who sends something, from the address that it was sent to."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as listener:
        listener.bind((host, port))
        while True:
            with contextlib.suppress(OSError):
                data, sender = listener.recvfrom(65535)
                listener.sendto(told(name, port, sender, len(data)), sender)


def serve_associations(name: str, host: str, port: int) -> None:
    """Says it to everyone who wants an SCTP association, in the cookie that it answers with: no kernel is needed."""
    with socket.socket(family_of(host), socket.SOCK_RAW, _SCTP) as listener:
        listener.bind((host, 0))
        while True:
            with contextlib.suppress(OSError, struct.error):
                data, sender = listener.recvfrom(65535)
                wanted = sctp_read(data, listener.family)
                if wanted and (wanted["to"], wanted["chunk"]) == (port, _INIT):
                    text = told(name, port, sender, 0)
                    answer = sctp_packet(port, wanted["from"], wanted["tag"], _INIT_ACK, text)
                    listener.sendto(answer, (sender[0], 0))


def sctp_packet(source_port: int, port: int, tag: int, chunk: int, cookie: bytes = b"") -> bytes:
    """An SCTP packet (RFC 9260) with an INIT or INIT ACK chunk."""
    parameter = struct.pack(">HH", 7, 4 + len(cookie)) + cookie if cookie else b""
    parameter += bytes(-len(parameter) % 4)
    length = _INIT_CHUNK.size + len(parameter)
    body = _INIT_CHUNK.pack(chunk, 0, length, random.getrandbits(32) or 1, 65536, 1, 1, 1) + parameter
    unsummed = _SCTP_HEADER.pack(source_port, port, tag, 0) + body
    return unsummed[:8] + struct.pack("<I", crc32c(unsummed)) + unsummed[12:]


def sctp_read(data: bytes, family: int) -> dict[str, Any]:
    """Ports, tag, chunk and cookie of what a raw socket got; empty when its checksum is wrong."""
    if family == socket.AF_INET:  # with the IP header
        data = data[(data[0] & 15) * 4 :]
    source_port, port, _, _ = _SCTP_HEADER.unpack_from(data)
    if crc32c(data[:8] + bytes(4) + data[12:]) != int.from_bytes(data[8:12], "little"):
        return {}
    chunk, _, length, tag, *_ = _INIT_CHUNK.unpack_from(data, _SCTP_HEADER.size)
    cookie = data[_SCTP_HEADER.size + _INIT_CHUNK.size + 4 : _SCTP_HEADER.size + length].rstrip(b"\0")
    return {"from": source_port, "to": port, "chunk": chunk, "tag": tag, "cookie": cookie}


def crc32c(data: bytes) -> int:
    """The checksum of SCTP."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# -- asking --


def tcp(target: Address, source_port: int = 0, mark: int = 0) -> dict[str, Any]:
    """Connects, and tells who answers. `mark`: by which routes (SO_MARK)."""
    with _socket(target, socket.SOCK_STREAM, source_port, mark) as stream:
        stream.setblocking(False)
        code = stream.connect_ex(target)
        if code == errno.EINPROGRESS:
            code = _outcome(stream)
        if code:
            return {"what": _WORDS.get(code, errno.errorcode[code])}
        stream.settimeout(_ANSWER_S)
        line = b""
        with contextlib.suppress(ConnectionResetError):
            peer, line = stream.getpeername(), stream.makefile("rb").readline()
        if not line:
            return {"what": "its server ended before it answered"}
        return json.loads(line) if peer[:2] == target else {"what": f"connected with {peer}"}


def _outcome(stream: socket.socket) -> int:
    """The error number of a connection that is being made; ETIMEDOUT when nobody answered its repeated SYN either."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    repeated_at = 0.0
    while not poll.poll(50):
        info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        if info[_RETRANSMITS] and not repeated_at:
            repeated_at = time.monotonic()
        if repeated_at and time.monotonic() - repeated_at > _AFTER_REPEATING_S:
            return errno.ETIMEDOUT
    return stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def udp(
    target: Address,
    source_port: int = 0,
    mark: int = 0,
    size: int = 1,
    connected: bool = True,
    session: str = "",
) -> dict[str, Any]:
    """Sends a datagram, again when nothing comes, and tells who answers. `session`: from one socket for all questions
    that say so.
    """
    with contextlib.ExitStack() as stack:
        sender = _SESSIONS.get((session, target, mark)) if session else None
        opened = sender is None
        if sender is None:
            sender = _socket(target, socket.SOCK_DGRAM, source_port, mark)
            sender.setsockopt(
                *_RECVERR[sender.family], 1
            )  # or a socket that is not connected would hear of no error
            sender.settimeout(_DATAGRAM_S)
            if session:
                _SESSIONS[session, target, mark] = sender
            else:
                stack.enter_context(sender)
        try:
            if connected and opened:
                sender.connect(target)
            for _ in range(_ATTEMPTS):
                with _lost_on_the_way_out():
                    if connected:
                        sender.send(b"x" * size)
                    else:
                        sender.sendto(b"x" * size, target)
                with contextlib.suppress(TimeoutError):
                    data, peer = sender.recvfrom(65535)
                    found = json.loads(data)
                    whole = found["got"] == size <= len(data)
                    from_whom = peer[:2] == target
                    return (
                        found if whole and from_whom else {"what": f"{len(data)} bytes from {peer}, {found}"}
                    )
        except OSError as error:
            if _SESSIONS.pop((session, target, mark), None):  # that is its end
                sender.close()
            return {"what": _WORDS.get(error.errno or 0, str(error))}
        return {"what": DROPPED}


def sctp(target: Address, source_port: int = 0, mark: int = 0) -> dict[str, Any]:
    """Asks for an association, again when nothing comes, and tells who answers: the first two packets of four."""
    own_port = source_port or random.randrange(20000, 30000)
    with socket.socket(family_of(target[0]), socket.SOCK_RAW, _SCTP) as sender:
        sender.setsockopt(*_RECVERR[sender.family], 1)
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            sender.connect((target[0], 0))
            for _ in range(_ATTEMPTS):
                with _lost_on_the_way_out():
                    sender.send(sctp_packet(own_port, target[1], 0, _INIT))
                until = time.monotonic() + _DATAGRAM_S
                while (left := until - time.monotonic()) > 0:
                    sender.settimeout(left)
                    with contextlib.suppress(TimeoutError):
                        found = sctp_read(sender.recv(65535), sender.family)
                        if found and (found["from"], found["to"], found["chunk"]) == (
                            target[1],
                            own_port,
                            _INIT_ACK,
                        ):
                            answer: dict[str, Any] = json.loads(found["cookie"])
                            return answer
        except OSError as error:
            return {"what": _WORDS.get(error.errno or 0, str(error))}
        return {"what": DROPPED}


@contextlib.contextmanager
def _lost_on_the_way_out() -> Iterator[None]:
    """A packet of the node's own that its rules (EPERM) or programs (ENOBUFS) discard: whether it is refused, an answer
    tells.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOBUFS):
            raise


def _socket(target: Address, kind: socket.SocketKind, source_port: int, mark: int) -> socket.socket:
    made = socket.socket(family_of(target[0]), kind)
    if mark:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if source_port:
        made.bind(("", source_port))
    return made


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {"tcp": tcp, "udp": udp, "sctp": sctp}


def answer(line: bytes) -> Iterator[dict[str, Any]]:
    """The answers to one question, as many as it wants."""
    question = json.loads(line)
    do, times = QUESTIONS[question.pop("do")], question.pop("times", 1)
    question["target"] = tuple(question["target"])
    try:
        for _ in range(times):
            yield do(**question)
        yield {"end": True}
    except (OSError, ValueError) as error:
        yield {"error": f"{type(error).__name__}: {error}"}


def _attend(asker: socket.socket) -> None:
    with asker, contextlib.suppress(ConnectionError):
        asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for line in asker.makefile("rb"):
            for found in answer(line):
                asker.sendall(json.dumps(found).encode() + b"\n")


def main(name: str, addresses: str, control: int, ports: list[int]) -> None:
    """Serve at these ports of these addresses (separated by commas), and answer questions, for ever."""
    for host in filter(None, addresses.split(",")):
        for port in ports:
            for serve in (serve_streams, serve_datagrams, serve_associations):
                threading.Thread(target=serve, args=(name, host, port), daemon=True).start()
    with socket.create_server(("", control), backlog=64) as listener:
        while True:
            asker, _ = listener.accept()
            threading.Thread(target=_attend, args=(asker,), daemon=True).start()


if __name__ == "__main__":
    if os.environ.get("ATTENDED"):  # ends with whoever started it
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(port) for port in sys.argv[4:]])
