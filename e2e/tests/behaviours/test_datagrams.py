"""UDP: clients that use one port for ever, servers that come and go, and datagrams that do not fit into a packet."""

import time

import pytest

from e2e.behaviours import people
from e2e.behaviours.people import SERVER
from e2e.behaviours.service import UDP, Service, ready, terminating
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage
from e2e.trial import until

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
ALL = {"server-here", "server-next", "server-last"}
PORT = 14000
"""The clients' own."""
SILENCE_S = 3.0
"""Longer than our packet path keeps a flow for its answers alone."""


def ways(stage: Stage, label: str) -> list[tuple[str, Service, str]]:
    """Who asks which Service at which of its addresses."""
    ports = [{**UDP, "port": 81}]
    anywhere = stage.service("anywhere", {"kind": label}, type="NodePort", ports=ports)
    local = stage.service("local", {"kind": label}, ports=ports, internalTrafficPolicy="Local")
    return [
        (CLIENT, anywhere, "cluster"),
        (HOST, anywhere, "cluster"),
        (CLIENT, anywhere, "node"),
        (OUTSIDE, anywhere, "node"),
        (CLIENT, local, "cluster"),
        (HOST, local, "cluster"),
    ]


def expect(stage: Stage, asked: list[tuple[str, Service, str]], name: str, **fields: object) -> None:
    """Everybody is answered by servers of this name, from one port for each way."""
    for number, (who, service, address) in enumerate(asked):
        where = service.cluster(81) if address == "cluster" else service.node("udp")
        answers = {f"{name}-{place}" for place in ("here", "next", "last")}
        if service.item["spec"]["internalTrafficPolicy"] == "Local":
            answers = {f"{name}-here"}
        stage.expect(
            who,
            where,
            answers,
            do="udp",
            every=False,
            source_port=PORT + number,
            **fields,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_a_client_with_one_port_finds_the_server_that_replaces_another(stage: Stage, connected: bool) -> None:
    label = f"cycling-{connected}".lower()

    def on_each_node(name: str) -> list[str]:
        pods = [
            people.person(SERVER, s.name, name=f"{name}-{s.name}", labels={"kind": label})
            for s in stage.sides
        ]
        stage.start(*pods)
        return [pod["metadata"]["name"] for pod in pods]

    asked = ways(stage, label)
    old = on_each_node(f"old{connected}".lower())
    expect(stage, asked, f"old{connected}".lower(), connected=connected)
    new = on_each_node(f"new{connected}".lower())
    for pod in old:
        stage.end(pod, grace_s=0)
    expect(stage, asked, f"new{connected}".lower(), connected=connected)
    for pod in new:
        stage.end(pod, grace_s=0)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_a_session_stays_with_its_server_as_long_as_that_serves(stage: Stage, connected: bool) -> None:
    """It ends, or is another node's under a Local policy by now: new clients go elsewhere, the session does not."""
    service = stage.service(f"session-{connected}".lower(), type="NodePort", ports=[UDP])
    session = f"{service.name} {connected}"

    def answered_by(server: str, **fields: object) -> None:
        for who, where in (
            (CLIENT, service.cluster(81)),
            (HOST, service.cluster(81)),
            (OUTSIDE, service.node("udp")),
        ):
            stage.expect(who, where, lambda side: {side.relative(server)}, do="udp", **fields)  # type: ignore[arg-type]

    def stays_with(server: str) -> None:
        answered_by(server, connected=connected, session=session)

    service.endpoints(ready("server-n1"))
    stays_with("server-n1")
    service.endpoints([*ready("server-n2"), *terminating("server-n1")])
    answered_by("server-n2")
    silent_since = time.monotonic()
    until("nobody was answered for a while", lambda: time.monotonic() - silent_since > SILENCE_S, 10)
    stays_with("server-n1")
    service.endpoints(ready("server-n1", "server-n2", "server-n3"))
    service.patch({"spec": {"internalTrafficPolicy": "Local"}})
    stage.expect(CLIENT, service.cluster(81), {"server-here"}, do="udp", times=20)
    stays_with("server-n1")
    if not connected:  # one that is connected is told, and connects anew
        service.patch({"spec": {"internalTrafficPolicy": "Cluster"}})
        service.endpoints(ready("server-n2"))
        stays_with("server-n2")


def test_a_client_that_was_refused_finds_a_server_that_becomes_ready(stage: Stage) -> None:
    asked = ways(stage, "late")
    pods = [
        people.person(SERVER, s.name, name=f"late-{s.name}", labels={"kind": "late"}, gate="e2e/gate")
        for s in stage.sides
    ]
    stage.start(*pods, ready=False)
    for number, (who, service, address) in enumerate(asked):
        where = service.cluster(81) if address == "cluster" else service.node("udp")
        stage.expect(who, where, {"refused"}, do="udp", source_port=PORT + number)
    for pod in pods:
        stage.open_gate(pod["metadata"]["name"], "e2e/gate")
    expect(stage, asked, "late")
    for pod in pods:
        stage.end(pod["metadata"]["name"], grace_s=0)


@pytest.mark.parametrize("size", [8000, 60000])
def test_a_datagram_of_many_packets_comes_through_whole_and_so_does_its_answer(
    stage: Stage, size: int
) -> None:
    service = stage.service("large", SERVERS, type="NodePort", ports=[UDP])
    for connected in (True, False):
        stage.expect((CLIENT, HOST), service.cluster(81), ALL, do="udp", size=size, connected=connected)
    stage.expect((CLIENT, OUTSIDE), service.node("udp"), ALL, do="udp", size=size)
