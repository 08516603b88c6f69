"""Which endpoints are chosen: traffic policies, endpoints that end, and those that are near."""

from collections.abc import Callable

import pytest

from e2e import ports
from e2e.behaviours import people
from e2e.behaviours.people import NAMESPACE, SERVER
from e2e.behaviours.service import Endpoint, Service, Where, at, ready, terminating
from e2e.behaviours.sides import DROPPED, REFUSED, Side
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage
from e2e.trial import until

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
LOCALS = (CLIENT, HOST)
ALL = {"server-here", "server-next", "server-last"}
HEALTH_S = 30.0


def one_on_each(stage: Stage, what: str = SERVER, **spec: object) -> dict[str, Service]:
    """A Service for each node, which has its only endpoint there."""
    made = {}
    for side in stage.sides:
        made[side.name] = stage.service(f"of-{side.name}", **spec)  # type: ignore[arg-type]
        made[side.name].endpoints(ready(f"{what}-{side.name}"))
    return made


def of(services: dict[str, Service], node: str, where: Callable[[Service], Where]) -> Where:
    """The address of the Service of the node that is `here`, `next` or `last`, as it is reached here."""
    return lambda side, family: where(services[side.at(node)])(side, family)


@pytest.mark.parametrize(("do", "port"), [("tcp", 80), ("udp", 81)])
def test_under_the_local_policy_inside_a_node_uses_its_own_endpoints_or_none(
    stage: Stage, do: str, port: int
) -> None:
    services = one_on_each(stage, internalTrafficPolicy="Local")
    stage.expect(LOCALS, of(services, "here", lambda s: s.cluster(port)), {"server-here"}, do=do)
    stage.expect(LOCALS, of(services, "next", lambda s: s.cluster(port)), {DROPPED}, do=do)
    for service in services.values():
        service.endpoints([])
    stage.expect(LOCALS, of(services, "next", lambda s: s.cluster(port)), {REFUSED}, do=do)


def test_under_the_local_policy_inside_pods_in_the_nodes_network_are_reached(stage: Stage) -> None:
    port = {"name": "http", "port": 80, "targetPort": 18001, "protocol": "TCP"}
    services = one_on_each(stage, HOST, internalTrafficPolicy="Local", ports=[port])
    stage.expect(LOCALS, of(services, "here", Service.cluster), {"host-here"})
    stage.expect(LOCALS, of(services, "next", Service.cluster), {DROPPED})


def test_under_the_local_policy_outside_the_source_is_kept_and_a_node_without_an_endpoint_drops(
    stage: Stage,
) -> None:
    services = one_on_each(stage, type="NodePort", externalTrafficPolicy="Local")
    for do, port in (("tcp", "http"), ("udp", "udp")):
        here = of(services, "here", lambda s, port=port: s.node(port))  # type: ignore[misc]
        elsewhere = of(services, "next", lambda s, port=port: s.node(port))  # type: ignore[misc]
        stage.expect(OUTSIDE, here, {"server-here sees outside"}, do=do, source=True)
        stage.expect(OUTSIDE, elsewhere, {DROPPED}, do=do)
        stage.expect(LOCALS, elsewhere, {"server-next"}, do=do)  # the short cut
        stage.expect(LOCALS, here, {"server-here"}, do=do)
    for service in services.values():
        service.endpoints([])
    stage.expect((CLIENT, HOST, OUTSIDE), of(services, "here", Service.node), {REFUSED})


def test_under_the_local_policy_outside_balanced_and_external_addresses_do_alike(stage: Stage) -> None:
    services = one_on_each(stage, type="LoadBalancer", externalTrafficPolicy="Local")
    external, balanced = {}, {}
    for number, (node, service) in enumerate(services.items(), 1):
        external[node] = (f"198.51.100.3{number}", f"2001:db8:198:3::{number}")
        balanced[node] = (f"203.0.113.3{number}", f"2001:db8:203:3::{number}")
        service.patch({"spec": {"externalIPs": external[node]}})
        service.balance([{"ip": ip} for ip in balanced[node]])
    for addresses in (external, balanced):

        def of_node(where: str, addresses: dict[str, tuple[str, str]] = addresses) -> Where:
            return lambda side, family: at(*addresses[side.at(where)], 80)(side, family)

        stage.expect(OUTSIDE, of_node("here"), {"server-here sees outside"}, source=True)
        stage.expect(OUTSIDE, of_node("next"), {DROPPED})
        stage.expect(LOCALS, of_node("next"), {"server-next"})


def health(stage: Stage, service: Service, status: int) -> None:
    """Return when the health check port of a Service says so on all sides, in both families."""
    port = service.health_port()

    def seen() -> dict[str, int | None]:
        found = {}
        for side in stage.sides:
            for family in (4, 6):
                answer = stage.trial.fabric.call(ports.ask, side.address(family), port)
                found[f"{side} IPv{family}"] = answer.status if answer else None
        return found

    until(f"{port} says {status}", lambda: set(seen().values()) == {status}, HEALTH_S, seen)


def test_endpoints_that_end_serve_when_there_is_no_other_and_do_not_count_as_healthy(stage: Stage) -> None:
    service = stage.service("ending", type="LoadBalancer", externalTrafficPolicy="Local")
    servers = [f"server-{side.name}" for side in stage.sides]
    service.endpoints(ready(*servers))
    health(stage, service, 200)
    stage.expect(OUTSIDE, service.node(), {"server-here"})
    service.endpoints(terminating(*servers))
    health(stage, service, 503)
    stage.expect(OUTSIDE, service.node(), {"server-here sees outside"}, source=True)
    stage.expect(LOCALS, service.cluster(), ALL)
    stage.expect(LOCALS, service.node(), ALL)
    service.endpoints(terminating(*servers, serving=False))
    stage.expect((CLIENT, HOST, OUTSIDE), service.node(), {REFUSED})
    stage.expect(LOCALS, service.cluster(), {REFUSED})


def test_the_fallback_to_ending_endpoints_is_decided_for_each_policy_by_itself(stage: Stage) -> None:
    """Seen from n1, whose own endpoint ends while another is ready on n2; n3 has none."""
    service = stage.service(
        "fallback", type="NodePort", externalTrafficPolicy="Local", internalTrafficPolicy="Cluster"
    )
    service.endpoints([*ready("server-n2"), *terminating("server-n1")])

    def cluster(side: Side) -> set[str]:
        return {side.relative("server-n2")}

    def local(side: Side) -> set[str]:
        return {DROPPED} if side.name == "n3" else {"server-here"}

    stage.expect(LOCALS, service.cluster(), cluster)
    stage.expect(OUTSIDE, service.node(), local)
    service.patch({"spec": {"internalTrafficPolicy": "Local"}})
    stage.expect(LOCALS, service.cluster(), local)
    stage.expect(LOCALS, service.node(), cluster)  # the short cut goes by the Cluster set
    service.endpoints([*ready("server-n1", "server-n3"), *terminating("server-n2")])
    stage.expect(LOCALS, service.cluster(), {"server-here"})
    stage.expect(OUTSIDE, service.node(), {"server-here"})


def test_a_pod_that_is_told_to_end_serves_until_it_does(stage: Stage) -> None:
    pods = [
        people.person(SERVER, s.name, name=f"ending-{s.name}", labels={"kind": "ending"}, grace_s=600)
        for s in stage.sides
    ]
    stage.start(*pods)
    service = stage.service(
        "pods-ending", {"kind": "ending"}, type="LoadBalancer", externalTrafficPolicy="Local"
    )
    stage.expect(OUTSIDE, service.node(), {"ending-here"})
    for pod in pods:
        stage.end(pod["metadata"]["name"])
    health(stage, service, 503)
    stage.expect(OUTSIDE, service.node(), {"ending-here sees outside"}, source=True)
    stage.expect(LOCALS, service.cluster(), {"ending-here", "ending-next", "ending-last"})
    for pod in pods:
        stage.end(pod["metadata"]["name"], grace_s=0)
    stage.expect((CLIENT, HOST, OUTSIDE), service.node(), {REFUSED})


def test_pods_that_are_not_ready_serve_where_they_are_published(stage: Stage) -> None:
    stage.start(
        people.person(SERVER, "n1", name="unready", labels={"kind": "unready"}, gate="e2e/gate"), ready=False
    )
    published = stage.service("published", {"kind": "unready"}, publishNotReadyAddresses=True)
    ordinary = stage.service("ordinary", {"kind": "unready"})
    stage.expect(LOCALS, published.cluster(), {"unready"})
    stage.expect(LOCALS, ordinary.cluster(), {REFUSED})
    stage.open_gate("unready", "e2e/gate")
    stage.expect(LOCALS, ordinary.cluster(), {"unready"})
    stage.end("unready", grace_s=0)


def test_hints_choose_by_node_then_by_zone(stage: Stage) -> None:
    service = stage.service("hints")
    nodes = {side.name: f"server-{side.name}" for side in stage.sides}
    service.endpoints([Endpoint(pod, nodes=[node]) for node, pod in nodes.items()])
    stage.expect(LOCALS, service.cluster(), {"server-here"})
    following = {side.name: side.at("next") for side in stage.sides}
    service.endpoints([Endpoint(pod, zones=[f"zone-{following[node]}"]) for node, pod in nodes.items()])
    stage.expect(LOCALS, service.cluster(), {"server-last"})  # whose hint names the zone after its own
    service.endpoints([*(Endpoint(f"server-{n}", nodes=[n]) for n in ("n1", "n2")), *ready("server-n3")])
    stage.expect(LOCALS, service.cluster(), ALL)  # not all have one


@pytest.mark.parametrize("wish", ["PreferSameNode", "PreferSameZone"])
def test_traffic_stays_near_and_goes_elsewhere_when_there_is_nobody(stage: Stage, wish: str) -> None:
    label = wish.lower()
    servers = {side.name: f"server-{side.name}" for side in stage.sides}
    for pod in servers.values():
        stage.kube.patch("Pod", pod, {"metadata": {"labels": {"near": label}}}, NAMESPACE)
    service = stage.service(label, {"near": label}, trafficDistribution=wish, type="NodePort")
    stage.expect((*LOCALS, OUTSIDE), service.node(), {"server-here"})
    stage.expect(LOCALS, service.cluster(), {"server-here"})
    for gone in ("n1", "n2"):
        stage.kube.patch("Pod", servers[gone], {"metadata": {"labels": {"near": None}}}, NAMESPACE)
    stage.expect((*LOCALS, OUTSIDE), service.node(), lambda side: {side.relative("server-n3")})
