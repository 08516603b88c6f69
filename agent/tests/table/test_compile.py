"""What a Service and its EndpointSlices become on a node, rule by rule of the behaviour contract."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from handover_agent.compile import NodeInfo, compile_service
from handover_agent.objects import Service, Slice
from handover_agent.table import MOST_SERVING, Entry, FrontendFlags, FrontendKey, Protocol, ip_bytes, ip_text
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

NODE = NodeInfo(
    name="a",
    zone="z1",
    local_addresses=frozenset(
        map(ip_bytes, ["127.0.0.1", "192.168.0.1", "10.244.1.1", "fd00::1", "fe80::1", "::1"])
    ),
    primary_addresses=(ip_bytes("192.168.0.1"), ip_bytes("fd00::1")),
)


OTHER_NODE = NodeInfo(name="c", local_addresses=NODE.local_addresses)
REST = FrontendKey(ip_bytes("10.96.0.10"), 0, Protocol.ANY)
"""What is at no port of the ClusterIP that `service` has."""
CLUSTER, LOCAL = FrontendFlags.MASQUERADE, FrontendFlags.NONE


def compiled(thing: Service, *slices: Slice, node: NodeInfo = NODE) -> dict[str, Entry]:
    """What starts on the node finds, without the refusals of what is at no port."""
    rows, _ = compile_service(thing, slices, node)
    result = {str(row.key): row.entry for row in rows}
    assert len(result) == len(rows), "a frontend was compiled twice"
    return {text: entry for text, entry in result.items() if not text.startswith("ANY/")}


def from_outside(thing: Service, *slices: Slice, node: NodeInfo = NODE) -> dict[str, Entry]:
    """What arrivals from outside find, where that differs."""
    rows, _ = compile_service(thing, slices, node)
    return {str(row.key): row.external for row in rows if row.external is not None}


def landing(thing: Service, *slices: Slice, node: NodeInfo = NODE) -> dict[str, list[str]]:
    return {k: [str(b) for b in e.backends] for k, e in compiled(thing, *slices, node=node).items()}


def web(*endpoints: dict[str, Any], **kwargs: Any) -> Slice:
    return slice_(endpoints=list(endpoints), **kwargs)


class TestSelectionOfServices:
    @pytest.mark.parametrize(
        "skipped",
        [
            service(labels={"service.kubernetes.io/service-proxy-name": "other"}),
            service(labels={"service.kubernetes.io/service-proxy-name": ""}),
            service(labels={"service.kubernetes.io/headless": ""}),
            service(ip="None"),
            service(ip=[]),
            service(type="ExternalName", ip=[], externalName="example.org"),
            service(type="ExternalName", ip="10.96.0.10"),
        ],
        ids=[
            "proxy-name",
            "empty proxy-name",
            "headless label",
            "None",
            "no clusterIP",
            "ExternalName",
            "stale IP",
        ],
    )
    def test_a_service_that_is_not_a_node_proxys_has_no_frontend(self, skipped: Service) -> None:
        assert compiled(skipped, web(endpoint_json("10.244.1.2"))) == {}

    def test_an_ordinary_service_is_reached_at_its_cluster_ip(self) -> None:
        assert landing(service(), web(endpoint_json("10.244.1.2"), endpoint_json("10.244.2.2"))) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080", "10.244.2.2:8080"]
        }

    def test_the_identity_names_service_port_and_protocol(self) -> None:
        (entry,) = compiled(service(), web(endpoint_json("10.244.1.2"))).values()
        assert entry.service == "default/web:http/TCP"


class TestEndpointSlices:
    def test_ports_are_joined_by_name(self) -> None:
        two = service(
            ports=[{"name": "http", "port": 80}, {"name": "admin", "port": 9000}, {"name": "none", "port": 1}]
        )
        ports = [{"name": "admin", "port": 9090}, {"name": "http", "port": 8080}]
        assert landing(two, web(endpoint_json("10.244.1.2"), ports=ports)) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"],
            "TCP/10.96.0.10:9000": ["10.244.1.2:9090"],
            "TCP/10.96.0.10:1": [],
        }

    def test_a_port_without_a_name_joins_the_service_port_without_one(self) -> None:
        thing = service(ports=[{"port": 80, "protocol": "TCP"}])
        found = landing(
            thing, web(endpoint_json("10.244.1.2"), ports=[{"name": "", "port": 8080, "protocol": "TCP"}])
        )
        assert found == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}

    @pytest.mark.parametrize(
        "port", [{"name": "http"}, {"name": "http", "port": 0}, {"name": "http", "port": None}]
    )
    def test_an_endpoint_port_without_a_number_is_ignored(self, port: dict[str, Any]) -> None:
        assert landing(service(), web(endpoint_json("10.244.1.2"), ports=[port])) == {"TCP/10.96.0.10:80": []}

    def test_an_endpoint_port_whose_name_is_null_is_ignored(self) -> None:
        thing = service(ports=[{"port": 80}])
        assert landing(thing, web(endpoint_json("10.244.1.2"), ports=[{"name": None, "port": 8080}])) == {
            "TCP/10.96.0.10:80": []
        }

    def test_one_port_number_with_two_protocols_stays_apart(self) -> None:
        dns = service(ports=[{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "tcp", "port": 53}])
        ports = [
            {"name": "dns", "protocol": "UDP", "port": 5353},
            {"name": "tcp", "protocol": "TCP", "port": 5354},
        ]
        assert landing(dns, web(endpoint_json("10.244.1.2"), ports=ports)) == {
            "UDP/10.96.0.10:53": ["10.244.1.2:5353"],
            "TCP/10.96.0.10:53": ["10.244.1.2:5354"],
        }

    def test_the_protocol_must_agree_as_well_as_the_name(self) -> None:
        ports = [{"name": "http", "protocol": "UDP", "port": 8080}]
        assert landing(service(), web(endpoint_json("10.244.1.2"), ports=ports)) == {"TCP/10.96.0.10:80": []}

    def test_an_endpoint_without_addresses_is_ignored(self) -> None:
        assert landing(service(), web(endpoint_json([]))) == {"TCP/10.96.0.10:80": []}

    def test_only_an_endpoints_first_address_counts(self) -> None:
        assert landing(service(), web(endpoint_json(["10.244.1.2", "10.244.1.3"]))) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"]
        }

    @pytest.mark.parametrize("running_first", [True, False])
    def test_of_two_pods_of_one_address_in_one_slice_the_one_that_runs_counts(
        self, running_first: bool
    ) -> None:
        both = [
            endpoint_json("10.244.1.2"),
            endpoint_json("10.244.1.2", ready=False, serving=True, terminating=True),
        ]
        others = [endpoint_json("10.244.1.3")]
        found = landing(service(), slice_(endpoints=others + (both if running_first else both[::-1])))
        assert found["TCP/10.96.0.10:80"] == ["10.244.1.2:8080", "10.244.1.3:8080"]

    def test_an_endpoint_in_two_slices_counts_once(self) -> None:
        one, two = web(endpoint_json("10.244.1.2")), web(endpoint_json("10.244.1.2"), name="default/web-2")
        assert landing(service(), one, two) == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}

    @pytest.mark.parametrize("local_first", [True, False])
    def test_of_two_sightings_of_an_endpoint_the_one_with_the_node_counts(self, local_first: bool) -> None:
        slices = [
            web(endpoint_json("10.244.1.2", "a")),
            web(endpoint_json("10.244.1.2"), name="default/web-2"),
        ]
        thing = service(internalTrafficPolicy="Local")
        found = landing(thing, *(slices if local_first else reversed(slices)))
        assert found == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}

    def test_slices_may_give_one_port_name_different_numbers(self) -> None:
        two = web(endpoint_json("10.244.1.3"), name="default/web-2", ports=[{"name": "http", "port": 9090}])
        assert landing(service(), web(endpoint_json("10.244.1.2")), two) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080", "10.244.1.3:9090"]
        }

    def test_host_names_are_no_endpoints(self) -> None:
        assert landing(service(), web(endpoint_json("example.org"), family="FQDN")) == {
            "TCP/10.96.0.10:80": []
        }

    def test_an_address_of_another_family_than_the_slices_is_ignored(self) -> None:
        assert landing(service(), web(endpoint_json("fd00::2"), endpoint_json("10.244.1.2"))) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"]
        }


class TestChoosingEndpoints:
    def test_conditions_that_are_not_given_mean_ready(self) -> None:
        assert landing(service(), web(endpoint_json("10.244.1.2", ready=None))) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"]
        }

    def test_ready_endpoints_are_used_and_others_not(self) -> None:
        found = landing(
            service(),
            web(
                endpoint_json("10.244.1.2"),
                endpoint_json("10.244.1.3", ready=False, serving=False),
                endpoint_json("10.244.1.4", ready=False, serving=True, terminating=True),
            ),
        )
        assert found == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}

    def test_without_a_ready_endpoint_those_that_serve_while_terminating_are_used(self) -> None:
        found = landing(
            service(),
            web(
                endpoint_json("10.244.1.2", ready=False, serving=False, terminating=True),
                endpoint_json("10.244.1.3", ready=False, serving=True, terminating=False),
                endpoint_json("10.244.1.4", ready=False, serving=True, terminating=True),
            ),
        )
        assert found == {"TCP/10.96.0.10:80": ["10.244.1.4:8080"]}

    def test_the_fallback_is_decided_for_the_local_set_by_itself(self) -> None:
        slices = web(
            endpoint_json("10.244.1.2", "a", ready=False, serving=True, terminating=True),
            endpoint_json("10.244.2.2", "b"),
        )
        local = service(internalTrafficPolicy="Local")
        assert landing(local, slices) == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}
        assert landing(service(), slices) == {"TCP/10.96.0.10:80": ["10.244.2.2:8080"]}

    def test_flows_of_datagrams_stay_with_whoever_serves(self) -> None:
        """Whatever keeps new ones away: kube-proxy asks the same before it deletes a conntrack entry."""
        dns = service(
            ports=[{"name": "http", "port": 53, "nodePort": 30053, "protocol": "UDP"}],
            type="NodePort",
            internalTrafficPolicy="Local",
            externalTrafficPolicy="Local",
        )
        slices = slice_(
            endpoints=[
                endpoint_json("10.244.1.4", "a", ready=False, serving=True, terminating=True),
                endpoint_json("10.244.1.2", "a"),
                endpoint_json("10.244.2.2", "b", zones=["z2"]),
                endpoint_json("10.244.2.3", "b", ready=False, serving=False, terminating=True),
            ],
            ports=[{"name": "http", "port": 8080, "protocol": "UDP"}],
        )
        entry = compiled(dns, slices)["UDP/10.96.0.10:53"]
        assert list(map(str, entry.backends)) == ["10.244.1.2:8080"]
        assert list(map(str, entry.draining)) == ["10.244.1.4:8080", "10.244.2.2:8080"]
        kept = ["10.244.1.2:8080", "10.244.1.4:8080", "10.244.2.2:8080"]
        assert list(map(str, entry.slots)) == ["10.244.1.2:8080", *kept]
        for text, others in from_outside(dns, slices, node=OTHER_NODE).items():
            assert (text, others.backends, others.flags) == (text, (), FrontendFlags.DROP)
            assert list(map(str, others.draining)) == [
                "10.244.1.2:8080",
                "10.244.1.4:8080",
                "10.244.2.2:8080",
            ]

    def test_connections_know_their_end_and_need_nobody_to_keep_them(self) -> None:
        ending = endpoint_json("10.244.1.4", ready=False, serving=True, terminating=True)
        for protocol in ("TCP", "SCTP"):
            found = compiled(
                service(ports=[{"name": "http", "port": 80, "protocol": protocol}]),
                slice_(
                    endpoints=[endpoint_json("10.244.1.2"), ending],
                    ports=[{"name": "http", "port": 8080, "protocol": protocol}],
                ),
            )
            assert [entry.draining for entry in found.values()] == [()]

    def test_source_ranges_take_nobody_away_who_keeps_flows(self) -> None:
        balancer = service(
            ports=[{"name": "http", "port": 53, "protocol": "UDP"}],
            type="LoadBalancer",
            ingress=[{"ip": "203.0.113.7"}],
            loadBalancerSourceRanges=["198.51.100.0/24"],
        )
        slices = slice_(
            endpoints=[
                endpoint_json("10.244.1.2"),
                endpoint_json("10.244.1.4", ready=False, serving=True, terminating=True),
            ],
            ports=[{"name": "http", "port": 8080, "protocol": "UDP"}],
        )
        entry = compiled(balancer, slices)["UDP/203.0.113.7:53"]
        assert (entry.flags & FrontendFlags.SOURCES, len(entry.draining)) == (FrontendFlags.SOURCES, 1)

    def test_more_than_the_datapath_can_count_are_not_kept(self) -> None:
        ends = [
            endpoint_json(
                f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", ready=False, serving=True, terminating=True
            )
            for n in range(1 << 16)
        ]
        many = slice_(
            endpoints=[endpoint_json("10.244.1.2"), *ends],
            ports=[{"name": "http", "port": 8080, "protocol": "UDP"}],
        )
        entry = compiled(service(ports=[{"name": "http", "port": 53, "protocol": "UDP"}]), many)[
            "UDP/10.96.0.10:53"
        ]
        assert (len(entry.backends), entry.serving) == (1, MOST_SERVING)

    def test_no_endpoint_anywhere_refuses(self) -> None:
        for slices in ([], [web()], [web(endpoint_json("10.244.1.2", ready=False))]):
            (entry,) = compiled(service(), *slices).values()
            assert (entry.backends, entry.flags) == ((), FrontendFlags.REFUSE)

    def test_a_local_policy_without_a_local_endpoint_drops(self) -> None:
        local = service(internalTrafficPolicy="Local")
        (entry,) = compiled(local, web(endpoint_json("10.244.2.2", "b"))).values()
        assert (entry.backends, entry.flags) == ((), FrontendFlags.DROP)

    def test_a_local_policy_without_any_endpoint_refuses(self) -> None:
        (entry,) = compiled(service(internalTrafficPolicy="Local")).values()
        assert entry.flags == FrontendFlags.REFUSE


class TestTopology:
    @pytest.mark.parametrize(
        ("endpoints", "expected"),
        [
            pytest.param([("2", None, ["a"]), ("3", None, ["b"])], ["2"], id="node hints"),
            pytest.param(
                [("2", None, ["c"]), ("3", None, ["b"])], ["2", "3"], id="node hints for other nodes only"
            ),
            pytest.param([("2", None, ["a"]), ("3", None, None)], ["2", "3"], id="a node hint is missing"),
            pytest.param([("2", ["z1"], None), ("3", ["z2"], None)], ["2"], id="zone hints"),
            pytest.param(
                [("2", ["z1", "z2"], None), ("3", ["z2"], None)], ["2"], id="several zones in one hint"
            ),
            pytest.param(
                [("2", ["z3"], None), ("3", ["z2"], None)], ["2", "3"], id="zone hints for other zones"
            ),
            pytest.param([("2", ["z1"], None), ("3", None, None)], ["2", "3"], id="a zone hint is missing"),
            pytest.param(
                [("2", ["z1"], ["b"]), ("3", ["z1"], ["a"])], ["3"], id="node hints go before zone hints"
            ),
            pytest.param(
                [("2", ["z1"], ["b"]), ("3", ["z2"], ["c"])], ["2"], id="zone hints when no node hint fits"
            ),
        ],
    )
    def test_hints_choose(
        self, endpoints: list[tuple[str, list[str] | None, list[str] | None]], expected: list[str]
    ) -> None:
        slices = web(*(endpoint_json(f"10.244.1.{n}", "b", zones=z, nodes=h) for n, z, h in endpoints))
        assert landing(service(), slices) == {"TCP/10.96.0.10:80": [f"10.244.1.{n}:8080" for n in expected]}

    def test_only_ready_endpoints_need_hints(self) -> None:
        slices = web(
            endpoint_json("10.244.1.2", zones=["z1"]),
            endpoint_json("10.244.1.3", zones=["z2"]),
            endpoint_json("10.244.1.4", ready=False, serving=True, terminating=True),
        )
        assert landing(service(), slices) == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}

    def test_the_fallback_to_terminating_endpoints_takes_no_notice_of_hints(self) -> None:
        slices = web(
            endpoint_json("10.244.1.2", ready=False, serving=True, terminating=True, zones=["z1"]),
            endpoint_json("10.244.1.3", ready=False, serving=True, terminating=True, zones=["z2"]),
        )
        assert landing(service(), slices) == {"TCP/10.96.0.10:80": ["10.244.1.2:8080", "10.244.1.3:8080"]}

    def test_a_node_without_a_zone_uses_all(self) -> None:
        slices = web(endpoint_json("10.244.1.2", zones=["z1"]), endpoint_json("10.244.1.3", zones=["z2"]))
        found = landing(service(), slices, node=NodeInfo("a"))
        assert found == {"TCP/10.96.0.10:80": ["10.244.1.2:8080", "10.244.1.3:8080"]}

    def test_the_local_set_takes_no_notice_of_hints(self) -> None:
        slices = web(
            endpoint_json("10.244.1.2", "a", zones=["z2"]), endpoint_json("10.244.2.2", "b", zones=["z1"])
        )
        local = service(internalTrafficPolicy="Local")
        assert landing(local, slices) == {"TCP/10.96.0.10:80": ["10.244.1.2:8080"]}


class TestClusterIPs:
    def test_dual_stack_joins_each_family_with_its_own_slices(self) -> None:
        found = landing(
            service(ip=["10.96.0.10", "fd00:10:96::10"]),
            web(endpoint_json("10.244.1.2")),
            web(endpoint_json("fd00:10:244::2"), name="default/web-6", family="IPv6"),
        )
        assert found == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"],
            "TCP/[fd00:10:96::10]:80": ["[fd00:10:244::2]:8080"],
        }

    def test_a_family_without_endpoints_refuses_while_the_other_serves(self) -> None:
        found = compiled(service(ip=["10.96.0.10", "fd00:10:96::10"]), web(endpoint_json("10.244.1.2")))
        assert found["TCP/[fd00:10:96::10]:80"].flags == FrontendFlags.REFUSE
        assert found["TCP/10.96.0.10:80"].flags == FrontendFlags.NONE

    def test_a_cluster_ip_on_a_local_interface_is_left_to_its_listener(self) -> None:
        node = NodeInfo("a", local_addresses=frozenset({ip_bytes("10.96.0.10"), ip_bytes("192.168.0.1")}))
        thing = service(
            ip="10.96.0.10", ports=[{"name": "http", "port": 80, "nodePort": 30080}], type="NodePort"
        )
        found = landing(thing, web(endpoint_json("10.244.1.2")), node=node)
        assert "TCP/10.96.0.10:80" not in found
        assert found["TCP/192.168.0.1:30080"] == ["10.244.1.2:8080"]

    def test_sctp_has_its_frontends_too(self) -> None:
        thing = service(ports=[{"name": "s", "protocol": "SCTP", "port": 9}])
        assert list(compiled(thing)) == ["SCTP/10.96.0.10:9"]

    def test_a_protocol_that_nobody_knows_is_no_frontend(self) -> None:
        assert compiled(service(ports=[{"name": "x", "protocol": "QUIC", "port": 9}])) == {}


def node_port(**kwargs: Any) -> Service:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    return service(type="NodePort", ports=ports, **kwargs)


class TestNodePorts:
    def test_they_are_on_the_nodes_own_addresses_and_localhost(self) -> None:
        assert set(compiled(node_port(), web(endpoint_json("10.244.1.2")))) == {
            "TCP/10.96.0.10:80",
            "TCP/192.168.0.1:30080",
            "TCP/10.244.1.1:30080",
            "TCP/127.0.0.1:30080",
        }

    @pytest.mark.parametrize(
        ("filters", "localhost", "addresses"),
        [
            (("192.168.0.0/16",), True, {"192.168.0.1"}),
            (("192.168.0.0/16", "127.0.0.0/8"), True, {"192.168.0.1", "127.0.0.1"}),
            (("0.0.0.0/0",), True, {"192.168.0.1", "10.244.1.1", "127.0.0.1"}),
            (("172.16.0.0/12",), True, set()),
            (("primary",), True, {"192.168.0.1"}),
            ((), False, {"192.168.0.1", "10.244.1.1"}),
        ],
    )
    def test_node_port_addresses_filter(
        self, filters: tuple[str, ...], localhost: bool, addresses: set[str]
    ) -> None:
        node = NodeInfo(
            "a",
            local_addresses=NODE.local_addresses,
            primary_addresses=NODE.primary_addresses,
            node_port_addresses=filters,
            localhost_node_ports=localhost,
        )
        found = set(compiled(node_port(), node=node)) - {"TCP/10.96.0.10:80"}
        assert found == {f"TCP/{address}:30080" for address in addresses}

    def test_filters_of_one_family_say_nothing_about_the_other(self) -> None:
        both = {ip_bytes(text) for text in ("192.168.0.1", "172.16.0.1", "fd00::1")}
        node = NodeInfo("a", local_addresses=frozenset(both), node_port_addresses=("192.168.0.0/16",))
        assert {ip_text(address) for address in node.node_ports_at} == {"192.168.0.1", "fd00::1"}

    def test_a_filter_that_is_no_cidr_is_refused_at_once(self) -> None:
        with pytest.raises(ValueError, match="does not appear to be"):
            NodeInfo("a", node_port_addresses=("eth0",))

    def test_ipv6_ones_are_never_on_loopback_or_link_local_addresses(self) -> None:
        found = set(compiled(node_port(ip="fd00:10:96::10")))
        assert found == {"TCP/[fd00:10:96::10]:80", "TCP/[fd00::1]:30080"}

    def test_a_node_port_of_zero_is_none(self) -> None:
        thing = service(type="LoadBalancer", ports=[{"name": "http", "port": 80, "nodePort": 0}])
        assert set(compiled(thing)) == {"TCP/10.96.0.10:80"}

    def test_local_processes_use_the_cluster_set_whatever_the_external_policy(self) -> None:
        thing = node_port(externalTrafficPolicy="Local")
        found = landing(thing, web(endpoint_json("10.244.2.2", "b")))
        assert found["TCP/192.168.0.1:30080"] == ["10.244.2.2:8080"]

    def test_they_use_the_cluster_set_though_the_internal_policy_is_local(self) -> None:
        thing = node_port(internalTrafficPolicy="Local")
        found = compiled(thing, web(endpoint_json("10.244.2.2", "b")))
        assert found["TCP/10.96.0.10:80"].flags == FrontendFlags.DROP
        assert [str(b) for b in found["TCP/192.168.0.1:30080"].backends] == ["10.244.2.2:8080"]


def balancer(ingress: list[dict[str, Any]], **kwargs: Any) -> Service:
    return service(type="LoadBalancer", ingress=ingress, **kwargs)


def sources(thing: Service, name: str) -> list[str]:
    """Who may connect to a frontend that says that not everybody may; from inside and outside the same."""
    entry = compiled(thing)[name]
    assert FrontendFlags.SOURCES in entry.flags
    return [str(prefix) for prefix in entry.sources]


class TestLoadBalancersAndExternalIPs:
    @pytest.mark.parametrize(
        ("ingress", "served"),
        [
            ([{"ip": "203.0.113.7"}], {"203.0.113.7"}),
            ([{"ip": "203.0.113.7", "ipMode": "VIP"}], {"203.0.113.7"}),
            ([{"ip": "203.0.113.7", "ipMode": "Proxy"}], set()),
            ([{"hostname": "lb.example.org"}], set()),
            ([{"ip": "203.0.113.7"}, {"ip": "203.0.113.8"}], {"203.0.113.7", "203.0.113.8"}),
            ([{"ip": "2001:db8::7"}], set()),
        ],
        ids=["mode unset", "VIP", "Proxy", "host name", "two", "family without a ClusterIP"],
    )
    def test_vips_are_frontends(self, ingress: list[dict[str, Any]], served: set[str]) -> None:
        found = set(compiled(balancer(ingress))) - {"TCP/10.96.0.10:80"}
        assert found == {f"TCP/{address}:80" for address in served}

    @pytest.mark.parametrize(
        ("ranges", "everybody"),
        [
            (["10.0.0.0/8"], False),
            (["0.0.0.0/0"], True),
            (["10.0.0.0/8", " 0.0.0.0/0 "], True),
            ([], True),
            (["2001:db8::/32"], True),
            (["nonsense"], False),
        ],
        ids=[
            "restricted",
            "all",
            "all among others, with white space",
            "none",
            "other family only",
            "nonsense",
        ],
    )
    def test_source_ranges_that_restrict_are_told_to_the_datapath(
        self, ranges: list[str], everybody: bool
    ) -> None:
        thing = balancer([{"ip": "203.0.113.7"}], loadBalancerSourceRanges=ranges)
        flags = compiled(thing)["TCP/203.0.113.7:80"].flags
        assert (FrontendFlags.SOURCES not in flags) is everybody

    def test_whoever_is_in_a_range_is_let_in_and_ranges_that_do_not_parse_let_nobody_in(self) -> None:
        ranges = ["10.0.0.0/8", " 192.0.2.0/24 ", "10.0.0.0/8", "2001:db8::/32", "nonsense"]
        thing = balancer([{"ip": "203.0.113.7"}], loadBalancerSourceRanges=ranges)
        assert sources(thing, "TCP/203.0.113.7:80") == ["10.0.0.0/8", "192.0.2.0/24"]
        nobody = balancer([{"ip": "203.0.113.7"}], loadBalancerSourceRanges=["nonsense"])
        assert sources(nobody, "TCP/203.0.113.7:80") == []

    def test_where_the_node_is_let_in_its_connections_with_the_vip_as_source_are_too(self) -> None:
        thing = balancer(
            [{"ip": "203.0.113.7"}, {"ip": "203.0.113.8"}], loadBalancerSourceRanges=["192.168.0.0/24"]
        )
        assert sources(thing, "TCP/203.0.113.7:80") == ["192.168.0.0/24", "203.0.113.7/32", "203.0.113.8/32"]

    def test_each_family_has_its_own_ranges(self) -> None:
        thing = balancer(
            [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}],
            ip=["10.96.0.10", "fd00:10:96::10"],
            loadBalancerSourceRanges=["2001:db8:5::/48", "::/0", "10.0.0.0/8"],
        )
        assert sources(thing, "TCP/203.0.113.7:80") == ["10.0.0.0/8"]
        assert FrontendFlags.SOURCES not in compiled(thing)["TCP/[2001:db8::7]:80"].flags

    def test_a_wide_range_of_ipv6_lets_nobody_of_ipv4_in(self) -> None:
        thing = balancer(
            [{"ip": "2001:db8::7"}], ip="fd00:10:96::10", loadBalancerSourceRanges=["::/1", "fe00::/8"]
        )
        found = [ip_network(text) for text in sources(thing, "TCP/[2001:db8::7]:80")]
        assert not any(ip_address("::ffff:10.1.1.1") in network for network in found)
        for address in ("::1", "2001:db8::1", "::fffe:1", "::1:0:0:1", "7fff::1", "fe00::1"):
            assert any(ip_address(address) in network for network in found), address
        assert not any(ip_address("8000::1") in network for network in found)

    def test_an_address_that_is_both_external_and_the_balancers_is_filtered(self) -> None:
        thing = balancer(
            [{"ip": "203.0.113.7"}], loadBalancerSourceRanges=["10.0.0.0/8"], externalIPs=["203.0.113.7"]
        )
        assert sources(thing, "TCP/203.0.113.7:80") == ["10.0.0.0/8"]

    def test_source_ranges_do_not_filter_node_ports_and_external_ips(self) -> None:
        thing = balancer(
            [{"ip": "203.0.113.7"}],
            loadBalancerSourceRanges=["10.0.0.0/8"],
            externalIPs=["198.51.100.1"],
            ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        )
        found = compiled(thing)
        for name in ("TCP/198.51.100.1:80", "TCP/192.168.0.1:30080", "TCP/10.96.0.10:80"):
            assert (found[name].flags & FrontendFlags.SOURCES, found[name].sources) == (0, ())

    def test_external_ips_are_frontends_of_their_family(self) -> None:
        thing = service(externalIPs=["198.51.100.1", "2001:db8::1", "010.1.2.3", "nonsense"])
        assert set(compiled(thing)) == {"TCP/10.96.0.10:80", "TCP/198.51.100.1:80", "TCP/10.1.2.3:80"}

    def test_an_address_that_is_named_twice_is_one_frontend(self) -> None:
        thing = balancer([{"ip": "203.0.113.7"}], externalIPs=["203.0.113.7", "10.96.0.10"])
        assert set(compiled(thing)) == {"TCP/10.96.0.10:80", "TCP/203.0.113.7:80"}


EVERY_WAY: dict[str, Any] = {
    "type": "LoadBalancer",
    "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    "ingress": [{"ip": "203.0.113.7"}],
    "externalIPs": ["198.51.100.1"],
}
AT_NODE = ["TCP/10.244.1.1:30080", "TCP/192.168.0.1:30080"]
IN = ["TCP/198.51.100.1:80", "TCP/203.0.113.7:80", *AT_NODE]
"""Where arrivals from outside reach `service(**EVERY_WAY)`."""


class TestArrivalsFromOutside:
    def test_under_the_cluster_policy_they_are_treated_as_others_and_all_are_masqueraded(self) -> None:
        thing, slices = service(**EVERY_WAY), web(endpoint_json("10.244.1.2", "a"))
        assert from_outside(thing, slices) == {}
        found = compiled(thing, slices)
        assert {name: entry.flags for name, entry in found.items()} == {
            "TCP/10.96.0.10:80": FrontendFlags.NONE,
            "TCP/127.0.0.1:30080": CLUSTER,
            **dict.fromkeys(IN, CLUSTER),
        }

    def test_under_the_local_policy_they_find_this_nodes_endpoints_and_keep_their_address(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        slices = web(endpoint_json("10.244.1.2", "a"), endpoint_json("10.244.2.2", "b"))
        found = from_outside(thing, slices)
        assert sorted(found) == sorted(IN)
        for entry in found.values():
            assert ([str(b) for b in entry.backends], entry.flags) == (["10.244.1.2:8080"], LOCAL)
        inside = compiled(thing, slices)
        for name in IN:
            assert len(inside[name].backends) == 2
            assert inside[name].flags == LOCAL, "pods keep their address too"

    def test_they_never_come_to_loopback(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        assert "TCP/127.0.0.1:30080" in compiled(thing)
        assert "TCP/127.0.0.1:30080" not in from_outside(thing)

    def test_a_cluster_ip_has_no_external_policy(self) -> None:
        thing = service(externalTrafficPolicy="Local")
        assert from_outside(thing, web(endpoint_json("10.244.2.2", "b"))) == {}

    def test_under_the_local_policy_without_a_local_endpoint_they_are_dropped(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        found = from_outside(thing, web(endpoint_json("10.244.2.2", "b")))
        assert {(entry.backends, entry.flags) for entry in found.values()} == {((), FrontendFlags.DROP)}

    def test_under_the_local_policy_without_any_endpoint_they_are_refused(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        for slices in ([], [web(endpoint_json("10.244.1.2", "a", ready=False))]):
            found = from_outside(thing, *slices)
            assert sorted(found) == sorted(IN)
            assert {entry.flags for entry in found.values()} == {FrontendFlags.REFUSE}

    def test_the_local_set_falls_back_to_terminating_endpoints_while_others_are_ready_elsewhere(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        slices = web(
            endpoint_json("10.244.1.2", "a", ready=False, serving=True, terminating=True),
            endpoint_json("10.244.2.2", "b"),
        )
        at = "TCP/192.168.0.1:30080"
        assert [str(b) for b in from_outside(thing, slices)[at].backends] == ["10.244.1.2:8080"]
        assert [str(b) for b in compiled(thing, slices)[at].backends] == ["10.244.2.2:8080"]

    def test_the_cluster_set_falls_back_though_no_endpoint_is_local(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        slices = web(endpoint_json("10.244.2.2", "b", ready=False, serving=True, terminating=True))
        at = "TCP/192.168.0.1:30080"
        assert from_outside(thing, slices)[at].flags == FrontendFlags.DROP
        assert [str(b) for b in compiled(thing, slices)[at].backends] == ["10.244.2.2:8080"]

    def test_hints_hold_for_the_cluster_set_only(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local")
        slices = web(
            endpoint_json("10.244.1.2", "a", zones=["z2"]), endpoint_json("10.244.2.2", "b", zones=["z1"])
        )
        at = "TCP/192.168.0.1:30080"
        assert [str(b) for b in from_outside(thing, slices)[at].backends] == ["10.244.1.2:8080"]
        assert [str(b) for b in compiled(thing, slices)[at].backends] == ["10.244.2.2:8080"]

    def test_source_ranges_hold_for_them_too(self) -> None:
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local", loadBalancerSourceRanges=["10.0.0.0/8"])
        found = from_outside(thing, web(endpoint_json("10.244.1.2", "a")))
        assert {name for name, entry in found.items() if entry.flags & FrontendFlags.SOURCES} == {
            "TCP/203.0.113.7:80"
        }
        assert [str(p) for p in found["TCP/203.0.113.7:80"].sources] == ["10.0.0.0/8"]


class TestPortsThatAreNone:
    def test_what_is_at_no_port_of_a_cluster_ip_is_refused(self) -> None:
        rows, cluster_ips = compile_service(service(), [web(endpoint_json("10.244.1.2"))], NODE)
        (rest,) = [row for row in rows if row.key == REST]
        assert rest.entry == Entry((), "default/web:/ANY", FrontendFlags.REFUSE)
        assert (rest.external, cluster_ips) == (None, 2)

    def test_each_family_has_its_refusal(self) -> None:
        rows, _ = compile_service(service(ip=["10.96.0.10", "fd00:10:96::10"]), [], NODE)
        assert [str(row.key) for row in rows if not row.key.port] == [
            "ANY/10.96.0.10:0",
            "ANY/[fd00:10:96::10]:0",
        ]

    def test_other_addresses_of_a_service_have_none(self) -> None:
        rows, _ = compile_service(service(**EVERY_WAY), [], NODE)
        assert [row.key for row in rows if not row.key.port] == [REST]

    def test_a_cluster_ip_on_a_local_interface_has_none(self) -> None:
        node = NodeInfo("a", local_addresses=frozenset({ip_bytes("10.96.0.10")}))
        assert compile_service(service(), [], node) == ((), 0)


class TestAffinity:
    def test_client_ip_affinity_has_its_timeout_on_all_frontends_of_the_port(self) -> None:
        thing = service(
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
            externalIPs=["198.51.100.1"],
        )
        for entry in compiled(thing, web(endpoint_json("10.244.1.2"))).values():
            assert (entry.flags & ~CLUSTER, entry.affinity_timeout_s) == (FrontendFlags.AFFINITY, 60)
            assert entry.service == "default/web:http/TCP"

    def test_a_timeout_that_is_not_given_is_three_hours(self) -> None:
        (entry,) = compiled(service(sessionAffinity="ClientIP"), web(endpoint_json("10.244.1.2"))).values()
        assert entry.affinity_timeout_s == 10800

    def test_without_affinity_there_is_no_flag(self) -> None:
        (entry,) = compiled(service(), web(endpoint_json("10.244.1.2"))).values()
        assert (entry.flags, entry.affinity_timeout_s) == (FrontendFlags.NONE, 0)


class TestOddInput:
    """The API server lets hardly any of it pass; what is older than its checks must do no harm."""

    def test_a_slice_may_have_a_thousand_endpoints(self) -> None:
        ends = [endpoint_json(f"10.244.{n >> 8}.{n & 255}", "a" if n % 10 == 0 else "b") for n in range(1000)]
        thing = service(**EVERY_WAY, externalTrafficPolicy="Local", internalTrafficPolicy="Local")
        found, outside = compiled(thing, web(*ends)), from_outside(thing, web(*ends))
        assert len(found["TCP/192.168.0.1:30080"].backends) == 1000
        assert len(found["TCP/10.96.0.10:80"].backends) == 100
        assert len(outside["TCP/192.168.0.1:30080"].backends) == 100

    def test_an_endpoint_that_is_there_twice_in_one_slice_counts_once(self) -> None:
        assert landing(service(), web(endpoint_json("10.244.1.2"), endpoint_json("10.244.1.2"))) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080"]
        }

    def test_a_slice_that_names_a_port_twice_counts_each_number_once(self) -> None:
        ports = [
            {"name": "http", "port": 8080},
            {"name": "http", "port": 8080},
            {"name": "http", "port": 8081},
        ]
        assert landing(service(), web(endpoint_json("10.244.1.2"), ports=ports)) == {
            "TCP/10.96.0.10:80": ["10.244.1.2:8080", "10.244.1.2:8081"]
        }

    @pytest.mark.parametrize("number", [0, -1, 65536, 1 << 40])
    def test_numbers_that_are_no_ports_are_none(self, number: int) -> None:
        thing = service(type="NodePort", ports=[{"name": "http", "port": number, "nodePort": 30080}])
        assert compiled(thing, web(endpoint_json("10.244.1.2"))) == {}
        thing = service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": number}])
        slices = web(endpoint_json("10.244.1.2"), ports=[{"name": "http", "port": number}])
        assert landing(thing, slices) == {"TCP/10.96.0.10:80": []}

    @pytest.mark.parametrize(
        ("seconds", "counts"), [(0, 10800), (-5, 10800), (86400, 86400), (1 << 40, 86400)]
    )
    def test_an_affinity_is_never_longer_than_a_day(self, seconds: int, counts: int) -> None:
        config = {"clientIP": {"timeoutSeconds": seconds}}
        (entry,) = compiled(service(sessionAffinity="ClientIP", sessionAffinityConfig=config)).values()
        assert entry.affinity_timeout_s == counts

    @pytest.mark.parametrize(
        "address", ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "::", "::1", "fe80::1"]
    )
    def test_addresses_that_mean_something_on_every_machine_are_nobodys_frontend(self, address: str) -> None:
        thing = service(
            type="LoadBalancer",
            ip=["10.96.0.10", "fd00::a"],
            externalIPs=[address],
            ingress=[{"ip": address}],
        )
        assert set(compiled(thing)) == {"TCP/10.96.0.10:80", "TCP/[fd00::a]:80"}
        assert {oddity.reason for oddity in thing.oddities} == {"InvalidAddress"}

    def test_two_cluster_ips_of_one_family_are_one(self) -> None:
        assert set(compiled(service(ip=["10.96.0.10", "10.96.0.11"]))) == {"TCP/10.96.0.10:80"}

    def test_a_service_may_name_one_port_twice(self) -> None:
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 80}]
        slices = web(endpoint_json("10.244.1.2"), ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        assert list(compiled(service(ports=ports), slices)) == ["TCP/10.96.0.10:80"]


def test_backends_are_sorted_and_local_and_remote_ones_mixed() -> None:
    slices = web(
        endpoint_json("10.244.2.9", "b"), endpoint_json("10.244.1.2", "a"), endpoint_json("10.244.2.1", "b")
    )
    (entry,) = compiled(service(), slices).values()
    assert list(entry.backends) == sorted(entry.backends)
    assert len(entry.backends) == 3
