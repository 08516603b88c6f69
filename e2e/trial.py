"""A lab with live traffic on it, for the demo and the tests: what both do to it and wait for.

Every wait is for a condition, has a deadline, and says on giving up what was seen instead.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from e2e.kube import Kube, KubeError, Object
from e2e.lab import Lab, Node
from e2e.lab.images import BASE
from e2e.netns import Inside
from e2e.traffic import deploy
from e2e.traffic.collector import Address, Collector, CollectorError
from e2e.traffic.outside import Outside

T = TypeVar("T")

_TRAFFIC_UP_S = 120.0


class TrialError(Exception):
    """Something that the trial waited for did not come about: says what, for how long, and what was seen."""


def until(
    what: str, check: Callable[[], T | None], within_s: float, seen: Callable[[], object] = lambda: ""
) -> T:
    """Return the first true thing that `check` returns; after the time raise TrialError with what is `seen`.

    An API server that does not answer is waited for like anything else.
    """
    deadline = time.monotonic() + within_s
    trouble = ""
    while True:
        try:
            if result := check():
                return result
            trouble = ""
        except (KubeError, CollectorError) as error:
            trouble = str(error)
        if time.monotonic() > deadline:
            raise TrialError(f"gave up after {within_s:.0f} s waiting until {what}: {trouble or seen()}")
        time.sleep(0.2)


class Trial:
    """The handles on one lab: its API, its fabric, and the traffic."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fabric = Inside(lab.plan.fabric_netns, threads=2 * len(lab.plan.nodes) + 2)
        self.kube = Kube(self.fabric, lab.plan.api4, lab.scratch.pki)
        self._collector: Collector | None = None
        self._outside = Outside(lab, self.kube)

    @property
    def traffic(self) -> Collector:
        """What the clients are told and asked through; there once traffic has been started."""
        if self._collector is None:
            raise TrialError("no traffic has been started on this lab")
        return self._collector

    def start_traffic(self, outside: bool = False) -> None:
        """Put traffic on the lab, and return when every client holds all of its connections.

        `outside`: also from outside of the cluster, by NodePorts and load balancers' and external addresses.
        """
        old = {pod["metadata"]["uid"] for pod in self._client_pods()}
        servers, clients = deploy.objects(BASE, replicas=len(self.lab.plan.nodes))
        self.kube.apply(*servers)
        self.lab.rollout("deployment/web", deploy.NAMESPACE)
        service = self.kube.get("Service", "web", deploy.NAMESPACE)
        for node in self.lab.nodes:
            for address in service["spec"]["clusterIPs"]:
                until(
                    f"{node.name} is served at {address}",
                    lambda node=node, address=address: _served(node, address),  # type: ignore[misc]
                    _TRAFFIC_UP_S,
                )
        self.kube.apply(*clients)
        for pod in self._client_pods():
            if pod["metadata"]["uid"] in old:  # of an earlier run, with another past
                self.kube.delete("Pod", pod["metadata"]["name"], deploy.NAMESPACE, grace_s=0)
        addresses = until("every client runs", lambda: self._clients(old), _TRAFFIC_UP_S, self._pods)
        if outside:
            self._outside.prepare()
            until("the outside is served at every address", self._outside.served, _TRAFFIC_UP_S)
            addresses.append(self._outside.start())
        collector = Collector(self.fabric, addresses)
        until("every client answers", lambda: _started(collector), _TRAFFIC_UP_S, self._pods)
        self._collector = collector
        until(
            "every client holds its connections",
            lambda: all(c.held == c.held_wanted for c in collector.report().clients),
            _TRAFFIC_UP_S,
            lambda: [(c.name, c.held, c.held_wanted) for c in collector.report().clients],
        )

    def wait_for_requests(self, number: int) -> None:
        """Return when so many more requests have been answered: a stretch of time, measured in traffic."""
        wanted = self._answered() + number
        until(f"{number} requests are answered", lambda: self._answered() >= wanted, 60, self._losses)

    def wait_until_calm(self, requests: int = 10_000, within_s: float = 90) -> None:
        """Return when every connection is held and a stretch of traffic lost nothing."""

        def calm() -> bool:
            before = self._losses()
            self.wait_for_requests(requests)
            held = all(client.held == client.held_wanted for client in self.traffic.report().clients)
            return held and self._losses() == before

        until("traffic loses nothing", calm, within_s, self._losses)

    def _answered(self) -> int:
        return sum(phase.total.answered for phase in self.traffic.report().phases)

    def _losses(self) -> int:
        return sum(client.lost for client in self.traffic.report().clients)

    def close(self) -> None:
        """Let go of everything; the lab and what runs there stay, but for the client outside of it."""
        if self._collector is not None:
            self._collector.close()
        self._outside.close()
        self.fabric.close()

    def _client_pods(self) -> list[Object]:
        return self.kube.list("Pod", deploy.NAMESPACE, "traffic-client=true")

    def _clients(self, old: set[str]) -> list[Address] | None:
        """The control ports of all clients, once there are as many as there should be."""
        found = deploy.clients(pod for pod in self._client_pods() if pod["metadata"]["uid"] not in old)
        return found if len(found) == len(deploy.CLIENTS) * len(self.lab.plan.nodes) else None

    def _pods(self) -> list[str]:
        pods = self.kube.list("Pod", deploy.NAMESPACE)
        return [
            f"{p['metadata']['name']} on {p['spec'].get('nodeName')}: {p['status'].get('phase')}"
            for p in pods
        ]


def _served(node: Node, address: str) -> bool:
    """Whether a node reaches a Service, asked from a port that no client will ever use.

    A connection that nobody translates is remembered by the node for two minutes, and spoils whoever gets
    its port meanwhile: so the clients begin only when there is somebody who translates.
    """
    script = (
        "import random, socket, sys\n"
        "socket.create_connection((sys.argv[1], 80), 2, (sys.argv[2], random.randrange(20000, 30000)))"
    )
    anywhere = "::" if ":" in address else "0.0.0.0"
    return node.exec(["/usr/bin/python3", "-I", "-c", script, address, anywhere], check=False).returncode == 0


def _started(collector: Collector) -> bool:
    collector.start()
    return True
