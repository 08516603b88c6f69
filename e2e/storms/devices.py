"""Devices that come and go on the nodes: those of short-lived pods, bridges with ports, macvlans, and another uplink by
which the outside reaches an address of a Service.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from e2e.kube import Object
from e2e.lab.addressing import NodeAddress
from e2e.lab.command import run
from e2e.lab.fabric import BRIDGE
from e2e.lab.images import BASE
from e2e.storms.storm import PATIENCE_S, Storm, StormError
from e2e.traffic.deploy import NAMESPACE
from e2e.trial import Trial, until

_NAME = "uplinked"
_POD = "shortlived"
_CLIENT = ("10.56.0.251/24", "fd56::fb/64")
_CONNECTIONS = 20
_SERVED_S, _TRY_S = 30.0, 5.0
# Asks each address a number of times; a connection has so many seconds.
_ASK = """
import json, socket, sys
for address in json.loads(sys.argv[1]):
    for _ in range(int(sys.argv[2])):
        with socket.create_connection((address, 80), float(sys.argv[3])) as link:
            link.sendall(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
            assert link.recv(100).startswith(b"HTTP/1.0 200"), address
"""


class LostError(StormError):
    """A connection by another uplink was not served, though one before it was."""


class ComingAndGoing(Storm):
    """For each node in turn: a pod that ends at once, some devices beside it, an uplink that is used and taken away."""

    service = _NAME

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self._turn = 0
        self._said = ""

    def begin(self) -> list[dict[str, Any]]:
        nodes = self.trial.lab.plan.nodes
        self.trial.kube.apply(service([address for node in nodes for address in _addresses(node)]))
        for own in _CLIENT:  # deprecated: no other connection is to begin there, nodes know no way back
            self._of_client("addr", "replace", own, "dev", "eth0", "nodad", "preferred_lft", "0")
        for node in nodes:
            for address, via, own in zip(_addresses(node), _uplink(node), _CLIENT, strict=True):
                self._of_client("route", "replace", address, "via", via, "src", own.partition("/")[0])
        return []

    def blow(self) -> None:
        node = self.trial.lab.plan.nodes[self._turn % len(self.trial.lab.plan.nodes)]
        self._turn += 1
        pod = f"{_POD}-{self._turn}"
        self.trial.kube.apply(short_lived(pod, node.name))
        self._plug(node)
        try:
            addresses = _addresses(node)
            until(
                f"{node.name} serves at {addresses} by another uplink",
                lambda: self._ask(addresses, 1, _TRY_S),
                _SERVED_S,
            )
            if not self._ask(addresses, _CONNECTIONS, PATIENCE_S):
                raise LostError(f"{node.name}, by another uplink: {self._said}")
            until(f"{pod} has ended", lambda: self._ended(pod), 120)
        finally:
            self._unplug(node)
            self.trial.kube.delete("Pod", pod, NAMESPACE, grace_s=0)

    def end(self) -> None:
        for node in self.trial.lab.plan.nodes:
            self._unplug(node)
            for address in _addresses(node):
                self._of_client("route", "del", address, check=False)
        for address in _CLIENT:
            self._of_client("addr", "del", address, "dev", "eth0", check=False)
        for turn in range(self._turn + 1):
            self.trial.kube.delete("Pod", f"{_POD}-{turn}", NAMESPACE, grace_s=0)
        self.trial.kube.delete("Service", _NAME, NAMESPACE)

    def _of_client(self, *words: str, check: bool = True) -> None:
        family = "-6" if any(":" in word for word in words) else "-4"
        self.trial.lab.client_exec(["ip", family, *words], check=check)

    def _ask(self, addresses: Sequence[str], times: int, within_s: float) -> bool:
        command = [sys.executable, "-I", "-c", _ASK, json.dumps(addresses), str(times), str(within_s)]
        done = self.trial.lab.client_exec(command, check=False)
        self._said = done.stderr
        return done.returncode == 0

    def _ended(self, pod: str) -> bool:
        phase = self.trial.kube.get("Pod", pod, NAMESPACE)["status"].get("phase")
        return phase in ("Succeeded", "Failed")

    def _plug(self, node: NodeAddress) -> None:
        """The uplink first; what comes and goes beside it is no way to anywhere."""
        fabric, port = self.trial.lab.plan.fabric_netns, f"up-{node.name}"
        ipv4, ipv6 = _uplink(node)
        pair = f"link add {port} type veth peer name up0 netns {node.netns}"
        _ip(fabric, [pair, f"link set {port} master {BRIDGE} up"])
        uplink = [f"addr add {ipv4}/24 dev up0", f"addr add {ipv6}/64 dev up0 nodad", "link set up0 up"]
        bridge = ["link add storm0 type bridge", "link add storm1 type veth peer name storm2"]
        ports = ["link set storm1 master storm0 up", "link set storm2 up", "link set storm0 up"]
        beside = [*bridge, *ports, "link add link eth0 name storm3 type macvlan", "link set storm3 up"]
        _ip(node.netns, [*uplink, *beside])

    def _unplug(self, node: NodeAddress) -> None:
        for device in ("up0", "storm3", "storm1", "storm0"):
            run(["ip", "-netns", node.netns, "link", "del", device], check=False)


def _ip(netns: str, lines: Sequence[str]) -> None:
    run(["ip", "-netns", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _addresses(node: NodeAddress) -> list[str]:
    """External addresses that the outside reaches by the node's other uplink."""
    return [f"198.51.100.3{node.index}", f"2001:db8:198:3::{node.index}"]


def _uplink(node: NodeAddress) -> list[str]:
    """The node's addresses on its other uplink, in the same order of families."""
    return [f"10.56.0.{node.index}", f"fd56::{node.index}"]


def service(addresses: Sequence[str]) -> Object:
    """The traffic's servers at these addresses."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "web"},
            "externalIPs": list(addresses),
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def short_lived(name: str, node: str) -> Object:
    """A pod that ends as soon as it has begun."""
    container = {"name": "it", "image": BASE, "imagePullPolicy": "IfNotPresent", "command": ["true"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [container]},
    }
