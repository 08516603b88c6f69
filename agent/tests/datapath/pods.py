"""Two pods and a server: namespaces joined by veths, a cgroup for the pods, processes in them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from handover_agent.node import find_cgroup
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

HERE = Path(__file__).parent
BACKEND_PORT, SERVICE_PORT = 8080, 80
BACKENDS = {
    4: ["192.0.2.11", "192.0.2.12", "192.0.2.13"],
    6: ["2001:db8::11", "2001:db8::12", "2001:db8::13"],
}
# The server also has the service addresses: what we leave alone arrives there, as at a kube-proxy's.
VIPS = {4: ["10.96.0.10", "10.96.0.11"], 6: ["fd00:96::10", "fd00:96::11"]}

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
PROTOCOLS: dict[int, Protocol] = {TCP: Protocol.TCP, UDP: Protocol.UDP}


def backends(family: int, which: tuple[int, ...] = (0, 1, 2)) -> list[Backend]:
    return [Backend(ip_bytes(BACKENDS[family][i]), BACKEND_PORT) for i in which]


def frontend(address: str, kind: int, port: int = SERVICE_PORT) -> FrontendKey:
    return FrontendKey(ip_bytes(address), port, PROTOCOLS[kind])


class Refused(Exception):
    """A call on a remote socket failed; `errno` as it was there."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Pod:
    """A process in a namespace and a cgroup, with sockets."""

    def __init__(self, namespace: str, cgroup: Path) -> None:
        self._numbers = count()
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-S", str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())) and None,  # noqa: PLW1509
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def order(self, **order: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "errno" in answer:
            raise Refused(answer["errno"], answer["text"])
        return answer["result"]

    def socket(self, family: int, kind: int, protocol: int = 0) -> "RemoteSocket":
        return RemoteSocket(self, next(self._numbers), family, kind, protocol)

    def tcp(self, address: str, port: int = SERVICE_PORT) -> "RemoteSocket":
        """A connected TCP socket of the address's family."""
        opened = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, TCP)
        opened.connect(address, port)
        return opened

    def udp(self, family: int = 4) -> "RemoteSocket":
        return self.socket(socket.AF_INET if family == 4 else socket.AF_INET6, UDP)

    @contextmanager
    def load(self, address: str, port: int = SERVICE_PORT) -> Iterator[dict[str, int]]:
        """New and kept connections and datagrams while the body runs; the answers are there after it."""
        number, answers = next(self._numbers), dict[str, int]()
        self.order(order="load", number=number, address=address, port=port)
        try:
            yield answers
        finally:
            answers.update(self.order(order="unload", number=number))


class RemoteSocket:
    """A socket of a pod."""

    def __init__(self, pod: Pod, number: int, family: int, kind: int, protocol: int) -> None:
        self._pod, self._number = pod, number
        pod.order(order="socket", number=number, family=int(family), kind=int(kind), protocol=protocol)

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._pod.order(order="call", number=self._number, method=method, arguments=arguments)

    def connect(self, address: str, port: int = SERVICE_PORT) -> None:
        self._call("connect", [address, port])

    def disconnect(self) -> None:
        self._pod.order(order="disconnect", number=self._number)

    def peer(self) -> tuple[str, int]:
        """getpeername(2): address and port."""
        host, port, *_ = self._call("getpeername")
        return host, port

    def send(self, text: str = "hello\n") -> None:
        self._call("send", {"bytes": text})

    def sendto(self, address: str, port: int = SERVICE_PORT) -> None:
        self._call("sendto", {"bytes": "hello\n"}, [address, port])

    def answer(self) -> str:
        """The next answer: the address that the server was reached at."""
        return str(self._call("recv", 1000)).strip()

    def answer_from(self) -> tuple[str, str, int]:
        """The next datagram: the address that the server was reached at, and its source by recvfrom(2)."""
        text, (host, port, *_) = self._call("recvfrom", 1000)
        return text.strip(), host, port

    def ask(self, address: str, port: int = SERVICE_PORT) -> str:
        """One datagram to an address, and who answered."""
        self.sendto(address, port)
        return self.answer()

    def option(self, level: int, name: int, value: int) -> None:
        """setsockopt(2)."""
        self._call("setsockopt", level, name, value)

    def settimeout(self, seconds: float) -> None:
        self._call("settimeout", seconds)

    def close(self) -> None:
        self._call("close")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A cgroup of our own; empty again at the end."""
    path = find_cgroup(Path("/sys/fs/cgroup")) / name
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


@contextmanager
def network(prefix: str) -> Iterator[tuple[str, str]]:
    """Namespaces of two pods, joined to a third with the servers; yields the pods' names."""
    server, pods = f"{prefix}-server", (f"{prefix}-a", f"{prefix}-b")
    with ExitStack() as stack:
        for namespace in (server, *pods):
            run("ip", "netns", "add", namespace)
            stack.callback(run, "ip", "netns", "del", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        for i, pod in enumerate(pods, start=1):
            run(
                "ip",
                "-n",
                pod,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                f"veth{i}",
                "netns",
                server,
            )
            run("ip", "-n", pod, "link", "set", "eth0", "up")
            run("ip", "-n", server, "link", "set", f"veth{i}", "up")
            for mine, theirs in (
                (f"198.18.{i}.2/24", f"198.18.{i}.1/24"),
                (f"2001:db8:{i}::2/64", f"2001:db8:{i}::1/64"),
            ):
                nodad = ("nodad",) if ":" in mine else ()
                run("ip", "-n", pod, "address", "add", mine, "dev", "eth0", *nodad)
                run("ip", "-n", server, "address", "add", theirs, "dev", f"veth{i}", *nodad)
                run("ip", "-n", pod, "route", "add", "default", "via", theirs.partition("/")[0])
        for address in (*BACKENDS[4], *VIPS[4], *BACKENDS[6], *VIPS[6]):
            nodad = ("nodad",) if ":" in address else ()
            run("ip", "-n", server, "address", "add", address, "dev", "lo", *nodad)
        listen = [f"{address}/{BACKEND_PORT}" for family in (4, 6) for address in BACKENDS[family]]
        listen += [f"{address}/{SERVICE_PORT}" for family in (4, 6) for address in VIPS[family]]
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{server}", sys.executable, "-S", str(HERE / "server.py"), *listen],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        stack.callback(process.wait, timeout=20)
        stack.callback(process.stdin.close)
        assert process.stdout.readline() == "ready\n"
        yield pods
