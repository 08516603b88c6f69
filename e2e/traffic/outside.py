"""Traffic from outside of the cluster: NodePorts, load balancers' addresses and external ones, at every node, and
ClusterIPs by a route to one of them.

A load balancer would be a router that sends an address to some node. Here each node has addresses of its own, which
the client's network routes to it: so nobody has to guess through which node a lost packet went.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from e2e.kube import Kube, Object
from e2e.lab import Lab
from e2e.lab.addressing import SERVICES4, SERVICES6, NodeAddress
from e2e.lab.images import BASE
from e2e.traffic import deploy
from e2e.traffic.collector import Address
from e2e.traffic.deploy import NAMESPACE

WAYS = ("NodePort", "load balancer", "external IP", "ClusterIP")
_CONTROL_PORT = 18082
_MANAGER = "e2e-load-balancer"
# Of both families, for each policy: the last part is the node's number.
_BALANCED = {
    "Cluster": ("203.0.113.1{}", "2001:db8:203:1::{}"),
    "Local": ("203.0.113.2{}", "2001:db8:203:2::{}"),
}
_EXTERNAL = {
    "Cluster": ("198.51.100.1{}", "2001:db8:198:1::{}"),
    "Local": ("198.51.100.2{}", "2001:db8:198:2::{}"),
}


class Outside:
    """The client outside, with what it needs of the cluster and of the network."""

    def __init__(self, lab: Lab, kube: Kube) -> None:
        self._lab, self._kube = lab, kube
        self._process: subprocess.Popen[Any] | None = None

    def prepare(self) -> None:
        """Have the Services, their addresses and the routes to them. Idempotent."""
        nodes = self._lab.plan.nodes
        for service in deploy.outside(BASE):
            policy = service["spec"]["externalTrafficPolicy"]
            external = [p.format(n.index) for n in nodes for p in _EXTERNAL[policy]]
            self._kube.apply({**service, "spec": {**service["spec"], "externalIPs": external}})
            balanced = [{"ip": p.format(n.index)} for n in nodes for p in _BALANCED[policy]]
            identity = {key: service[key] for key in ("apiVersion", "kind")}
            metadata = {key: service["metadata"][key] for key in ("name", "namespace")}
            status = {"loadBalancer": {"ingress": balanced}}
            self._kube.apply_status({**identity, "metadata": metadata, "status": status}, _MANAGER)
        for node in nodes:
            for pattern in (p for by in (_BALANCED, _EXTERNAL) for pair in by.values() for p in pair):
                self._route(pattern.format(node.index), node)
        for services in (SERVICES4, SERVICES6):
            self._route(services, nodes[0])

    def _route(self, to: str, node: NodeAddress) -> None:
        family, via = ("-6", node.ipv6) if ":" in to else ("-4", node.ipv4)
        self._lab.client_exec(["ip", family, "route", "replace", to, "via", via])

    def ways(self) -> list[dict[str, Any]]:
        """Each way by its name, with its TCP and UDP addresses."""
        return ways(self._kube.list("Service", NAMESPACE), self._lab.plan.nodes)

    def served(self) -> bool:
        """Whether somebody serves at every TCP address."""
        script = (
            "import json, socket, sys\n"
            "for text in json.loads(sys.argv[1]):\n"
            "    host, _, port = text.rpartition(':')\n"
            "    socket.create_connection((host.strip('[]'), int(port)), 2).close()\n"
        )
        every = [text for way in self.ways() for text in way["tcp"]]
        done = self._lab.client_exec([sys.executable, "-I", "-c", script, json.dumps(every)], check=False)
        return done.returncode == 0

    def start(self) -> Address:
        """Start the client; where it can be asked."""
        command = [sys.executable, "-P", "-m", "e2e.traffic.client", "--name=outside", "--attended"]
        command += [f"--ways={json.dumps(self.ways())}", f"--control-port={_CONTROL_PORT}"]
        # There are many addresses: at the pods' rates it was the busiest client of all.
        command += ["--held=60", "--held-every-s=0.5", "--new-per-s=30", "--udp-per-s=1"]
        self._process = self._lab.client_popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        return Address("outside", self._lab.plan.client4, _CONTROL_PORT)

    def close(self) -> None:
        """End the client. It ends as well when this process does."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process = None


def is_outside(stream: str) -> bool:
    """Whether a stream of a report, by its name, is traffic from outside."""
    return any(f" to {way} (" in stream for way in WAYS)


def ways(services: Sequence[Object], nodes: Sequence[NodeAddress]) -> list[dict[str, Any]]:
    """The ways from outside to the traffic's Services, for the client's option `--ways`."""
    made = []
    for service in services:
        if service["metadata"].get("annotations", {}).get("handover.dev/e2e") != "outside":
            continue
        spec, policy = service["spec"], service["spec"]["externalTrafficPolicy"]
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        ports = {port["protocol"]: port for port in spec["ports"]}
        reached = (
            ([a for node in nodes for a in (node.ipv4, node.ipv6)], "nodePort"),
            ([item["ip"] for item in ingress], "port"),
            (spec.get("externalIPs", []), "port"),
            (spec["clusterIPs"], "port"),
        )
        for name, (addresses, which) in zip(WAYS, reached, strict=True):
            made.append(
                {
                    "name": f"{name} ({policy})",
                    **{p.lower(): list(_at(addresses, ports[p], which)) for p in ("TCP", "UDP")},
                }
            )
    return made


def _at(addresses: Sequence[str], port: Mapping[str, Any], which: str) -> Iterator[str]:
    for address in addresses:
        host = f"[{address}]" if ip_address(address).version == 6 else address
        yield f"{host}:{port[which]}"
