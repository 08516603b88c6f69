"""Network namespaces of a test's own, without names: they go when the last thing that refers to them goes.

`entered` puts the calling thread into a namespace. Sockets made there stay there, and so do processes started
there, so that one test can hold a client in one pod, a server in another, and be on the node itself.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A new network namespace with its loopback device up."""

    def __init__(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            if _libc.unshare(_CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            self.handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            run("ip", "link", "set", "lo", "up")
        finally:
            _libc.setns(home, _CLONE_NEWNET)
            os.close(home)

    @property
    def path(self) -> str:
        """What `ip link … netns` takes."""
        return f"/proc/{os.getpid()}/fd/{self.handle}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            if _libc.setns(self.handle, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(home, _CLONE_NEWNET)
            os.close(home)

    def close(self) -> None:
        os.close(self.handle)


class Pod:
    """A namespace behind a veth of the node's, with an address per family."""

    def __init__(self, node: Namespace, name: str, addresses: tuple[str, str]) -> None:
        self.inside = Namespace()
        with node.entered():
            run(
                *("ip", "link", "add", name, "type", "veth"),
                *("peer", "name", "eth0", "netns", self.inside.path),
            )
            run("ip", "link", "set", name, "up")
            run("ip", "addr", "add", "169.254.1.1/32", "dev", name)
            run("ip", "addr", "add", "fe80::1/64", "dev", name, "nodad")
        with self.inside.entered():
            run("ip", "link", "set", "eth0", "up")
            run("ip", "addr", "add", f"{addresses[0]}/32", "dev", "eth0")
            run("ip", "addr", "add", f"{addresses[1]}/128", "dev", "eth0", "nodad")
            run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
            run("ip", "route", "add", "default", "via", "169.254.1.1")
            run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        with node.entered():
            run("ip", "route", "add", addresses[0], "dev", name)
            run("ip", "-6", "route", "add", addresses[1], "dev", name)


class Connection:
    """A TCP connection of which the test holds both ends."""

    def __init__(self, client: socket.socket, served: socket.socket) -> None:
        self.client, self.served = client, served
        for end in (client, served):
            end.settimeout(1)

    def alive(self) -> bool:
        """Whether a question and an answer still pass."""
        try:
            self.client.sendall(b"?")
            if self.served.recv(1) != b"?":
                return False
            self.served.sendall(b"!")
            return self.client.recv(1) == b"!"
        except (TimeoutError, ConnectionError):
            return False

    def close(self) -> None:
        for end in (self.client, self.served):
            end.close()


def listening(where: Namespace, address: str, port: int) -> socket.socket:
    with where.entered():
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        made.settimeout(5)
        return made


def connected(where: Namespace, to: tuple[str, int], server: socket.socket) -> Connection:
    with where.entered():
        client = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    client.settimeout(5)
    client.connect(to)
    return Connection(client, server.accept()[0])


def run(*command: str, given: str = "") -> str:
    """A command's output; what it printed on failure is in the error."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def write(file: str, text: str) -> None:
    Path(file).write_text(text)
