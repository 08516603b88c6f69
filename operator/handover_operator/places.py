"""Where objects are in the API: the paths that reads, watches and writes share."""

from dataclasses import dataclass
from urllib.parse import quote

from handover_api.base import API_VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and how its paths are made."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = False

    def collection(self, namespace: str = "") -> str:
        """The path of all objects, or of those in a namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        inside = f"/namespaces/{quote(namespace)}" if namespace and self.namespaced else ""
        return f"{root}{inside}/{self.plural}"

    def at(self, name: str, namespace: str = "") -> "Place":
        """One object's place."""
        return Place(self, name, namespace)


@dataclass(frozen=True, slots=True)
class Place:
    """One object."""

    kind: Kind
    name: str
    namespace: str = ""

    @property
    def path(self) -> str:
        """Its path in the API."""
        return f"{self.kind.collection(self.namespace)}/{quote(self.name)}"

    def __str__(self) -> str:
        return f"{self.kind.name} {f'{self.namespace}/' if self.namespace else ''}{self.name}"


PROXY_MIGRATION = Kind(API_VERSION, "ProxyMigration", "proxymigrations")
NODE_MIGRATION = Kind(API_VERSION, "NodeMigration", "nodemigrations")
NODE = Kind("v1", "Node", "nodes")
POD = Kind("v1", "Pod", "pods", namespaced=True)
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets", namespaced=True)
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", namespaced=True)
EVENT = Kind("v1", "Event", "events", namespaced=True)
