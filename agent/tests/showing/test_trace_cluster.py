"""What the API server is asked for a trace, and what is said when it cannot be."""

from typing import Any

import pytest
from handover_agent.apiserver import Client
from handover_agent.credentials import Address, Credentials
from handover_agent.showing.trace.cluster import Asked, Seen, look_up
from handover_agent.table import ip_bytes
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.objects import endpoint_json, service_json, slice_json

pytestmark = pytest.mark.unit

SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"
NODE_PORT = [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}]


@pytest.fixture
async def api() -> FakeApiServer:
    """A cluster with two Services, one with endpoints of every condition; a pod; a node."""
    fake = FakeApiServer()
    await fake.put(SERVICES, service_json("shop/web", "10.96.7.7", NODE_PORT))
    await fake.put(SERVICES, service_json("default/other", "10.96.7.8", ingress=[{"ip": "203.0.113.9"}]))
    ends = [
        endpoint_json("10.244.1.5", "n1")
        | {"targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"}},
        endpoint_json("10.244.1.6", "n1", ready=False, serving=True, terminating=True),
        endpoint_json("10.244.1.7", "n2", ready=False, zones=["b"]),
    ]
    await fake.put(SLICES, slice_json("shop/web-abc", "web", ends))
    await fake.put("/api/v1/pods", pod())
    node = {
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {},
        "status": {},
    }
    await fake.put("/api/v1/nodes", node)
    return fake


def pod() -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "cart-1"},
        "spec": {"nodeName": "n1", "runtimeClassName": "kata"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.9"}, {"ip": "fd00::9"}]},
    }


async def ask(api: FakeApiServer, asked: Asked) -> Seen:
    async with api.serving() as address, Client(Credentials(address, scheme="http")) as client:
        return await look_up(client, asked)


async def test_a_named_service_comes_with_its_endpoints_whatever_their_condition(api: FakeApiServer) -> None:
    seen = await ask(api, Asked(services=(("default", "web"), ("shop", "web")), node="n1"))
    assert seen.service is not None
    assert seen.service.key == "shop/web"
    assert seen.node is not None
    assert seen.node.zone == "a"
    members = list(seen.members("http", "TCP"))
    assert [(m.pod, m.node, m.condition, m.slice) for m in members] == [
        ("shop/web-1", "n1", "ready", "web-abc"),
        ("", "n1", "terminating", "web-abc"),
        ("", "n2", "not ready", "web-abc"),
    ]
    assert members[2].zones == ("b",)
    assert list(seen.members("http", "UDP")) == []
    assert list(seen.ports()) == [("http", "TCP", 80, 30080)]


@pytest.mark.parametrize(
    ("address", "port", "found"),
    [
        ("10.96.7.7", 80, "shop/web"),
        ("203.0.113.9", 80, "default/other"),
        ("192.0.2.1", 30080, "shop/web"),
        ("192.0.2.1", 30081, None),
    ],
)
async def test_an_address_finds_the_service_that_has_it(
    api: FakeApiServer, address: str, port: int, found: str | None
) -> None:
    seen = await ask(api, Asked(address=ip_bytes(address), port=port))
    assert (seen.service.key if seen.service else None) == found


async def test_a_pod_says_where_it_is(api: FakeApiServer) -> None:
    seen = await ask(api, Asked(pod="shop/cart-1"))
    assert seen.pod is not None
    assert (seen.pod.node, seen.pod.runtime_class, seen.pod.host_network) == ("n1", "kata", False)
    assert seen.pod.addresses == (ip_bytes("10.244.1.9"), ip_bytes("fd00::9"))


async def test_the_clusters_dns_is_found_where_the_maps_do_not_have_it(api: FakeApiServer) -> None:
    await api.put(SERVICES, service_json("kube-system/kube-dns", "10.96.0.10"))
    assert (await ask(api, Asked(dns=True))).dns == (ip_bytes("10.96.0.10"),)


async def test_what_is_not_there_is_named(api: FakeApiServer) -> None:
    seen = await ask(api, Asked(pod="shop/gone", services=(("default", "web"),)))
    assert seen.missing == ("pod shop/gone", "Service default/web")
    assert seen.problem == ""


async def test_an_api_server_that_refuses_or_is_away_is_a_problem_and_no_error(api: FakeApiServer) -> None:
    api.failures = [(403, "not allowed")]
    assert "403 not allowed" in (await ask(api, Asked(pod="shop/cart-1"))).problem
    async with Client(Credentials(Address("127.0.0.1", 1), scheme="http")) as client:
        assert (await look_up(client, Asked(pod="shop/cart-1"))).problem
