"""Whom the servers see: when a client's own address is kept, and when it is the node's."""

import pytest

from e2e.behaviours.people import SERVER
from e2e.behaviours.service import at, ready
from e2e.behaviours.sides import OURS, Side
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
EXTERNAL = ("198.51.100.2", "2001:db8:198::2")
WHERE = ("here", "next", "last")


def by_all(source: str) -> set[str]:
    """Every server sees the same."""
    return {f"server-{where} sees {source}" for where in WHERE}


@pytest.mark.parametrize(("do", "port"), [("tcp", 80), ("udp", 81)])
def test_a_pod_keeps_its_address_to_a_cluster_ip(stage: Stage, do: str, port: int) -> None:
    service = stage.service("kept", SERVERS)
    stage.expect(CLIENT, service.cluster(port), by_all("client-here"), do=do, source=True)
    stage.expect(HOST, service.cluster(port), by_all("node-here"), do=do, source=True)


def test_a_client_outside_of_the_cluster_is_masqueraded_to_a_cluster_ip_and_under_the_cluster_policy(
    stage: Stage,
) -> None:
    service = stage.service("masqueraded", SERVERS, type="NodePort", externalIPs=EXTERNAL)
    for where in (service.cluster(), service.node(), at(*EXTERNAL, 80)):
        stage.expect(OUTSIDE, where, by_all("node-here"), source=True)
    for where in (service.cluster(81), service.node("udp"), at(*EXTERNAL, 81)):
        stage.expect(OUTSIDE, where, by_all("node-here"), do="udp", source=True)


def test_a_pod_that_uses_a_node_port_is_masqueraded_by_kube_proxy_only(stage: Stage) -> None:
    """At a socket nothing is masqueraded, and nothing needs it: answers come back the same way anyhow."""
    service = stage.service("external", SERVERS, type="NodePort", externalIPs=EXTERNAL)

    def answers(side: Side) -> set[str]:
        return by_all("client-here" if side.proxy == OURS else "node-here")

    for where in (service.node(), at(*EXTERNAL, 80)):
        stage.expect(CLIENT, where, answers, source=True)


@pytest.mark.parametrize(("do", "port"), [("tcp", 80), ("udp", 81)])
def test_a_pod_reaches_itself_through_its_service(stage: Stage, do: str, port: int) -> None:
    """By a socket it talks to itself without leaving its namespace; a packet that leaves it has to be masqueraded."""
    services = {}
    for side in stage.sides:
        services[side.name] = stage.service(f"hairpin-{side.name}")
        services[side.name].endpoints(ready(f"server-{side.name}"))

    def answers(side: Side) -> set[str]:
        return {f"server-here sees {'server-here' if side.proxy == OURS else 'node-here'}"}

    stage.expect(
        SERVER,
        lambda side, family: services[side.name].cluster(port)(side, family),
        answers,
        do=do,
        source=True,
    )


def test_pods_in_the_nodes_network_are_endpoints_like_any_other(stage: Stage) -> None:
    service = stage.service(
        "host-network", {"kind": HOST}, ports=[{"name": "http", "port": 80, "targetPort": 18001}]
    )
    hosts = {f"host-{where} sees client-here" for where in WHERE}
    stage.expect(CLIENT, service.cluster(), hosts, source=True)
    stage.expect(HOST, service.cluster(), {f"host-{where} sees node-here" for where in WHERE}, source=True)
