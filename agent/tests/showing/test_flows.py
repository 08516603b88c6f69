"""Connections as people see them, whoever translates them."""

import json
import re
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
from handover_agent.conntrack import entries
from handover_agent.entries import Direction, Flow, FlowFlags, Reverse
from handover_agent.showing.connections import (
    LIMITS_S,
    Connection,
    names_of,
    of_kube_proxy,
    of_left,
    of_packets,
    of_sockets,
)
from handover_agent.showing.flows import listing
from handover_agent.table import Backend, FrontendKey, Protocol, Scope, ip_bytes

pytestmark = pytest.mark.unit


def end(text: str) -> Backend:
    host, _, port = text.rpartition(":")
    return Backend(ip_bytes(host), int(port))


VIP, NODE_PORT = end("10.96.0.10:80"), end("192.0.2.1:30080")
POD, CLIENT = end("10.244.0.5:8080"), end("198.51.100.7:40000")
S = 1_000_000_000
WEB = "default/web:http/TCP"
NAMES = names_of(
    [
        (FrontendKey(VIP.address, 80, Protocol.TCP), WEB),
        (FrontendKey(NODE_PORT.address, 30080, Protocol.TCP, Scope.EXTERNAL), WEB),
    ]
)
FORWARD = Flow(
    direction=Direction.FORWARD,
    protocol=6,
    source=CLIENT,
    destination=NODE_PORT,
    other=POD,
    service_id=7,
    last_seen_ns=90 * S,
    client_port=CLIENT.port,
    flags=FlowFlags(0),
    answered=True,
    client_finished=False,
    backend_finished=False,
    reset=False,
    confused=False,
)
BACKWARD = replace(
    FORWARD,
    direction=Direction.BACKWARD,
    source=POD,
    destination=CLIENT,
    other=NODE_PORT,
    last_seen_ns=95 * S,
)


def packets(*flows: Flow, at_s: int = 100, ended: bool = True) -> list[Connection]:
    return of_packets(flows, {7: WEB}, NAMES, at_s * S, ended)


def test_both_directions_of_a_flow_are_one_connection() -> None:
    assert listing(packets(FORWARD, BACKWARD)).text() == (
        "PATH     PROTOCOL   CLIENT               FRONTEND          BACKEND           STATE         IDLE   SERVICE\n"
        "packet   TCP        198.51.100.7:40000   192.0.2.1:30080   10.244.0.5:8080   established   5s     "
        "default/web:http/TCP"
    )


def test_they_are_found_together_when_the_backend_sees_another_port_of_the_client() -> None:
    seen = end("198.51.100.7:50000")
    moved = replace(FORWARD, client_port=50000), replace(BACKWARD, destination=seen, client_port=CLIENT.port)
    (connection,) = packets(*moved)
    assert (connection.client, connection.backend) == (CLIENT, POD)


def test_answers_whose_other_half_is_forgotten_are_told_apart() -> None:
    (connection,) = packets(BACKWARD)
    assert connection.state == "established, answers only"
    assert (connection.client, connection.frontend, connection.backend) == (CLIENT, NODE_PORT, POD)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({"answered": False}, "opening"),
        ({}, "established"),
        ({"client_finished": True}, "closing"),
        ({"client_finished": True, "backend_finished": True}, "closed"),
        ({"client_finished": True, "reset": True}, "reset"),
        ({"protocol": 17, "answered": False}, "unanswered"),
        ({"protocol": 17}, "answered"),
    ],
)
def test_the_state_says_how_far_it_is(seen: dict[str, Any], state: str) -> None:
    assert packets(replace(FORWARD, **seen))[0].state == state


def test_a_flow_that_is_over_is_shown_only_when_all_are() -> None:
    for udp, seconds in (
        (replace(FORWARD, protocol=17), 30),
        (replace(FORWARD, protocol=17, stream=True), 120),
    ):
        assert packets(udp, at_s=90 + seconds - 1, ended=False)
        assert not packets(udp, at_s=90 + seconds, ended=False)
        assert packets(udp, at_s=90 + seconds)
    assert not packets(replace(FORWARD, reset=True), ended=False)
    assert not packets(
        replace(FORWARD, client_finished=True), replace(BACKWARD, backend_finished=True), ended=False
    )
    assert packets(FORWARD, at_s=4 * 24 * 3600, ended=False)


def test_how_long_flows_live_is_what_the_programs_have() -> None:
    text = resources.files("handover_agent").joinpath("bpf/consts.h").read_text()
    for protocol, limits in LIMITS_S.items():
        for which, seconds in limits.items():
            written = re.search(rf"#define {protocol.name}_{which.upper()}_S\s+(.+)", text)
            if written:
                assert eval(written[1], {}) == seconds


def test_a_direct_connection_whose_port_was_in_use_is_told_apart() -> None:
    assert packets(replace(FORWARD, flags=FlowFlags.DIRECT))[0].state == "direct, another port"


def test_a_socket_is_shown_by_its_cookie_with_the_service_that_it_connected_to() -> None:
    (connection,) = of_sockets([Reverse(4711, VIP, POD, 6)], NAMES)
    assert (connection.client_text, connection.service, connection.idle_s) == ("socket 4711", WEB, None)
    (item,) = json.loads(listing([connection]).json())["items"]
    assert item["socket_cookie"] == 4711
    assert item["client"] is None


def test_what_kube_proxys_conntrack_entries_carry_is_shown_beside() -> None:
    to = entries.Tuple(CLIENT.address, CLIENT.port, VIP.address, VIP.port, 6)
    back = entries.Tuple(POD.address, POD.port, CLIENT.address, CLIENT.port, 6)
    flow = entries.Flow(2, to, back, entries.IPS_DST_NAT, 100, entries.TcpState.FIN_WAIT, b"")
    (connection,) = of_kube_proxy([flow], NAMES)
    assert (connection.path, connection.backend, connection.state) == ("kube-proxy", POD, "fin-wait")
    assert connection.service == WEB


def test_datagrams_left_to_conntrack_are_shown_as_its_own_and_when_it_does_not_know_them() -> None:
    flow = replace(FORWARD, protocol=17, flags=FlowFlags.LEFT, lives_s=120)
    to = entries.Tuple(CLIENT.address, CLIENT.port, NODE_PORT.address, NODE_PORT.port, 17)
    back = entries.Tuple(POD.address, POD.port, CLIENT.address, CLIENT.port, 17)
    entry = entries.Flow(2, to, back, entries.IPS_DST_NAT, 100, None, b"")
    assert packets(flow) == of_left([flow], [entry], NAMES, 100 * S) == []
    (connection,) = of_left([flow], [], NAMES, 100 * S)
    assert (connection.path, connection.state) == ("kube-proxy", "left alone, unknown to conntrack")
    assert (connection.client, connection.frontend, connection.backend) == (CLIENT, NODE_PORT, POD)
    assert of_left([flow], [], NAMES, (90 + 120) * S) == []


def test_a_frontend_that_is_gone_leaves_its_connections_without_a_service() -> None:
    (connection,) = of_sockets([Reverse(4711, end("10.96.0.99:80"), POD, 6)], NAMES)
    assert listing([connection]).rows[0].cells[-1] == "-"


def test_a_limit_says_what_it_hides() -> None:
    many = of_sockets([Reverse(cookie, VIP, POD, 6) for cookie in range(5)], NAMES)
    shown = listing(many, limit=2)
    assert len(shown.rows) == 2
    assert shown.notes == ("2 of 5 connections are shown: --limit 0 shows all",)
    assert len(listing(many, "socket 3").rows) == 1


def test_nothing_is_said_to_be_nothing_on_any_path() -> None:
    assert listing([]).text().startswith("Nothing is translated now")
