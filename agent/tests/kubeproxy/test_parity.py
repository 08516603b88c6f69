"""What kube-proxy 1.36 does with a cluster, read from its rules, is what our compiler makes of the same cluster."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handover_agent.compile import NodeInfo
from handover_agent.kubeproxy import trace_iptables, trace_nftables
from handover_agent.kubeproxy.parity import compare
from handover_agent.kubeproxy.rulesets import parse
from handover_agent.kubeproxy.served import Answer, Served, Verdict
from handover_agent.model import Model
from handover_agent.table import (
    Backend,
    Entry,
    FrontendFlags,
    FrontendKey,
    Protocol,
    Table,
    ip_bytes,
)
from handover_agent.wire import WireService, WireSlice, service_of, slice_of
from msgspec.structs import replace
from tests.kubeproxy import cluster
from tests.table.whole import compile_table

pytestmark = pytest.mark.unit
SAMPLES = Path(__file__).parent / "samples"


def iptables_rules(variant: str) -> Served:
    four = trace_iptables.trace(parse((SAMPLES / f"iptables-{variant}.save").read_text()), ipv4=True)
    six = trace_iptables.trace(parse((SAMPLES / f"ip6tables-{variant}.save").read_text()), ipv4=False)
    return Served({**four.addresses, **six.addresses}, {**four.node_ports, **six.node_ports})


def nft_rules() -> Served:
    four, six = (
        trace_nftables.trace(json.loads((SAMPLES / f"{family}.json").read_text())["nftables"], family == "ip")
        for family in ("ip", "ip6")
    )
    return Served({**four.addresses, **six.addresses}, {**four.node_ports, **six.node_ports})


RULES = {"nft": iptables_rules("nft"), "legacy": iptables_rules("legacy"), "nftables": nft_rules()}
every_mode = pytest.mark.parametrize("mode", RULES)


def our_table(localhost_node_ports: bool = True) -> Table:
    services, slices = cluster.cluster()
    model = Model()
    model.services_sink.replace(service_of(msgspec.convert(each, WireService)) for each in services)
    model.slices_sink.replace(slice_of(msgspec.convert(each, WireSlice)) for each in slices)
    addresses = {ip_bytes(text) for text in (cluster.NODE_V4, cluster.NODE_V6)}
    node = NodeInfo(
        cluster.NODE, local_addresses=frozenset(addresses), localhost_node_ports=localhost_node_ports
    )
    return compile_table(model, node)


def key(address: str, port: int, protocol: Protocol = Protocol.TCP) -> FrontendKey:
    return FrontendKey(ip_bytes(address), port, protocol)


def backends(*texts: str) -> frozenset[Backend]:
    pairs = (text.rsplit(":", 1) for text in texts)
    return frozenset(Backend(ip_bytes(address), int(port)) for address, port in pairs)


@every_mode
def test_the_compiled_table_and_kube_proxys_rules_agree_on_every_frontend(mode: str) -> None:
    assert compare(our_table(), RULES[mode]) == []
    assert len(RULES[mode].addresses) >= 45
    assert len(RULES[mode].node_ports) == 18


@every_mode
def test_a_cluster_ip_leads_to_all_its_endpoints(mode: str) -> None:
    want = backends("10.244.1.11:8080", "10.244.2.11:8080", "10.244.3.11:8080")
    assert RULES[mode].get(key("10.96.1.1", 80)) == Answer(Verdict.SERVED, want)


@every_mode
def test_the_same_port_leads_elsewhere_by_protocol(mode: str) -> None:
    tcp = RULES[mode].get(key(cluster.NODE_V4, 30500))
    udp = RULES[mode].get(key(cluster.NODE_V4, 30500, Protocol.UDP))
    assert tcp == Answer(Verdict.SERVED, backends("10.244.1.13:5000", "10.244.3.13:5000"))
    assert udp == Answer(Verdict.SERVED, backends("10.244.1.13:5001", "10.244.3.13:5001"))


@every_mode
def test_a_local_process_reaches_every_endpoint_in_spite_of_an_external_local_policy(mode: str) -> None:
    want = backends("10.244.2.16:8080", "10.244.3.16:8080")
    assert RULES[mode].get(key("203.0.113.6", 80)) == Answer(Verdict.SERVED, want)
    assert RULES[mode].get(key(cluster.NODE_V4, 30606)) == Answer(Verdict.SERVED, want)


@every_mode
def test_session_affinity_does_not_hide_endpoints(mode: str) -> None:
    want = backends("fd00:244:0:1::17:8080", "fd00:244:0:2::17:8080")
    assert RULES[mode].get(key("fd00:96::107", 80)) == Answer(Verdict.SERVED, want)


@every_mode
def test_nobody_means_refused_and_nobody_here_means_dropped(mode: str) -> None:
    assert RULES[mode].get(key("10.96.2.1", 80)) == Answer(Verdict.REFUSED)
    assert RULES[mode].get(key("10.96.2.1", 81, Protocol.UDP)) == Answer(Verdict.REFUSED)
    assert RULES[mode].get(key(cluster.NODE_V6, 30201)) == Answer(Verdict.REFUSED)
    assert RULES[mode].get(key("10.96.1.9", 80)) == Answer(Verdict.DROPPED)


@every_mode
def test_source_ranges_are_noticed(mode: str) -> None:
    answer = RULES[mode].get(key("203.0.113.4", 443))
    assert answer == Answer(Verdict.SERVED, backends("10.244.1.14:8443", "10.244.2.14:8443"), restricted=True)


@every_mode
def test_who_may_connect_is_compared_too(mode: str) -> None:
    table, filtered, free = dict(our_table()), key("203.0.113.4", 443), key("203.0.113.6", 80)
    for name in (filtered, free):
        table[name] = replace(table[name], flags=table[name].flags ^ FrontendFlags.SOURCES)
    assert [line.partition("kube-proxy ")[2] for line in compare(table, RULES[mode])] == [
        "filters sources, ours does not",
        "lets all in, ours filters sources",
    ]


@every_mode
def test_sctp_is_compared_too(mode: str) -> None:
    table = {k: entry for k, entry in our_table().items() if k.protocol is not Protocol.SCTP}
    assert any(line.startswith("SCTP/") for line in compare(table, RULES[mode]))


@every_mode
def test_a_missing_a_surplus_and_a_different_frontend_are_each_named(mode: str) -> None:
    table = dict(our_table())
    wrong, gone, new = key("10.96.1.1", 80), key("10.96.1.2", 80), key("10.96.9.9", 80)
    table[wrong] = replace(table[wrong], backends=table[wrong].backends[:2])
    del table[gone]
    table[new] = Entry((), "default/new:/TCP", FrontendFlags.REFUSE)
    assert compare(table, RULES[mode]) == [
        "TCP/10.96.1.1:80 (default/plain:/TCP): kube-proxy sends to 10.244.1.11:8080, 10.244.2.11:8080, "
        "10.244.3.11:8080, ours sends to 10.244.1.11:8080, 10.244.2.11:8080",
        "TCP/10.96.9.9:80 (default/new:/TCP): kube-proxy has no rule for it, ours refuses",
        "TCP/10.96.1.2:80: kube-proxy sends to 10.244.1.12:8080, 10.244.2.12:8080, our table lacks it",
    ]


@every_mode
def test_what_the_table_said_a_moment_ago_is_no_difference_and_anything_else_is(mode: str) -> None:
    now, theirs = dict(our_table()), our_table()
    changed, gone, new = key("10.96.1.1", 80), key("10.96.1.2", 80), key("10.96.9.9", 80)
    now[changed] = replace(now[changed], backends=now[changed].backends[:2])
    del now[gone]
    now[new] = Entry((), "default/new:/TCP", FrontendFlags.REFUSE)
    older = replace(now[changed], backends=now[changed].backends[1:])
    before: dict[FrontendKey, list[Entry | None]] = {}
    before |= {changed: [older, theirs[changed]], gone: [theirs[gone]], new: [None]}
    assert compare(now, RULES[mode], before=before) == []
    for frontend in (changed, gone, new):
        (line,) = compare(now, RULES[mode], before={**before, frontend: [older]})
        assert line.startswith(str(frontend))


@every_mode
def test_a_node_port_that_is_just_gone_is_no_difference(mode: str) -> None:
    theirs = our_table()
    table = {k: entry for k, entry in theirs.items() if k.port != 30080}
    before: dict[FrontendKey, list[Entry | None]] = {
        k: [entry] for k, entry in theirs.items() if k.port == 30080
    }
    assert compare(table, RULES[mode], before=before) == []


@every_mode
def test_a_node_port_that_we_lack_is_named_once(mode: str) -> None:
    table = {k: entry for k, entry in our_table().items() if k.port != 30080}
    assert [line.split(": ")[0] for line in compare(table, RULES[mode])] == [
        "TCP NodePort 30080 (IPv4)",
        "TCP NodePort 30080 (IPv6)",
    ]


@every_mode
def test_refusing_where_kube_proxy_drops_is_a_difference(mode: str) -> None:
    table = dict(our_table())
    table[key("10.96.1.9", 80)] = Entry((), "s", FrontendFlags.REFUSE)
    (line,) = compare(table, RULES[mode])
    assert line.endswith("kube-proxy drops, ours refuses")


@every_mode
def test_a_cluster_ip_on_an_interface_of_the_node_is_left_alone(mode: str) -> None:
    dns = ip_bytes("10.96.0.10")
    table = {k: entry for k, entry in our_table().items() if k.address != dns}
    assert len(compare(table, RULES[mode])) == 3
    assert compare(table, RULES[mode], local_addresses={dns}) == []


def test_endpoint_chains_behind_a_verdict_map_are_followed() -> None:
    """The shape that kube-proxy's nftables mode had until 1.34."""
    numgen = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
    objects: list[dict[str, Any]] = [
        {"map": {"name": "service-ips", "elem": [[{"concat": ["10.0.0.1", "tcp", 80]}, {"goto": {"target": "svc"}}]]}},
        {"rule": {"chain": "svc", "expr": [{"vmap": {"key": numgen, "data": {"set": [
            [0, {"goto": {"target": "a"}}], [1, {"goto": {"target": "b"}}]]}}}]}},
        {"rule": {"chain": "a", "expr": [{"dnat": {"addr": "10.1.0.1", "port": 8080}}]}},
        {"rule": {"chain": "b", "expr": [{"dnat": {"addr": "10.1.0.2", "port": 8080}}]}},
    ]  # fmt: skip
    assert trace_nftables.trace(objects, ipv4=True).get(key("10.0.0.1", 80)) == Answer(
        Verdict.SERVED, backends("10.1.0.1:8080", "10.1.0.2:8080")
    )


def test_rules_without_the_jump_to_them_do_nothing() -> None:
    text = (SAMPLES / "iptables-nft.save").read_text()
    cut = "\n".join(line for line in text.splitlines() if not line.endswith('portals" -j KUBE-SERVICES'))
    assert len(trace_iptables.trace(parse(cut), ipv4=True)) == 0
