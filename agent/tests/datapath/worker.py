"""Runs inside a namespace and a cgroup, and uses sockets as it is told: one JSON object per line, in and out.

Started by path, with nothing but the standard library: a stand-in for any process of a pod.
"""

import json
import socket
import sys
import threading
from typing import Any

sockets: dict[int, socket.socket] = {}
loads: dict[int, "Load"] = {}


class Load:
    """New connections and datagrams to a frontend, as fast as they go, until stopped; counts the answers."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.answers: dict[str, int] = {}
        self.stop = threading.Event()
        self.kept = socket.create_connection((address, port), timeout=5)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        kept = self.kept.makefile("rwb")
        kept.readline()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.settimeout(5)
        while not self.stop.is_set():
            self.note(
                "tcp",
                lambda: socket.create_connection((self.address, self.port), timeout=5).recv(100).decode(),
            )
            self.note("kept", lambda: self.ask(kept))
            self.note("udp", lambda: self.datagram(datagrams))

    def ask(self, stream: Any) -> str:
        stream.write(b"again\n")
        stream.flush()
        return str(stream.readline().decode())

    def datagram(self, datagrams: socket.socket) -> str:
        datagrams.sendto(b"hello", (self.address, self.port))
        answer, source = datagrams.recvfrom(100)
        return answer.decode() if source == (self.address, self.port) else f"from {source}"

    def note(self, kind: str, attempt: Any) -> None:
        try:
            what = attempt().strip() or "nothing"
        except OSError as error:
            what = f"error {error}"
        self.answers[f"{kind} {what}"] = self.answers.get(f"{kind} {what}", 0) + 1


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def answer(order: dict[str, Any]) -> Any:
    number = order["number"]
    match order["order"]:
        case "socket":
            sockets[number] = socket.socket(order["family"], order["kind"], order["protocol"])
            sockets[number].settimeout(5)
        case "call":
            arguments = [tuple(a) if isinstance(a, list) else a for a in order["arguments"]]
            arguments = [a["bytes"].encode() if isinstance(a, dict) else a for a in arguments]
            return plain(getattr(sockets[number], order["method"])(*arguments))
        case "disconnect":  # connect(2) with AF_UNSPEC, as resolvers do between servers
            import ctypes  # noqa: PLC0415

            ctypes.CDLL(None).connect(sockets[number].fileno(), bytes(16), 16)
        case "load":
            loads[number] = Load(order["address"], order["port"])
        case "unload":
            loads[number].stop.set()
            loads[number].thread.join()
            return loads.pop(number).answers
    return None


for line in sys.stdin:
    try:
        result = {"result": answer(json.loads(line))}
    except OSError as error:
        result = {"errno": error.errno or 0, "text": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
