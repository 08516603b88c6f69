"""Conntrack entries as a kernel sent them: read, counted, and chosen for deletion."""

import json
import struct
from pathlib import Path

import msgspec
import pytest
from handover_agent.compile import NodeInfo
from handover_agent.conntrack.entries import Flow, TcpState, destination_of, parse, peek
from handover_agent.conntrack.old import in_use
from handover_agent.conntrack.serving import ServingUdp
from handover_agent.conntrack.stale import stale
from handover_agent.model import Model, NotListed
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes
from handover_agent.wire import WireService, WireSlice, service_of, slice_of
from tests.fakes.objects import endpoint_json, service, slice_
from tests.kubeproxy import cluster

pytestmark = pytest.mark.unit

DUMP = json.loads((Path(__file__).parent / "samples" / "dump.json").read_text())
RAW = [bytes.fromhex(line) for lines in DUMP.values() for line in lines]
FLOWS = {
    (flow.family, flow.original.source_port): flow for flow in map(parse, RAW) if flow is not None
}  # 40001: TCP, 40002: UDP with an answer, 40003: UDP without, 40004: closed TCP
V4, V6 = 2, 10
families = pytest.mark.parametrize(
    ("family", "service", "endpoint"), [(V4, "10.96.0.10", "192.0.2.10"), (V6, "fd00:96::a", "2001:db8::10")]
)


def flow_of(family: int, source_port: int) -> Flow:
    return FLOWS[family, source_port]


@families
def test_an_entry_says_where_it_was_sent_and_who_answers(family: int, service: str, endpoint: str) -> None:
    flow = flow_of(family, 40001)
    assert flow.original.destination == ip_bytes(service)
    assert (flow.original.destination_port, flow.original.protocol) == (80, Protocol.TCP)
    assert (flow.reply.source, flow.reply.source_port) == (ip_bytes(endpoint), 8080)
    assert flow.translated
    assert flow.assured
    assert flow.tcp_state == TcpState.ESTABLISHED
    assert flow.timeout_s > 400_000


@families
def test_a_closed_connection_is_told_from_what_has_no_state(family: int, service: str, endpoint: str) -> None:
    assert flow_of(family, 40004).tcp_state == TcpState.TIME_WAIT
    assert flow_of(family, 40002).tcp_state is None


def test_entries_without_ports_are_none() -> None:
    assert [parse(raw) for raw in RAW].count(None) == 2


def test_the_quick_look_sees_the_same_destination_as_the_whole_parse() -> None:
    for raw in RAW:
        flow, quick = parse(raw), peek(raw, 0)
        assert flow is None or quick == destination_of(flow)
        assert flow is not None or quick is None


def test_the_quick_look_sees_messages_in_the_middle_of_a_buffer() -> None:
    assert peek(b"\0" * 20 + RAW[1], 20) == peek(RAW[1], 0) is not None


def test_a_layout_that_is_not_expected_is_left_to_the_parser() -> None:
    raw = bytearray(RAW[1])
    struct.pack_into("=H", raw, 4, 60)
    assert peek(bytes(raw), 0) is None


def test_old_flows_are_open_tcp_and_udp_until_conntrack_forgets_it() -> None:
    found = in_use(FLOWS.values())
    ports = sorted((flow.family, flow.original.source_port) for flow in found)
    assert ports == [(V4, 40001), (V4, 40002), (V4, 40003), (V6, 40001), (V6, 40002), (V6, 40003)]


@families
def test_an_entry_to_an_endpoint_that_serves_is_not_stale(family: int, service: str, endpoint: str) -> None:
    key = FrontendKey(ip_bytes(service), 53, Protocol.UDP)
    here, gone = Backend(ip_bytes(endpoint), 5300), Backend(ip_bytes(endpoint), 5301)
    assert stale(FLOWS.values(), {key: {here, gone}}, untranslated=True) == []
    assert stale(FLOWS.values(), {key: {gone}}, untranslated=False) == [flow_of(family, 40002)]


@families
def test_without_a_serving_endpoint_nothing_is_stale(family: int, service: str, endpoint: str) -> None:
    key = FrontendKey(ip_bytes(service), 53, Protocol.UDP)
    assert stale(FLOWS.values(), {key: frozenset()}, untranslated=True) == []


def test_an_entry_that_nobody_translated_is_stale_when_rules_are_to_see_its_client_again() -> None:
    serving = {
        FrontendKey(ip_bytes("fd00:96::a"), 54, Protocol.UDP): {Backend(ip_bytes("2001:db8::10"), 5300)}
    }
    assert stale(FLOWS.values(), serving, untranslated=True) == [flow_of(V6, 40003)]
    assert stale(FLOWS.values(), serving, untranslated=False) == [], "the node's own traffic has such entries"


@families
def test_what_kube_proxy_translated_is_left_to_it_once_its_rules_serve(
    family: int, service: str, endpoint: str
) -> None:
    """It may know an endpoint before we do: an answer of that one was lost when its entry was deleted."""
    key, other = FrontendKey(ip_bytes(service), 53, Protocol.UDP), Backend(ip_bytes(endpoint), 5301)
    assert stale(FLOWS.values(), {key: {other}}, untranslated=False) == [flow_of(family, 40002)]
    assert stale(FLOWS.values(), {key: {other}}, untranslated=True) == []


def test_a_tcp_frontend_of_the_same_address_and_port_does_not_count() -> None:
    key = FrontendKey(ip_bytes("10.96.0.10"), 80, Protocol.TCP)
    assert stale(FLOWS.values(), {key: {Backend(ip_bytes("192.0.2.99"), 1)}}, untranslated=True) == []


def a_model() -> Model:
    services, slices = cluster.cluster()
    local = cluster.service(
        "local",
        ["10.96.3.1"],
        [cluster.port(53, 53, "u", "UDP", 30531)],
        internalTrafficPolicy="Local",
        type="NodePort",
    )
    services.append(local)
    slices += cluster.slices(local, [(1, 31), (2, 31)])
    draining = cluster.service("going", ["10.96.3.2"], [cluster.port(53, 53, "u", "UDP")])
    services.append(draining)
    slices += cluster.slices(draining, [(2, 32)], serving_only=True)
    ready = cluster.slices(draining, [(3, 32)])
    for each in ready:
        each["metadata"]["name"] += "-more"
    slices += ready
    model = Model()
    model.services_sink.replace(service_of(msgspec.convert(each, WireService)) for each in services)
    model.slices_sink.replace(slice_of(msgspec.convert(each, WireSlice)) for each in slices)
    return model


def test_whoever_serves_may_keep_its_flows_whatever_the_policy_says() -> None:
    node = NodeInfo(cluster.NODE, local_addresses=frozenset({ip_bytes(cluster.NODE_V4)}))
    found = ServingUdp(a_model()).now(node)
    both = {Backend(ip_bytes(f"10.244.{n}.31"), 53) for n in (1, 2)}
    assert found[FrontendKey(ip_bytes("10.96.3.1"), 53, Protocol.UDP)] == both
    assert found[FrontendKey(ip_bytes(cluster.NODE_V4), 30531, Protocol.UDP)] == both
    assert found[FrontendKey(ip_bytes("10.96.3.2"), 53, Protocol.UDP)] == {
        Backend(ip_bytes(f"10.244.{n}.32"), 53) for n in (2, 3)
    }
    assert found[FrontendKey(ip_bytes("10.96.2.1"), 81, Protocol.UDP)] == frozenset()
    assert all(key.protocol is Protocol.UDP for key in found)


def test_what_changed_is_followed_and_the_node_s_new_address_too() -> None:
    node = NodeInfo("n1", local_addresses=frozenset({ip_bytes("192.0.2.1")}))
    model, udp = Model(), [{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}]
    serving = ServingUdp(model)
    with pytest.raises(NotListed):
        serving.now(node)
    model.services_sink.replace([service(ports=udp, type="NodePort")])
    model.slices_sink.replace([])
    virtual, ported = (
        FrontendKey(ip_bytes(a), port, Protocol.UDP) for a, port in (("10.96.0.10", 53), ("192.0.2.1", 30053))
    )
    assert serving.now(node) == {virtual: frozenset(), ported: frozenset()} | localhost(frozenset())
    ports = [{"name": "dns", "protocol": "UDP", "port": 5353}]
    model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.1.1")], ports=ports))
    backends = frozenset({Backend(ip_bytes("10.1.1.1"), 5353)})
    assert serving.now(node) == {virtual: backends, ported: backends} | localhost(backends)
    moved = NodeInfo("n1", local_addresses=frozenset({ip_bytes("192.0.2.2")}))
    assert FrontendKey(ip_bytes("192.0.2.2"), 30053, Protocol.UDP) in serving.now(moved)
    assert ported not in serving.now(moved)
    model.services_sink.remove(service())
    assert serving.now(moved) == {}


def localhost(backends: frozenset[Backend]) -> dict[FrontendKey, frozenset[Backend]]:
    return {FrontendKey(ip_bytes("127.0.0.1"), 30053, Protocol.UDP): backends}


def test_where_two_services_claim_an_address_the_endpoints_of_both_may_keep_their_flows() -> None:
    udp = [{"name": "dns", "protocol": "UDP", "port": 53}]
    model, node = Model(), NodeInfo("n1")
    model.services_sink.replace(
        service(f"default/{name}", f"10.96.0.{ip}", udp, externalIPs=["198.51.100.1"])
        for name, ip in (("a", 1), ("b", 2))
    )
    model.slices_sink.replace(
        slice_(f"default/{name}-1", name, [endpoint_json(f"10.1.1.{ip}")], udp)
        for name, ip in (("a", 1), ("b", 2))
    )
    serving, shared = ServingUdp(model), FrontendKey(ip_bytes("198.51.100.1"), 53, Protocol.UDP)
    a, b = (Backend(ip_bytes(f"10.1.1.{ip}"), 53) for ip in (1, 2))
    assert serving.now(node)[shared] == {a, b}
    model.services_sink.remove(service("default/a"))
    assert serving.now(node)[shared] == {b}
