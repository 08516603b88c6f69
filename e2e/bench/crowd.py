"""The crowd of Services: by its number each has a name, an address, and endpoints that answer. Pure.

Addresses are chosen, not given by the API server: whoever asks needs to look nothing up, and what was created by an
earlier run is found again.
"""

from collections.abc import Iterable, Iterator, Sequence

from e2e.kube import Object

NAMESPACE = "crowd"
PORT, BACKEND_PORT = 80, 8080
ENDPOINTS = 4
MOST = 48_000
_PER_BLOCK, _FIRST_BLOCK = 250, 64
_OF_SERVICE = "kubernetes.io/service-name"


def cluster_ip(index: int) -> str:
    """The address of a Service of the crowd: 10.96.64.1 and on, within the lab's range."""
    if not 0 <= index < MOST:
        raise ValueError(f"the crowd has no Service {index}: there are addresses for {MOST}")
    return f"10.96.{_FIRST_BLOCK + index // _PER_BLOCK}.{index % _PER_BLOCK + 1}"


def name(index: int) -> str:
    """The name of a Service of the crowd, and of its EndpointSlice."""
    return f"crowd-{index:05}"


def of_service(named: str) -> dict[str, str]:
    """The label by which an EndpointSlice is a Service's."""
    return {_OF_SERVICE: named}


def service(
    named: str, namespace: str, address: str, ports: Sequence[Object], kind: str = "ClusterIP"
) -> Object:
    """A Service without a selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": named, "namespace": namespace},
        "spec": {"type": kind, "clusterIP": address, "ports": list(ports)},
    }


def slice_of(
    named: str, namespace: str, ports: Sequence[Object], addresses: Iterable[str], node: str
) -> Object:
    """The only EndpointSlice of a Service: all of its endpoints are ready and on one node."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": named, "namespace": namespace, "labels": of_service(named)},
        "addressType": "IPv4",
        "ports": list(ports),
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "nodeName": node} for address in addresses
        ],
    }


def member(index: int) -> Object:
    """A Service of the crowd."""
    port = {"port": PORT, "protocol": "TCP", "targetPort": BACKEND_PORT}
    return service(name(index), NAMESPACE, cluster_ip(index), [port])


def endpoints(index: int, servers: Sequence[str], node: str) -> Object:
    """Its EndpointSlice: servers that are there and answer."""
    port = {"name": "", "port": BACKEND_PORT, "protocol": "TCP"}
    return slice_of(name(index), NAMESPACE, [port], servers, node)


def sample(services: int, most: int = 500) -> list[int]:
    """Some of the crowd, spread evenly over it: the place in a chain of rules matters. The last one is in it."""
    count = min(services, most)
    return [(number + 1) * services // count - 1 for number in range(count)]


def flapping(services: int, servers: Sequence[str], node: str, most: int = 1000) -> Iterator[Object]:
    """For ever: the next Service of a sample loses its last endpoint, and in the next round has it again."""
    fewer = True
    while True:
        for index in sample(services, most):
            yield endpoints(index, servers[:-1] if fewer else servers, node)
        fewer = not fewer
