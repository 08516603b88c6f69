"""The way of a connection as it is told: why it is that way, who is chosen and who is not, and what comes of it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from handover_agent.entries import Affinity, Client
from handover_agent.kubeproxy.served import Answer, Served, Verdict
from handover_agent.node import NodeObject
from handover_agent.showing.affinity import Rules, Stay
from handover_agent.showing.connections import Connection, Path
from handover_agent.showing.frontends import Held
from handover_agent.showing.trace import dns
from handover_agent.showing.trace.asking import Origin, parse_target
from handover_agent.showing.trace.cluster import Seen
from handover_agent.showing.trace.destination import Destination
from handover_agent.showing.trace.finding import Facts
from handover_agent.showing.trace.ground import Ground
from handover_agent.showing.trace.path import Attached, Source, source_text
from handover_agent.showing.trace.story import Outcome
from handover_agent.showing.trace.telling import tell
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Protocol,
    Scope,
    ip_bytes,
)
from tests.fakes.objects import endpoint_json, service, service_json, slice_, slice_json

pytestmark = pytest.mark.unit

NONE, REFUSE, DROP, AFFINITY = (
    FrontendFlags.NONE,
    FrontendFlags.REFUSE,
    FrontendFlags.DROP,
    FrontendFlags.AFFINITY,
)
MASQUERADE, SOURCES = FrontendFlags.MASQUERADE, FrontendFlags.SOURCES
POD = ip_bytes("10.244.1.9")
FROM_POD = Source(Origin.POD, "pod default/client (10.244.1.9)", POD, "veth7")
FROM_OUTSIDE = Source(Origin.OUTSIDE, "198.51.100.7", ip_bytes("198.51.100.7"))
ATTACHED = Attached(True, True, True, "/host/cgroup")
EVERYWHERE = replace(
    ATTACHED,
    devices={"veth7": frozenset({"from_pod", "outward"}), "eth0": frozenset({"from_outside", "outward"})},
)
ENDS = [
    endpoint_json("10.244.1.5", "n1")
    | {"targetRef": {"kind": "Pod", "namespace": "default", "name": "web-1"}},
    endpoint_json("10.244.2.5", "n2")
    | {"targetRef": {"kind": "Pod", "namespace": "default", "name": "web-2"}},
    endpoint_json("10.244.2.6", "n2", ready=False)
    | {"targetRef": {"kind": "Pod", "namespace": "default", "name": "web-3"}},
]


def backend(text: str, port: int = 8080) -> Backend:
    return Backend(ip_bytes(text), port)


def seen(ends: list[dict[str, Any]] | None = None, **spec: Any) -> Seen:
    slices = (slice_json(endpoints=ENDS if ends is None else ends),)
    return Seen(
        service=service(**spec),
        raw=service_json(**spec),
        slices=tuple(slice_(endpoints=ENDS if ends is None else ends) for _ in slices),
        raw_slices=slices,
        node=NodeObject(name="n1", zone="zone-a", addresses=(ip_bytes("192.0.2.1"),)),
    )


def held(
    *backends: Backend,
    flags: FrontendFlags = NONE,
    at: tuple[str, int] = ("10.96.0.10", 80),
    protocol: Protocol = Protocol.TCP,
    scope: Scope = Scope.INTERNAL,
    timeout_s: int = 0,
) -> Held:
    key = FrontendKey(ip_bytes(at[0]), at[1], protocol, scope)
    return Held("default/web:http/TCP", key, FrontendValue(12, len(backends), 7, flags, timeout_s), backends)


BOTH = (backend("10.244.1.5"), backend("10.244.2.5"))


def ground(attached: Attached = ATTACHED, rules: Served | None = None, mode: str = "") -> Ground:
    none = rules if rules is not None else Served()
    return Ground(attached, "Sole", mode, none, frozenset(), 1, {}, frozenset())


def facts(
    frontend: Held | None,
    source: Source = FROM_POD,
    *,
    asked: str = "TCP/10.96.0.10:80",
    cluster: Seen | None = None,
    on: Ground | None = None,
    **more: Any,
) -> Facts:
    target = parse_target(asked)
    assert target.address is not None
    destination = Destination(target.address, target.port or 0, target.protocol or Protocol.TCP)
    return Facts(
        target, destination, source, Seen() if cluster is None else cluster, on or ground(), frontend, **more
    )


def told(story_of: Facts) -> tuple[Outcome, str]:
    story = tell(story_of)
    return story.outcome, story.verdict


def lines(story_of: Facts, step: str) -> list[str]:
    return [line for shown in tell(story_of).steps if shown.name == step for line in shown.lines]


def test_the_whole_way_of_a_pods_connection() -> None:
    assert tell(facts(held(*BOTH), cluster=seen())).text() == "\n".join(
        (
            "TCP/10.96.0.10:80 from pod default/client (10.244.1.9)",
            "",
            "service       default/web, type ClusterIP, internalTrafficPolicy Cluster",
            "frontend      TCP/10.96.0.10:80 (for what starts on this node), of Service port default/web:http/TCP",
            "path          at the socket: connect4 changes the destination when a process names it",
            "              because the processes of pod default/client (10.244.1.9) are in a cgroup below "
            "/host/cgroup, where the programs are attached",
            "              rung Sole; kube-proxy's rules: none on this node",
            "region        slots 12 to 13 of the backend array: 2 backends",
            "              policy Cluster: all endpoints",
            "backends      10.244.1.5:8080   pod default/web-1 on n1, ready, EndpointSlice web-1",
            "              10.244.2.5:8080   pod default/web-2 on n2, ready, EndpointSlice web-1",
            "left out      10.244.2.6:8080   pod default/web-3 on n2, not ready, EndpointSlice web-1: not ready",
            "agreement     the maps hold what the cluster wants now",
            "verdict       SERVED: a new connection goes to one of 2 backends, with equal chances",
        )
    )


def test_a_program_gets_the_same_as_a_document() -> None:
    document = json.loads(tell(facts(held(*BOTH), cluster=seen())).json())
    assert (document["outcome"], document["path"], document["hook"]) == ("served", "socket", "connect4")
    assert document["service"] == "default/web"
    assert document["backends"][0] == {
        "address": "10.244.1.5",
        "port": 8080,
        "pod": "default/web-1",
        "node": "n1",
        "condition": "ready",
        "slice": "web-1",
    }
    assert document["left_out"][0]["why"] == "not ready"
    assert document["difference"] is None


def test_without_the_api_server_the_maps_alone_tell_the_way() -> None:
    story = tell(facts(held(*BOTH), notes=("the API server could not be asked",)))
    assert [step.name for step in story.steps] == ["frontend", "path", "region", "backends"]
    assert story.steps[-1].lines[0] == "10.244.1.5:8080   in no EndpointSlice that could be read"
    assert story.well
    assert "the API server could not be asked" in story.notes


@pytest.mark.parametrize(
    ("protocol", "hook"), [(Protocol.TCP, "connect4"), (Protocol.UDP, "connect4 or sendmsg4")]
)
def test_sockets_meet_the_hooks_of_their_protocol(protocol: Protocol, hook: str) -> None:
    asked = f"{protocol.name}/10.96.0.10:80"
    story = tell(facts(held(*BOTH, protocol=protocol), asked=asked))
    assert story.facts["hook"] == hook


def test_ipv6_has_hooks_of_its_own() -> None:
    story = tell(facts(held(backend("fd00::5"), at=("fd00::a", 80)), asked="TCP/[fd00::a]:80"))
    assert story.facts["hook"] == "connect6"


def test_sctp_goes_by_packets_because_no_hook_sees_it_connect() -> None:
    of = facts(held(*BOTH, protocol=Protocol.SCTP), asked="SCTP/10.96.0.10:80", on=ground(EVERYWHERE))
    assert lines(of, "path")[:2] == [
        "packet by packet: from_pod on veth7",
        "because SCTP is not connected by a hook that programs can see, so not at the socket",
    ]
    assert told(of) == (
        Outcome.SERVED,
        "a new connection goes to one of 2 backends, with equal chances; the backend sees the client's address",
    )


def test_a_pod_whose_port_has_no_program_is_left_alone_and_the_device_is_named() -> None:
    on = ground(replace(EVERYWHERE, devices={"veth8": frozenset({"from_pod"})}))
    of = facts(held(*BOTH, protocol=Protocol.SCTP), asked="SCTP/10.96.0.10:80", on=on)
    assert "and from_pod is not attached to veth7, where its packets come in" in lines(of, "path")
    assert told(of)[0] is Outcome.UNSERVED


def test_a_sandboxed_pod_may_pass_by_the_socket_hooks() -> None:
    of = facts(held(*BOTH), replace(FROM_POD, runtime_class="kata"))
    assert any("runtimeClassName kata" in line for line in lines(of, "path"))


def test_from_outside_a_cluster_ip_is_masqueraded() -> None:
    of = facts(held(*BOTH), FROM_OUTSIDE, on=ground(EVERYWHERE))
    assert lines(of, "path")[0] == "packet by packet: from_outside on eth0"
    assert told(of)[1].endswith("; the backend sees this node's address")


def test_from_outside_the_policy_local_keeps_the_clients_address() -> None:
    at = ("192.0.2.1", 30080)
    of = facts(
        held(BOTH[0], at=at, scope=Scope.EXTERNAL),
        FROM_OUTSIDE,
        asked="TCP/192.0.2.1:30080",
        on=ground(EVERYWHERE),
        cluster=seen(
            type="NodePort",
            externalTrafficPolicy="Local",
            ports=[{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
        ),
    )
    assert "policy Local: this node's endpoints only" in lines(of, "region")
    assert (
        "10.244.2.5:8080   pod default/web-2 on n2, ready, EndpointSlice web-1: on node n2, and the policy is Local"
        in (lines(of, "left out"))
    )
    assert told(of)[1] == (
        "a new connection goes to 10.244.1.5:8080, the only backend; the backend sees the client's address"
    )


def test_who_keeps_its_flows_of_datagrams_is_told_of() -> None:
    key = FrontendKey(ip_bytes("10.96.0.10"), 80, Protocol.UDP)
    value = FrontendValue(12, 1, 7, serving=2)
    ends = [ENDS[0], endpoint_json("10.244.2.5", "n2", ready=False, serving=True, terminating=True)]
    its: dict[str, Any] = {"endpoints": ends, "ports": [{"name": "http", "protocol": "UDP", "port": 8080}]}
    of = facts(
        Held("default/web:http/UDP", key, value, BOTH[:1], BOTH[1:]),
        asked="UDP/10.96.0.10:80",
        cluster=replace(
            seen(ports=[{"name": "http", "protocol": "UDP", "port": 80}]),
            slices=(slice_(**its),),
            raw_slices=(slice_json(**its),),
        ),
    )
    (left,) = lines(of, "left out")
    assert left.endswith("terminating, while others are ready; it keeps the flows that it has")
    assert (
        "slots 12 to 14 of the backend array: 1 backend, and 1 that keep the flows that they have"
        in lines(of, "region")
    )
    assert lines(of, "agreement") == ["the maps hold what the cluster wants now"]
    behind = replace(of, frontend=Held("default/web:http/UDP", key, FrontendValue(12, 1, 7), BOTH[:1]))
    (differs,) = lines(behind, "agreement")
    assert differs.startswith("of those that keep their flows: the maps lack 10.244.2.5:8080")


def test_a_hairpin_is_told_of() -> None:
    own = Backend(POD, 8080)
    of = facts(held(own, protocol=Protocol.SCTP), asked="SCTP/10.96.0.10:80", on=ground(EVERYWHERE))
    assert "where that is the client itself, it sees this node's address" in told(of)[1]


def test_what_is_refused_says_where_to_look() -> None:
    outcome, verdict = told(facts(held(flags=REFUSE)))
    assert outcome is Outcome.REFUSED
    assert "look at its selector and at its pods' readiness" in verdict
    assert not tell(facts(held(flags=REFUSE))).well


def test_a_port_that_a_cluster_ip_has_not_is_refused_and_its_ports_are_named() -> None:
    rest = held(flags=REFUSE, at=("10.96.0.10", 0), protocol=Protocol.ANY)
    outcome, verdict = told(facts(rest, asked="TCP/10.96.0.10:81", cluster=seen()))
    assert (outcome, verdict) == (
        Outcome.REFUSED,
        "the ClusterIP has no such port; its ports are 80/TCP",
    )
    assert lines(facts(rest, asked="TCP/10.96.0.10:81", cluster=seen()), "left out") == []


def test_a_local_policy_without_an_endpoint_here_is_a_time_out_by_packets_and_without_them() -> None:
    for on in (ground(EVERYWHERE), ground(ATTACHED)):
        outcome, verdict = told(facts(held(flags=DROP), on=on))
        assert outcome is Outcome.DROPPED
        assert verdict.startswith("the policy is Local and no endpoint is on this node")


@pytest.mark.parametrize(
    ("admitted", "outcome", "says"),
    [
        (True, Outcome.SERVED, "with equal chances"),
        (False, Outcome.DROPPED, "is in none of the Service's loadBalancerSourceRanges"),
        (None, Outcome.SERVED, "if the address that it is sent from is in loadBalancerSourceRanges"),
    ],
)
def test_source_ranges_are_judged_by_packets(admitted: bool | None, outcome: Outcome, says: str) -> None:
    of = facts(held(*BOTH, flags=SOURCES), on=ground(EVERYWHERE), admitted=admitted)
    assert "a socket has no source address yet" in " ".join(lines(of, "path"))
    assert told(of)[0] is outcome
    assert says in told(of)[1]


def stay(state_of: Backend, idle_s: float = 60) -> Stay:
    entry = Affinity(Client(None, 4026), 7, state_of, 0)
    rules = Rules(10_800, frozenset(BOTH))
    return Stay(entry, "default/web:http/TCP", rules, (POD,), idle_s)


def test_affinity_decides_while_its_entry_counts() -> None:
    of = facts(held(*BOTH, flags=AFFINITY, timeout_s=10_800), stay=stay(BOTH[1]))
    assert lines(of, "affinity") == [
        "10.244.1.9 stays with 10.244.2.5:8080, for 2h59m after its last connection"
    ]
    assert told(of)[1] == "a new connection goes to 10.244.2.5:8080, by affinity"


def test_an_entry_that_does_not_count_says_why() -> None:
    of = facts(held(*BOTH, flags=AFFINITY, timeout_s=10_800), stay=stay(backend("10.244.9.9")))
    assert lines(of, "affinity")[0].endswith("that does not count (backend gone)")
    assert told(of)[1].endswith("with equal chances")


def test_a_pod_whose_namespace_is_not_known_may_have_an_entry_of_its_own() -> None:
    of = facts(held(*BOTH, flags=AFFINITY, timeout_s=10_800), client_known=False)
    assert lines(of, "affinity")[0].startswith("which entry is this pod's is not known here")
    assert told(of)[1] == "a new connection goes to one of 2 backends: the client's own, if it has one"


def test_a_headless_services_pods_are_addressed_directly_and_none_is_left_out() -> None:
    of = facts(None, asked="TCP/10.244.1.5:8080", cluster=seen(ip="None"))
    assert lines(of, "left out") == []
    assert told(of) == (
        Outcome.DIRECT,
        "a headless Service's name leads to its pods directly: it goes to 10.244.1.5:8080 as it is",
    )


def test_what_is_open_already_is_shown() -> None:
    open_now = Connection(
        Path.SOCKET, 6, None, 4711, backend("10.96.0.10", 80), BOTH[0], "open", None, "default/web:http/TCP"
    )
    of = facts(held(*BOTH), connections=(open_now,) * 12)
    shown = lines(of, "open now")
    assert shown[0] == "socket: socket 4711 → 10.244.1.5:8080, open"
    assert shown[-1] == "and 2 more (handover-agent flows)"


def test_maps_that_are_behind_the_cluster_are_said_to_be() -> None:
    of = facts(held(BOTH[0], backend("10.244.9.9")), cluster=seen())
    assert lines(of, "agreement")[0].startswith(
        "the maps lack 10.244.2.5:8080; the maps have 10.244.9.9:8080 besides"
    )
    assert (
        "10.244.2.5:8080   pod default/web-2 on n2, ready, EndpointSlice web-1: should be chosen: the maps are behind"
        in (lines(of, "left out"))
    )


def test_a_node_port_that_is_not_on_an_address_is_no_difference() -> None:
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}]
    cluster = seen(type="NodePort", ports=ports)
    of = facts(None, asked="TCP/127.0.0.1:30080", cluster=cluster)
    assert lines(of, "agreement") == []
    clusters_own = facts(None, asked="TCP/10.96.0.10:80", cluster=cluster)
    assert lines(clusters_own, "agreement")[0].startswith("the cluster wants 2 backends there")


def test_hints_explain_who_is_left_out() -> None:
    hinted = [
        endpoint_json("10.244.1.5", "n1", zones=["zone-a"]),
        endpoint_json("10.244.2.5", "n2", zones=["zone-b"]),
    ]
    of = facts(held(BOTH[0]), cluster=seen(hinted))
    assert lines(of, "region")[-1] == "policy Cluster: all endpoints, as topology hints allow"
    assert lines(of, "left out") == [
        "10.244.2.5:8080   no pod on n2, ready, EndpointSlice web-1: its hint is for zone zone-b, "
        "this node is in zone-a"
    ]
    assert lines(of, "agreement") == ["the maps hold what the cluster wants now"]


def test_terminating_endpoints_are_left_out_while_others_are_ready() -> None:
    ends = [
        endpoint_json("10.244.1.5", "n1"),
        endpoint_json("10.244.2.5", "n2", ready=False, serving=True, terminating=True),
    ]
    of = facts(held(BOTH[0]), cluster=seen(ends))
    assert lines(of, "left out")[0].endswith(": terminating, while others are ready")


KEY = FrontendKey(ip_bytes("10.96.0.10"), 80, Protocol.TCP)
RULES = Served({KEY: Answer(Verdict.SERVED, frozenset(BOTH))})


def test_on_standby_kube_proxys_rules_take_it_and_their_backends_are_shown() -> None:
    of = facts(None, cluster=seen(), on=replace(ground(Attached(), RULES, "iptables"), rung="Standby"))
    assert lines(of, "path") == [
        "kube-proxy's rules",
        "because our datapath is not loaded on this node",
        "and kube-proxy's rules know this destination",
        "rung Standby; kube-proxy's rules: there (iptables), to 2 backends",
    ]
    assert lines(of, "backends")[0].startswith("10.244.1.5:8080   pod default/web-1")
    assert told(of) == (Outcome.SERVED, "kube-proxy's rules send a new connection to one of 2 backends")


def test_pods_that_are_left_to_the_packet_path_are_told_why() -> None:
    settings = replace(EVERYWHERE, node_sockets_only=True)
    told_of_pod = lines(facts(held(*BOTH), on=ground(settings)), "path")
    assert any("socket_path: node" in line for line in told_of_pod)
    assert any("from_pod" in line for line in told_of_pod)


def test_beside_kube_proxy_ours_come_first_and_are_compared() -> None:
    same = facts(held(*BOTH), on=ground(ATTACHED, RULES, "nftables"))
    assert lines(same, "path")[-1].endswith(
        "there (nftables), to 2 backends; ours come first, with the same backends"
    )
    other = facts(held(BOTH[0]), on=ground(ATTACHED, RULES, "nftables"))
    assert lines(other, "path")[-1].endswith("ours come first, with other backends")


def test_on_the_way_down_new_connections_are_left_to_kube_proxy() -> None:
    of = facts(held(*BOTH), on=ground(replace(ATTACHED, accepting=False), RULES, "iptables"))
    assert lines(of, "path")[1].startswith("because our programs leave new connections alone now")
    assert told(of)[0] is Outcome.SERVED


@pytest.mark.parametrize(
    ("verdict", "outcome"), [(Verdict.REFUSED, Outcome.REFUSED), (Verdict.DROPPED, Outcome.DROPPED)]
)
def test_what_kube_proxy_refuses_or_drops_is_told(verdict: Verdict, outcome: Outcome) -> None:
    rules = Served({KEY: Answer(verdict)})
    assert told(facts(None, on=ground(Attached(), rules, "iptables")))[0] is outcome


def test_a_service_that_nobody_serves_is_told_apart_from_an_address_that_is_no_services() -> None:
    assert told(facts(None, cluster=seen()))[0] is Outcome.UNSERVED
    outcome, verdict = told(facts(None, asked="TCP/10.244.1.5:8080"))
    assert (outcome, verdict) == (
        Outcome.DIRECT,
        "no Service's address: it goes to 10.244.1.5:8080 as it is",
    )


def test_a_cluster_ip_on_an_interface_of_this_node_means_who_listens_there() -> None:
    on = replace(ground(), local=frozenset({ip_bytes("10.96.0.10")}))
    outcome, verdict = told(facts(None, cluster=seen(), on=on))
    assert outcome is Outcome.DIRECT
    assert "NodeLocal DNSCache" in verdict


def test_rules_that_could_not_be_read_are_not_said_to_be_absent() -> None:
    unknown = replace(ground(Attached()), rules=None)
    of = facts(None, on=unknown)
    assert "and whether kube-proxy's rules know it is not known" in lines(of, "path")
    assert lines(of, "path")[-1].endswith("kube-proxy's rules: not known")


SERVER = backend("10.96.0.2", 53)


def named(answer: dns.Answer | None, direct: dns.Answer | None = None) -> Facts:
    of = facts(held(*BOTH), cluster=seen(), answer=answer, direct_answer=direct)
    return replace(of, target=parse_target("web:http"))


def test_a_name_shows_what_dns_answers() -> None:
    answer = dns.Answer(SERVER, "web.default.svc.cluster.local", (ip_bytes("10.96.0.10"),))
    assert lines(named(answer), "name") == [
        "web.default.svc.cluster.local is 10.96.0.10, says the cluster's DNS at 10.96.0.2:53"
    ]


def test_a_dns_answer_that_is_not_the_services_is_pointed_out() -> None:
    answer = dns.Answer(SERVER, "web.default.svc.cluster.local", (ip_bytes("10.96.0.99"),))
    assert lines(named(answer), "name")[-1].startswith("10.96.0.99 is no ClusterIP of Service default/web")


def test_a_broken_way_to_dns_is_told_apart_from_a_broken_server() -> None:
    silent = dns.Answer(SERVER, "web", problem="no answer from 10.96.0.2:53: timed out")
    pod = backend("10.244.1.3", 53)
    fine = dns.Answer(pod, "web", (ip_bytes("10.96.0.10"),))
    dead = dns.Answer(pod, "web", problem="no answer from 10.244.1.3:53: timed out")
    assert lines(named(silent, fine), "name")[-1].endswith("the way to its Service is broken, not the server")
    assert lines(named(silent, dead), "name")[-1].endswith("the server is down")


def test_where_it_starts_is_called_by_its_name_and_address() -> None:
    assert source_text(Origin.NODE, "", None) == "the node itself"
    assert source_text(Origin.POD, "", POD) == "pod 10.244.1.9"
    assert source_text(Origin.POD, "default/client", None) == "pod default/client"


def test_what_else_could_have_been_meant_is_noted() -> None:
    of = facts(held(*BOTH))
    also = replace(of, destination=replace(of.destination, others=("UDP/10.96.0.10:80",)))
    assert "also there, to be traced by itself: UDP/10.96.0.10:80" in tell(also).notes
