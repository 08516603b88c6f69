"""A node with two pods on a bridge, another node with a pod, and a machine outside: namespaces joined by veths.

    client 198.51.100.2 ── 198.51.100.1 out0 [ node ] eth0 192.0.2.1 ── 192.0.2.2 node2, with the pod "c" 10.244.2.2
                                       cni0 10.244.1.1
                             port-a ── a 10.244.1.2    b 10.244.1.3 ── port-b

The node's own devices, out0 and eth0, may be ones without link headers instead. The pods, the nodes and the client
have sockets of this process: a socket stays in the namespace where it was made. Servers answer from a thread.
"""

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from handover_agent.packetpath import rules
from tests.datapath import cable
from tests.datapath.pods import TCP, run
from tests.datapath.settling import Settling

PORT = 8080  # where the pods' servers listen
NODES = {4: "198.51.100.1", 6: "2001:db8:100::1"}  # the node's address for the client
CLIENTS = {4: "198.51.100.2", 6: "2001:db8:100::2"}
BRIDGES = {4: "10.244.1.1", 6: "fd00:244:1::1"}
PODS = {
    "a": {4: "10.244.1.2", 6: "fd00:244:1::2"},
    "b": {4: "10.244.1.3", 6: "fd00:244:1::3"},
    "c": {4: "10.244.2.2", 6: "fd00:244:2::2"},
}
INSIDE = {4: "192.0.2.1", 6: "2001:db8:2::1"}  # the node's address for the other node
OTHER_NODE = {4: "192.0.2.2", 6: "2001:db8:2::2"}
ANYWHERE = {4: "0.0.0.0", 6: "::"}


def links(fixture: str) -> pytest.MarkDecorator:
    """Tests with the node's own devices of both sorts, of the machines that a fixture makes."""
    return pytest.mark.parametrize(fixture, [True, False], ids=["ethernet", "no-headers"], indirect=True)


LINKS = links("machines")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answered, and from where the server saw the question come."""

    server: str
    client: str
    source: str  # where the client saw the answer come from
    size: int


class Connection:
    """A client's socket, connected or not, on which questions are asked."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def peer(self) -> tuple[str, int]:
        """Where it is connected to."""
        address, port, *_ = self.socket.getpeername()
        return address, port

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def ask(self, size: int = 2) -> Answer:
        """One question on a connected socket; a datagram's answer has its size."""
        self.socket.send(b"\n".rjust(size, b"?"))
        return self.answer()

    def ask_at(self, address: str, port: int) -> Answer:
        """One datagram to an address."""
        self.socket.sendto(b"?\n", (address, port))
        return self.answer()

    def answer(self) -> Answer:
        if self.socket.type == TCP:
            said, source = self.socket.recv(1000), self.socket.getpeername()
        else:
            said, source = self.socket.recvfrom(65536)
        server, client, *_ = said.decode().split()
        return Answer(server, client, text(*source[:2]), len(said))

    def close(self) -> None:
        self.socket.close()


class Namespaces:
    """The machines, by their short names; what is said to be done on one is done in its namespace."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.settle = Settling()
        self._servers = Servers()

    def close(self) -> None:
        self._servers.close()
        self.settle.close()

    def name(self, machine: str) -> str:
        return f"{self.prefix}-{machine}"

    @contextmanager
    def inside(self, machine: str) -> Iterator[None]:
        """This thread is in a machine's namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        fd = os.open(f"/run/netns/{self.name(machine)}", os.O_RDONLY)
        try:
            _setns(fd)
            yield
        finally:
            _setns(before)
            os.close(fd)
            os.close(before)

    def open(self, machine: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with self.inside(machine):
            opened = socket.socket(family, kind, protocol)
        opened.settimeout(5)
        return opened

    def bound(self, machine: str, family: int, kind: int, port: int = 0, address: str = "") -> Connection:
        """A socket that is bound, not connected."""
        opened = self.open(machine, socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        if not port:  # of UDP sockets that may share one, the kernel would give some the same
            opened.bind((address or ANYWHERE[family], 0))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            opened.bind((address or ANYWHERE[family], port))
        return Connection(opened)

    def connect(self, machine: str, kind: int, address: str, port: int, from_port: int = 0) -> Connection:
        """A socket that is connected (for UDP, that has a peer)."""
        connection = self.bound(machine, 6 if ":" in address else 4, kind, from_port)
        try:
            connection.socket.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, machine: str, kind: int, address: str, port: int, size: int = 2) -> Answer:
        """One question on a new socket."""
        with self.connect(machine, kind, address, port) as connection:
            return connection.ask(size)

    def serve(self, machine: str, kind: int, address: str, port: int) -> socket.socket:
        """A server that says who it is, and whom it sees."""
        opened = self.open(machine, family_of(address), kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        if kind == TCP:
            opened.listen(100)
        opened.setblocking(False)
        self._servers.add(opened)
        return opened

    def stop(self, server: socket.socket) -> None:
        """End a server."""
        self._servers.remove(server)

    def run(self, machine: str, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.name(machine)}", *command],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def ip(self, machine: str, lines: Iterable[str]) -> None:
        subprocess.run(
            ["ip", "-n", self.name(machine), "-batch", "-"],
            input="\n".join(lines),
            check=True,
            text=True,
        )

    @contextmanager
    def no_way(self, machine: str, address: str) -> Iterator[None]:
        """A machine that knows no way to an address, whatever its default route is."""
        self.ip(machine, [f"route add blackhole {address}"])
        try:
            yield
        finally:
            self.ip(machine, [f"route del blackhole {address}"])

    def attach(self, machine: str, device: str, ingress: Path | None, egress: Path | None) -> None:
        """Pinned programs at a device; what is there already is replaced in one step."""
        tc = ("tc", "-n", self.name(machine))
        subprocess.run([*tc, "qdisc", "add", "dev", device, "clsact"], check=False, capture_output=True)
        for where, program in (("ingress", ingress), ("egress", egress)):
            if program:
                place = ("filter", "replace", "dev", device, where, "prio", "1", "handle", "1")
                run(*tc, *place, "bpf", "da", "object-pinned", str(program))


class Servers:
    """Answers on sockets, in a thread."""

    def __init__(self) -> None:
        self._running: dict[socket.socket, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def add(self, opened: socket.socket) -> None:
        asyncio.run_coroutine_threadsafe(self._start(opened), self._loop).result(10)

    def remove(self, opened: socket.socket) -> None:
        """Its address and port are free again afterwards."""
        asyncio.run_coroutine_threadsafe(self._end(opened), self._loop).result(10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        for running in self._running.values():
            running.close()
        talking = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)

    async def _end(self, opened: socket.socket) -> None:
        self._running.pop(opened).close()
        await asyncio.sleep(0)  # one for datagrams is closed in the loop's next turn

    async def _start(self, opened: socket.socket) -> None:
        if opened.type == TCP:
            self._running[opened] = await asyncio.start_server(_talk, sock=opened, limit=1 << 20)
        else:
            self._running[opened], _ = await self._loop.create_datagram_endpoint(_Datagrams, sock=opened)


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    me, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    with suppress(ConnectionError):
        while await reader.readline():
            writer.write(f"{text(*me[:2])} {text(*peer[:2])}\n".encode())
            await writer.drain()  # others want to be answered, too
            await asyncio.sleep(0)
    writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:  # no asyncio.DatagramTransport before Python 3.12
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        me = self.transport.get_extra_info("sockname")
        answer = f"{text(*me[:2])} {text(*source[:2])} ".encode()
        self.transport.sendto(answer.ljust(len(data), b"."), source)


def _setns(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


_SYSCTL = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv4.ping_group_range=0 2147483647",
    # A redirect (for a packet that leaves by the bridge that it came from) would use up the allowance of ICMP
    # errors to that pod, and a refusal would then be lost.
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv6.icmp.ratelimit=0",
)


@contextmanager
def machines(prefix: str, link_headers: bool = True) -> Iterator[Namespaces]:
    """The whole topology, with servers on every pod, and no programs."""
    with ExitStack() as stack:
        names = ("client", "node", "node2", "a", "b")
        for machine in names:
            run("ip", "netns", "add", f"{prefix}-{machine}")
            stack.callback(run, "ip", "netns", "del", f"{prefix}-{machine}")
        made = Namespaces(prefix)
        stack.callback(made.close)
        for machine in names:
            made.run(machine, "sysctl", "-qw", *_SYSCTL)
        if link_headers:
            made.ip(
                "node",
                (
                    f"link add {device} type veth peer name eth0 netns {made.name(machine)}"
                    for device, machine in _OWN
                ),
            )
        else:
            carried = stack.enter_context(
                cable.joined(
                    *((_end(made, "node", device), _end(made, machine, "eth0")) for device, machine in _OWN)
                )
            )
            made.settle.carriers.append(carried)
        _wire(made)
        for machine in names:
            _wait_for_links(made, machine)
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{made.name('node')}", "nft", "-f", "-"],
            input=rules.transaction(),
            check=True,
            text=True,
        )
        for pod, machine in (("a", "a"), ("b", "b"), ("c", "node2")):
            for address in PODS[pod].values():
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    made.serve(machine, kind, address, PORT)
        yield made


_OWN = (("out0", "client"), ("eth0", "node2"))
"""The node's own devices, and the machines at the other ends."""


def _end(made: Namespaces, machine: str, device: str) -> cable.End:
    with made.inside(machine):
        return cable.End.open(device)


def _wire(made: Namespaces) -> None:
    made.ip(
        "node",
        [
            "link set lo up",
            f"link add port-a type veth peer name eth0 netns {made.name('a')}",
            f"link add port-b type veth peer name eth0 netns {made.name('b')}",
            "link add cni0 type bridge forward_delay 0 mcast_snooping 0",
            *(f"link set port-{pod} master cni0" for pod in "ab"),
            *(f"link set port-{pod} type bridge_slave hairpin on" for pod in "ab"),
            *_addresses("out0", NODES),
            *_addresses("eth0", INSIDE),
            *_addresses("cni0", BRIDGES),
            *(f"link set {device} up" for device in ("out0", "eth0", "cni0", "port-a", "port-b")),
            f"route add 10.244.2.0/24 via {OTHER_NODE[4]}",
            f"route add fd00:244:2::/64 via {OTHER_NODE[6]}",
            *(f"route add default via {CLIENTS[family]}" for family in (4, 6)),
        ],
    )
    for machine, addresses, via in (
        ("client", CLIENTS, NODES),
        ("node2", OTHER_NODE, INSIDE),
        ("a", PODS["a"], BRIDGES),
        ("b", PODS["b"], BRIDGES),
    ):
        defaults = [f"route add default via {via[4]}", f"route add default via {via[6]}"]
        made.ip(machine, ["link set lo up", *_addresses("eth0", addresses), "link set eth0 up", *defaults])
    made.ip("node2", _addresses("lo", PODS["c"]))


def _wait_for_links(made: Namespaces, machine: str) -> None:
    """The kernel may notice a second late that a device has a carrier; until then IPv6 finds no neighbour there."""
    deadline = time.monotonic() + 20
    while late := [
        each["ifname"]
        for each in json.loads(made.run(machine, "ip", "-j", "link", "show", "up"))
        if each["operstate"] not in ("UP", "UNKNOWN")
    ]:
        assert time.monotonic() < deadline, (machine, late)
        time.sleep(0.02)


def _addresses(device: str, addresses: dict[int, str]) -> list[str]:
    return [
        f"address add {addresses[4]}/24 dev {device}",
        f"address add {addresses[6]}/64 dev {device} nodad",
    ]
