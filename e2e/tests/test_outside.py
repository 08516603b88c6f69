"""The ways from outside of the cluster to its Services, as the client outside is told them."""

import pytest

from e2e.lab.addressing import addressing
from e2e.traffic import deploy
from e2e.traffic.outside import ways

pytestmark = pytest.mark.unit


def test_a_service_is_reached_by_four_ways_and_at_every_node() -> None:
    plan = addressing("x", 2)
    (service, *_) = deploy.outside("image")
    service["spec"] |= {"clusterIPs": ["10.96.0.9"], "externalIPs": ["198.51.100.11", "2001:db8:198:1::1"]}
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.11"}]}}
    for port, number in zip(service["spec"]["ports"], (30001, 30002), strict=True):
        port |= {"protocol": port.get("protocol", "TCP"), "nodePort": number}
    other = {"metadata": {"name": "web"}, "spec": {"clusterIPs": ["10.96.0.8"]}}
    found = {way["name"]: way for way in ways([other, service], plan.nodes)}
    one, two = plan.nodes
    assert found["NodePort (Cluster)"]["tcp"] == [
        f"{one.ipv4}:30001",
        f"[{one.ipv6}]:30001",
        f"{two.ipv4}:30001",
        f"[{two.ipv6}]:30001",
    ]
    assert found["NodePort (Cluster)"]["udp"][0] == f"{one.ipv4}:30002"
    assert found["load balancer (Cluster)"]["tcp"] == ["203.0.113.11:80"]
    assert found["external IP (Cluster)"]["udp"] == ["198.51.100.11:81", "[2001:db8:198:1::1]:81"]
    assert found["ClusterIP (Cluster)"]["tcp"] == ["10.96.0.9:80"]
