"""What makes a Service one that is served, and where its endpoints come from."""

import pytest

from e2e.behaviours import people
from e2e.behaviours.people import NAMESPACE, PORTS, SERVER
from e2e.behaviours.service import HTTP, UDP, ready
from e2e.behaviours.sides import IPTABLES, NOBODY, REFUSED, Side
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
ALL = {"server-here", "server-next", "server-last"}
LOCALS = (CLIENT, HOST)


def of_a_bad_port(side: Side) -> set[str]:
    """A live ClusterIP refuses what is sent to a port that it does not have; in iptables mode it goes nowhere."""
    return NOBODY if side.proxy == IPTABLES else {REFUSED}


def test_a_service_is_reached_at_its_cluster_ip_by_everybody(stage: Stage) -> None:
    service = stage.service("basic", SERVERS)
    for do in ("tcp", "udp"):
        stage.expect((CLIENT, HOST, OUTSIDE), service.cluster(80 if do == "tcp" else 81), ALL, do=do)
    stage.expect(LOCALS, service.cluster(81), ALL, do="udp", connected=False)


def test_ports_and_protocols_are_kept_apart(stage: Stage) -> None:
    second = {"name": "second", "port": 8080, "targetPort": PORTS[1], "protocol": "TCP"}
    datagrams = {"name": "datagrams", "port": 80, "targetPort": PORTS[1], "protocol": "UDP"}
    service = stage.service("ports", SERVERS, ports=[HTTP, second, datagrams])
    for number, do, port in ((80, "tcp", 8001), (8080, "tcp", 8002), (80, "udp", 8002)):
        answers = {f"{who}:{port}" for who in ALL}
        stage.expect(LOCALS, service.cluster(number), answers, do=do, port=True)


def test_sctp_is_served_too(stage: Stage) -> None:
    """No kernel of the lab speaks SCTP: client and server write the packets themselves, past every socket hook."""
    ports = [{"name": "sctp", "port": 80, "targetPort": PORTS[0], "protocol": "SCTP"}]
    service = stage.service("sctp", SERVERS, ports=ports, type="NodePort")
    stage.expect(LOCALS, service.cluster(), ALL, do="sctp")
    stage.expect((CLIENT, OUTSIDE), service.node("sctp"), ALL, do="sctp")
    empty = stage.service("sctp-empty", {"kind": "nobody"}, ports=ports)
    stage.expect(CLIENT, empty.cluster(), {REFUSED}, do="sctp")


def test_ports_are_added_and_taken_away(stage: Stage) -> None:
    service = stage.service("changing", SERVERS, ports=[HTTP])
    stage.expect(LOCALS, service.cluster(80), ALL)
    added = {"name": "added", "port": 8080, "targetPort": PORTS[1], "protocol": "TCP"}
    service.patch({"spec": {"ports": [HTTP, added]}})
    stage.expect(LOCALS, service.cluster(8080), {f"{who}:8002" for who in ALL}, port=True)
    stage.expect(LOCALS, service.cluster(80), ALL)
    service.patch({"spec": {"ports": [added]}})
    stage.expect(LOCALS, service.cluster(80), of_a_bad_port, every=False)
    stage.expect(LOCALS, service.cluster(8080), ALL)
    service.patch({"spec": {"ports": [{**added, "targetPort": PORTS[0]}]}})
    stage.expect(LOCALS, service.cluster(8080), {f"{who}:8001" for who in ALL}, port=True)


def test_services_come_up_and_go_down_beside_each_other(stage: Stage) -> None:
    first, second = stage.service("first", SERVERS), stage.service("second", SERVERS)
    for service in (first, second):
        stage.expect(LOCALS, service.cluster(), ALL)
    old = first.cluster()
    first.delete()
    third = stage.service("third", SERVERS)
    stage.expect(LOCALS, third.cluster(), ALL)
    stage.expect(LOCALS, old, NOBODY, every=False)
    stage.expect(LOCALS, second.cluster(), ALL)


def test_without_an_endpoint_a_service_refuses(stage: Stage) -> None:
    service = stage.service("empty", {"kind": "nobody"}, type="NodePort")
    for do, port in (("tcp", 80), ("udp", 81)):
        stage.expect(LOCALS, service.cluster(port), {REFUSED}, do=do)
    stage.expect((OUTSIDE, CLIENT), service.node(), {REFUSED})
    stage.expect(OUTSIDE, service.node("udp"), {REFUSED}, do="udp")
    stage.expect(LOCALS, service.cluster(81), {REFUSED}, do="udp", connected=False)


def test_a_service_whose_last_pod_is_evicted_refuses(stage: Stage) -> None:
    pod = people.person(SERVER, "n1", name="evicted", labels={"kind": "evicted"})
    stage.start(pod)
    service = stage.service("evicted", {"kind": "evicted"})
    stage.expect(LOCALS, service.cluster(), {"evicted"})
    stage.kube.evict("evicted", NAMESPACE)
    stage.expect(LOCALS, service.cluster(), {REFUSED})


def test_a_port_that_a_cluster_ip_does_not_have_is_refused(stage: Stage) -> None:
    service = stage.service("bad-port", SERVERS)
    stage.expect(LOCALS, service.cluster(), ALL)
    stage.expect(LOCALS, service.cluster(4711), of_a_bad_port, every=False)
    stage.expect(LOCALS, service.cluster(4711), of_a_bad_port, every=False, do="udp")


def test_several_services_have_the_same_pods(stage: Stage) -> None:
    services = [stage.service(f"same-{number}", SERVERS) for number in range(3)]
    for service in services:
        stage.expect(LOCALS, service.cluster(), ALL)


def test_a_service_has_several_slices_and_their_ports_are_joined_by_name(stage: Stage) -> None:
    service = stage.service("slices", ports=[HTTP])
    service.endpoints(ready("server-n1"))
    service.endpoints(ready("server-n2"), {"http": PORTS[1]}, suffix="-b")
    service.endpoints(ready("host-n3"), {"http": 18001}, suffix="-c")

    wanted = {"server-n1": 8001, "server-n2": 8002, "host-n3": 18001}
    stage.expect(
        LOCALS,
        service.cluster(),
        lambda side: {f"{side.relative(who)}:{number}" for who, number in wanted.items()},
        port=True,
    )


def test_labels_that_make_a_service_another_proxys_are_put_on_and_taken_off(stage: Stage) -> None:
    service = stage.service("labelled", SERVERS)
    stage.expect(LOCALS, service.cluster(), ALL)
    name = "service.kubernetes.io/service-proxy-name"
    service.patch({"metadata": {"labels": {name: "another"}}})
    stage.expect(LOCALS, service.cluster(), NOBODY, every=False)
    service.patch({"metadata": {"labels": {name: None}}})
    stage.expect(LOCALS, service.cluster(), ALL)


def test_a_service_changes_its_type(stage: Stage) -> None:
    service = stage.service("types", SERVERS)
    stage.expect(LOCALS, service.cluster(), ALL)
    service.patch({"spec": {"type": "NodePort"}})
    number = service.node_port()
    stage.expect((CLIENT, OUTSIDE), service.node(), ALL)
    stage.expect(LOCALS, service.cluster(), ALL)
    at_node = service.node()
    service.patch({"spec": {"type": "ClusterIP", "ports": [HTTP, UDP]}})
    stage.expect((CLIENT, OUTSIDE), at_node, {REFUSED})
    stage.expect(LOCALS, service.cluster(), ALL)
    at_cluster = service.cluster()
    service.patch(
        {
            "spec": {
                "type": "ExternalName",
                "externalName": "example.com",
                "clusterIP": None,
                "clusterIPs": None,
                "ipFamilies": None,
                "ipFamilyPolicy": None,
            }
        }
    )
    stage.expect(LOCALS, at_cluster, NOBODY, every=False)
    service.patch(
        {
            "spec": {
                "type": "NodePort",
                "externalName": None,
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [{**HTTP, "nodePort": number}],
            }
        }
    )
    stage.expect((CLIENT, OUTSIDE), service.node(), ALL)
    stage.expect(LOCALS, service.cluster(), ALL)
