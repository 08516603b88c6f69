"""What stands in for kube-proxy's rules, and datagrams that flow meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.datapath.node import NODES, PODS, PORT, Namespaces, text
from tests.datapath.pods import VIPS
from tests.datapath.test_packets import NODE_PORT

STREAM_PORT = 9090  # where a pod's server listens that a test has started itself


@contextmanager
def kube_proxy(net: Namespaces, to: str = "b", extra: str = "") -> Iterator[None]:
    """Sends what is new, and nobody translated before, to a pod."""
    lines = []
    for family, ip in ((4, "ip"), (6, "ip6")):
        for address, port in ((VIPS[family][0], 80), (NODES[family], NODE_PORT)):
            for protocol in ("tcp", "udp"):
                target = text(PODS[to][family], PORT)
                lines.append(f"{ip} daddr {address} {protocol} dport {port} dnat {ip} to {target};")
    own = f"type nat hook prerouting priority -100; {' '.join(lines)} {extra}"
    masquerade = "type nat hook postrouting priority 100; ct status dnat masquerade fully-random;"
    net.run("node", "nft", f"table inet theirs {{ chain d {{ {own} }}; chain m {{ {masquerade} }}; }}")
    yield
    net.run("node", "nft", "delete table inet theirs")


@dataclass(frozen=True, slots=True)
class Stream:
    """What became of the numbered datagrams of one socket."""

    port: int
    sent: int
    got: list[int]
    ends: list[list[str]]
    """Whom the server saw and who it was, each time that this was another pair."""
    errors: int

    def require_whole(self) -> None:
        """Every datagram was answered once, by one server that saw one client."""
        assert self.sent > 1, self
        assert sorted(self.got) == list(range(self.sent)), self
        assert len(self.ends) == 1, self


class Streams:
    """streaming.py on a machine, from when it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self) -> list[Stream]:
        """No more questions; what became of those that were asked."""
        said, _ = self._process.communicate("enough\n", timeout=60)
        return [Stream(**each) for each in json.loads(said)["streams"]]


@contextmanager
def streams(net: Namespaces, machine: str, *order: str | float) -> Iterator[Streams]:
    """Sockets, or a server, on a machine: see streaming.py."""
    inside = ("nsenter", f"--net=/run/netns/{net.name(machine)}")
    script = Path(__file__).with_name("streaming.py")
    command = [*inside, sys.executable, "-S", str(script), *map(str, order)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield Streams(process)
        finally:
            process.kill()
