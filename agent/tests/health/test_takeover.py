"""kube-proxy's ports are taken over together and given back together."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from handover_agent.health.local import LocalPolicies
from handover_agent.health.metrics import MetricsPort
from handover_agent.health.proxy import ProxyHealth, ProxyPort
from handover_agent.health.services import EVERYWHERE, ServicePorts
from handover_agent.health.takeover import Takeover
from handover_agent.ladder.ports import Blocked
from handover_agent.model import Model
from prometheus_client import CollectorRegistry, Gauge
from tests.fakes.objects import endpoint_json, service, slice_
from tests.health.ports import ask, free_port, refused

pytestmark = pytest.mark.unit

WELL = ProxyHealth(datetime(2026, 5, 1, 12, tzinfo=UTC), None, node_eligible=True)


@dataclass
class Node:
    """The ports of a node, and the model that they follow."""

    health: int
    metrics: int
    check: int
    model: Model
    takeover: Takeover

    async def open(self) -> list[bool]:
        return [not await refused(port) for port in (self.health, self.metrics, self.check)]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    health, metrics, check = free_port(), free_port(), free_port()
    model, registry = Model(), CollectorRegistry()
    Gauge("kubeproxy_something", "A metric", registry=registry).set(3)
    takeover = Takeover(
        ProxyPort(health, lambda: WELL),
        ServicePorts(lambda: True, lambda *_: None),
        MetricsPort("as-found", metrics, registry, tmp_path / "metrics"),
        LocalPolicies(model, "n1"),
        lambda: EVERYWHERE,
    )
    yield Node(health, metrics, check, model, takeover)
    await takeover.release()


def listed(node: Node) -> None:
    balancer = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=node.check)
    node.model.services_sink.replace([balancer])
    node.model.slices_sink.replace([slice_(endpoints=[endpoint_json("10.1.1.1", "n1")])])


async def test_nothing_is_listened_at_while_kube_proxy_has_the_health_port(node: Node) -> None:
    listed(node)
    await node.takeover.follow()
    assert await node.open() == [False, False, False]
    other = ProxyPort(node.health, lambda: WELL)
    await other.bind()
    with pytest.raises(Blocked):
        await node.takeover.bind()
    await node.takeover.follow()
    assert await node.open() == [True, False, False]
    await other.release()


async def test_the_others_follow_the_health_port_up_and_down(node: Node) -> None:
    listed(node)
    await node.takeover.bind()
    assert node.takeover.changed.is_set()
    await node.takeover.follow()
    assert await node.open() == [True, True, True]
    assert (await ask(node.check))[0] == 200
    await node.takeover.release()
    assert await node.open() == [False, False, False]
    await node.takeover.follow()
    assert await node.open() == [False, False, False]


async def test_no_service_is_denied_before_everything_was_listed(node: Node) -> None:
    await node.takeover.bind()
    balancer = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=node.check)
    node.model.services_sink.replace([balancer])
    await node.takeover.follow()
    assert await node.open() == [True, True, False]
    node.model.slices_sink.replace([slice_(endpoints=[endpoint_json("10.1.1.1", "n1")])])
    await node.takeover.follow()
    assert (await ask(node.check))[0] == 200


async def test_the_metrics_address_answers_what_kube_proxys_does(node: Node) -> None:
    await node.takeover.bind()
    await node.takeover.follow()
    status, text, headers = await ask(node.metrics, "/metrics")
    assert status == 200
    assert "kubeproxy_something 3.0" in text
    assert headers["Content-Type"].startswith("text/plain")
    assert (await ask(node.metrics, "/healthz"))[:2] == (200, "ok")
    assert (await ask(node.metrics, "/proxyMode"))[1] == "ebpf"


async def test_a_metrics_address_that_is_taken_stops_nothing_else(node: Node, tmp_path: Path) -> None:
    other = MetricsPort("0.0.0.0", node.metrics, CollectorRegistry(), tmp_path / "other")
    await other.open()
    assert (await ask(node.metrics, "/healthz", "[::1]"))[0] == 200, "a wildcard is both families', as in Go"
    listed(node)
    await node.takeover.bind()
    await node.takeover.follow()
    assert (await ask(node.check))[0] == 200
    await other.close()
    await node.takeover.follow()
    assert "kubeproxy_something" in (await ask(node.metrics, "/metrics"))[1]


@pytest.mark.parametrize(
    ("host", "reached", "not_reached"),
    [("127.0.0.2", "127.0.0.2", "127.0.0.1"), ("::1", "[::1]", "127.0.0.1"), ("0.0.0.0", "[::1]", "")],
)
async def test_metrics_are_told_where_kube_proxy_told_them(
    node: Node, host: str, reached: str, not_reached: str, tmp_path: Path
) -> None:
    health = ProxyPort(node.health, lambda: WELL)
    metrics = MetricsPort(host, node.metrics, CollectorRegistry(), tmp_path / "kube-proxy's")
    await health.bind()
    await metrics.open()
    assert await node.takeover.foreign()
    await health.release()
    await metrics.close()
    assert not await node.takeover.foreign()
    await node.takeover.bind()
    await node.takeover.follow()
    assert "kubeproxy_something" in (await ask(node.metrics, "/metrics", reached))[1]
    assert not not_reached or await refused(node.metrics, not_reached)


async def test_none_as_metrics_address_means_nowhere(tmp_path: Path) -> None:
    port = MetricsPort("none", 1, CollectorRegistry(), tmp_path / "metrics")
    await port.open()
    assert not port.serving


async def test_an_address_that_cannot_be_remembered_is_logged_and_the_port_seen_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a node whose disk is full."""
    health, number = free_port(), free_port()
    (tmp_path / "file").touch()
    metrics = MetricsPort("as-found", number, CollectorRegistry(), tmp_path / "file" / "metrics")
    takeover = Takeover(
        ProxyPort(health, lambda: WELL),
        ServicePorts(lambda: True, lambda *_: None),
        metrics,
        LocalPolicies(Model(), "n1"),
        lambda: EVERYWHERE,
    )
    with socket.create_server(("127.0.0.1", health)), socket.create_server(("127.0.0.1", number)):
        assert await takeover.foreign()
        metrics._look_from = 0.0
        assert await takeover.foreign()
    assert [record.message for record in caplog.records] == [
        "kube-proxy's metrics address could not be remembered"
    ]
