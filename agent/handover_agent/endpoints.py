"""Which endpoints of a Service port new connections may go to: kube-proxy's rules (its `topology.go`).

The Cluster set and the Local set are decided apart from each other, also when it comes to endpoints that still
serve while they terminate.
"""

from collections.abc import Collection

from handover_agent.objects import Endpoint, Port, Slice, is_ipv4

Candidate = tuple[Endpoint, int]
"""An endpoint and the number of the port at which it serves."""


def usable(port: Port, slices: Collection[Slice], ipv4: bool) -> list[Candidate]:
    """The usable endpoints of a Service port, joined by port name and protocol, each one once."""
    found: dict[tuple[bytes, int], Endpoint] = {}
    for slice_ in slices:
        for slice_port in slice_.ports:
            if slice_port.name != port.name or slice_port.protocol is not port.protocol:
                continue
            for endpoint in slice_.endpoints:
                if is_ipv4(endpoint.address) is ipv4:
                    at = (endpoint.address, slice_port.port)
                    if at in found:
                        endpoint = _better(found[at], endpoint)  # noqa: PLW2901 - one of two sightings
                    found[at] = endpoint
    return [(endpoint, number) for (_, number), endpoint in found.items()]


def cluster_set(endpoints: list[Candidate], node: str, zone: str) -> list[Candidate]:
    """The endpoints for the Cluster policy: ready ones that hints allow, else serving terminating ones."""
    ready = [item for item in endpoints if item[0].ready]
    if not ready:
        return endpoints
    if all(endpoint.node_hints for endpoint, _ in ready):
        near = [item for item in ready if node in item[0].node_hints]
        if near:
            return near
    if all(endpoint.zone_hints for endpoint, _ in ready):
        near = [item for item in ready if zone in item[0].zone_hints]
        if near:
            return near
    return ready


def local_set(endpoints: list[Candidate], node: str) -> list[Candidate]:
    """This node's endpoints: ready ones, else serving terminating ones; apart from the Cluster set."""
    local = [item for item in endpoints if item[0].node == node]
    return [item for item in local if item[0].ready] or local


def _better(one: Endpoint, two: Endpoint) -> Endpoint:
    """Which of two sightings of one endpoint counts (it is moving between slices): ready before terminating.

    kube-proxy prefers the local one; both sightings are of one pod, so that this is decided by the node name
    that one of them may still lack.
    """
    return max(one, two, key=lambda e: (bool(e.node), e.ready, e.node, e.zone_hints, e.node_hints))
