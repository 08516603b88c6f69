"""Services and their EndpointSlices as tests write them, and the addresses at which they are reached."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from e2e.behaviours.people import NAMESPACE, PORTS
from e2e.behaviours.sides import FAMILIES, Side
from e2e.kube import Kube, Object, path
from e2e.trial import until

Address = tuple[str, int]
Where = Callable[[Side, int], Address]
"""The address to ask, for a side and a family."""

HTTP = {"name": "http", "port": 80, "targetPort": PORTS[0], "protocol": "TCP"}
UDP = {"name": "udp", "port": 81, "targetPort": PORTS[0], "protocol": "UDP"}
_MANAGER = "e2e-load-balancer"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a handwritten slice, by its pod's name."""

    pod: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    nodes: Sequence[str] = ()
    zones: Sequence[str] = ()

    def written(self, pods: Mapping[str, Object], family: int) -> Object:
        """As an EndpointSlice has it."""
        pod = pods[self.pod]
        addresses = [ip["ip"] for ip in pod["status"]["podIPs"] if (":" in ip["ip"]) == (family == 6)]
        conditions = {"ready": self.ready, "serving": self.serving, "terminating": self.terminating}
        hints: Object = {"forNodes": [{"name": n} for n in self.nodes]} if self.nodes else {}
        hints |= {"forZones": [{"name": z} for z in self.zones]} if self.zones else {}
        made: Object = {"addresses": addresses, "conditions": conditions, "nodeName": pod["spec"]["nodeName"]}
        return made | ({"hints": hints} if hints else {})


def ready(*pods: str) -> list[Endpoint]:
    """Ordinary endpoints."""
    return [Endpoint(pod) for pod in pods]


def terminating(*pods: str, serving: bool = True) -> list[Endpoint]:
    """Endpoints of pods that were told to end."""
    return [Endpoint(pod, ready=False, serving=serving, terminating=True) for pod in pods]


@dataclass(slots=True)
class Service:
    """A Service that a test has made."""

    kube: Kube
    name: str
    pods: Mapping[str, Object]
    item: Object = field(default_factory=dict)

    def apply(self, spec: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """Write it as a person would, and read what the API server makes of it."""
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": self.name, "namespace": NAMESPACE, "labels": labels},
                "spec": {"ipFamilyPolicy": "RequireDualStack", **spec},
            }
        )
        self.read()

    def patch(self, patch: Mapping[str, Any]) -> None:
        """Change it by a merge patch."""
        self.item = self.kube.patch("Service", self.name, patch, NAMESPACE)

    def read(self) -> None:
        """Look again."""
        self.item = self.kube.get("Service", self.name, NAMESPACE)

    def delete(self) -> None:
        """It, and its handwritten slices."""
        self.kube.delete("Service", self.name, NAMESPACE)

    def endpoints(
        self, endpoints: Iterable[Endpoint], ports: Mapping[str, int] | None = None, suffix: str = ""
    ) -> None:
        """Write its slices by hand, one for each family. `ports`: name → number; by themselves, each target port.

        `suffix`: another pair of slices beside.
        """
        wanted = list(endpoints)
        spec = self.item["spec"]["ports"]
        for family in FAMILIES:
            numbers = ports or {p.get("name", ""): int(p["targetPort"]) for p in spec}
            written = [
                {"name": p.get("name", ""), "port": numbers[p.get("name", "")], "protocol": p["protocol"]}
                for p in spec
                if p.get("name", "") in numbers
            ]
            self.kube.apply(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"{self.name}-{family}{suffix}",
                        "namespace": NAMESPACE,
                        "labels": {
                            "kubernetes.io/service-name": self.name,
                            "endpointslice.kubernetes.io/managed-by": "e2e",
                        },
                        "ownerReferences": [self._owner()],
                    },
                    "addressType": f"IPv{family}",
                    "ports": written,
                    "endpoints": [endpoint.written(self.pods, family) for endpoint in wanted],
                }
            )

    def _owner(self) -> Object:
        owner = {key: self.item["metadata"][key] for key in ("name", "uid")}
        return {"apiVersion": "v1", "kind": "Service", **owner}

    def balance(self, ingress: Sequence[Mapping[str, Any]]) -> None:
        """Give it load balancer's addresses, as a cloud would."""
        self.kube.apply_status(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": self.name, "namespace": NAMESPACE},
                "status": {"loadBalancer": {"ingress": list(ingress)}},
            },
            _MANAGER,
        )

    # -- where it is reached --

    def cluster_ip(self, family: int) -> str:
        """Its ClusterIP."""
        addresses: list[str] = self.item["spec"]["clusterIPs"]
        return next(ip for ip in addresses if (":" in ip) == (family == 6))

    def cluster(self, port: int = 80) -> Where:
        """At its ClusterIP."""
        addresses = {family: self.cluster_ip(family) for family in FAMILIES}
        return lambda _side, family: (addresses[family], port)

    def node_port(self, name: str = "http") -> int:
        """The number that it has been given."""
        return next(int(p["nodePort"]) for p in self.item["spec"]["ports"] if p["name"] == name)

    def node(self, name: str = "http") -> Where:
        """At its NodePort at the side's node."""
        number = self.node_port(name)
        return lambda side, family: (side.address(family), number)

    def health_port(self) -> int:
        """Its healthCheckNodePort."""
        return int(self.item["spec"]["healthCheckNodePort"])

    def deleted(self) -> None:
        """Return when the API server has it no more."""
        until(f"{self.name} is gone", lambda: self.kube.find("Service", self.name, NAMESPACE) is None, 30)


def at(address4: str, address6: str, port: int) -> Where:
    """At an address that is the same on each side."""
    return lambda _side, family: (address4 if family == 4 else address6, port)


__all__ = ["HTTP", "UDP", "Address", "Endpoint", "Service", "Where", "at", "path", "ready", "terminating"]
