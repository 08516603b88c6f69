"""A lab of two nodes for measuring: a client's pod on one, a server's on the other, and a crowd of Services."""

import json
from dataclasses import dataclass
from pathlib import Path

from e2e.kube import Kube, Object
from e2e.lab import Lab
from e2e.lab.images import BASE
from e2e.netns import Inside
from e2e.trial import until

NAMESPACE = "bench"
_SCRIPT = Path(__file__).with_name("connecting.py")
_ENDPOINTS = 4


def _pod(name: str, node: str, command: list[str]) -> Object:
    container = {"name": name, "image": BASE, "imagePullPolicy": "IfNotPresent", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def crowd(index: int) -> list[Object]:
    """A Service of the crowd and its endpoints: UDP, so that no probe waits for servers that do not exist."""
    name = f"crowd-{index}"
    metadata = {"name": name, "namespace": NAMESPACE}
    addresses = [
        f"198.18.{(index * _ENDPOINTS + i) // 250 % 250}.{(index * _ENDPOINTS + i) % 250 + 1}"
        for i in range(_ENDPOINTS)
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"port": 9, "protocol": "UDP"}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 9, "protocol": "UDP"}],
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
        },
    ]


@dataclass(frozen=True, slots=True)
class Bench:
    """The handles on one lab."""

    lab: Lab
    kube: Kube
    fabric: Inside

    @classmethod
    def on(cls, lab: Lab) -> "Bench":
        fabric = Inside(lab.plan.fabric_netns, threads=4)
        return cls(lab, Kube(fabric, lab.plan.api4, lab.scratch.pki), fabric)

    def place(self) -> tuple[str, str]:
        """Start client and server; returns the server's own address and its Service's, with ports."""
        client, server = self.lab.nodes[0].name, self.lab.nodes[1].name
        self.kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            _pod("client", client, ["sleep", "infinity"]),
            _pod("server", server, ["/usr/local/bin/agnhost", "netexec", "--http-port=8080"]),
        )
        self.lab.kubectl(
            "wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/client", "pod/server", "--timeout=90s"
        )
        return f"{self.kube.get('Pod', 'server', NAMESPACE)['status']['podIP']}:8080", f"{self._service()}:80"

    def _service(self) -> str:
        """Made last: when it is served, everything before it has been programmed."""
        spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "server", "namespace": NAMESPACE},
                "spec": spec,
            }
        )
        return str(self.kube.get("Service", "server", NAMESPACE)["spec"]["clusterIP"])

    def fill(self, services: int) -> None:
        """Create the crowd."""
        for index in range(services):
            self.kube.apply(*crowd(index))
            if index % 250 == 249:
                self.lab.progress.say(f"{index + 1} of {services} Services")

    def measure(self, targets: dict[str, str], *, rounds: int, connects: int) -> dict[str, list[float]]:
        """Rounds of medians in µs for each target, from the client's pod. Waits until all of them answer."""
        named = [f"{name}={address}" for name, address in targets.items()]
        until("every address answers from the client's pod", lambda: self._run(1, 1, named), 180)
        return self._run(rounds, connects, named) or {}

    def _run(self, rounds: int, connects: int, named: list[str]) -> dict[str, list[float]] | None:
        printed = self.lab.kubectl(
            "exec", "-i", "-n", NAMESPACE, "client", "--", "python3", "-", str(rounds), str(connects), *named,
            stdin=_SCRIPT.read_text(), check=False, timeout_s=600,
        )  # fmt: skip
        try:
            found: dict[str, list[float]] = json.loads(printed)
        except ValueError:
            return None  # a connection failed: not served yet
        return found
