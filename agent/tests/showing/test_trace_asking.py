"""What may be asked of `trace`, and what is said of what may not."""

import pytest
from handover_agent.showing.command import CannotShow, WrongUsage
from handover_agent.showing.frontends import Held
from handover_agent.showing.trace.asking import Origin, parse_from, parse_target
from handover_agent.showing.trace.cluster import Seen, service_candidates
from handover_agent.showing.trace.destination import find, settle
from handover_agent.showing.trace.dns import Answer
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Protocol,
    Scope,
    ip_bytes,
    ip_text,
)
from tests.fakes.objects import service, service_json

pytestmark = pytest.mark.unit

TCP, UDP = Protocol.TCP, Protocol.UDP
DNS = Backend(ip_bytes("10.96.0.10"), 53)


def held(name: str, address: str, port: int, protocol: Protocol = TCP, scope: Scope = Scope.INTERNAL) -> Held:
    flags = FrontendFlags.REFUSE if protocol is Protocol.ANY else FrontendFlags.NONE
    return Held(
        name, FrontendKey(ip_bytes(address), port, protocol, scope), FrontendValue(0, 0, 1, flags), ()
    )


KERNEL = [
    held("kube-system/kube-dns:dns-tcp/TCP", "10.96.0.10", 53),
    held("kube-system/kube-dns:dns/UDP", "10.96.0.10", 53, UDP),
    held("kube-system/kube-dns:metrics/TCP", "10.96.0.10", 9153),
    held("kube-system/kube-dns:/ANY", "10.96.0.10", 0, Protocol.ANY),
    held("default/web:http/TCP", "192.0.2.1", 30080),
    held("default/web:http/TCP", "192.0.2.1", 30080, TCP, Scope.EXTERNAL),
]


@pytest.mark.parametrize(
    ("text", "protocol", "address", "name", "service_", "port", "port_name"),
    [
        ("10.96.0.10:53", None, "10.96.0.10", "", "", 53, ""),
        ("UDP/10.96.0.10:53", UDP, "10.96.0.10", "", "", 53, ""),
        ("[fd00::a]:53", None, "fd00::a", "", "", 53, ""),
        ("TCP/[fd00::a]:53", TCP, "fd00::a", "", "", 53, ""),
        ("fd00::a", None, "fd00::a", "", "", None, ""),
        ("10.96.0.10", None, "10.96.0.10", "", "", None, ""),
        ("web", None, None, "web", "", None, ""),
        ("Web.Shop:http", None, None, "web.shop", "", None, "http"),
        ("web.shop.svc.cluster.local.:80", None, None, "web.shop.svc.cluster.local.", "", 80, ""),
        ("shop/web:80", None, None, "", "shop/web", 80, ""),
        ("sctp/shop/web:80", Protocol.SCTP, None, "", "shop/web", 80, ""),
        ("tcp/web:80", TCP, None, "web", "", 80, ""),
    ],
)
def test_whatever_is_shown_elsewhere_can_be_asked(
    text: str,
    protocol: Protocol | None,
    address: str | None,
    name: str,
    service_: str,
    port: int | None,
    port_name: str,
) -> None:
    target = parse_target(text)
    assert (target.protocol, target.name, target.service) == (protocol, name, service_)
    assert (target.port, target.port_name) == (port, port_name)
    assert (ip_text(target.address) if target.address else None) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither an address nor a name"),
        ("10.96.0:80", "neither an address nor a name"),
        ("10.96.0.300:80", "neither an address nor a name"),
        ("10.96.0.10:", "the port is missing behind the colon"),
        ("10.96.0.10:0", "0 is no port; give 1 to 65535"),
        ("10.96.0.10:70000", "70000 is no port"),
        ("10.96.0.10:http", "the port of an address is a number"),
        ("10.96.0.10:-1", "neither a port's number nor its name"),
        ("[fd00::a:53", "bracket of an IPv6 address is not closed"),
        ("[fd00::a]53", "bracket of an IPv6 address is not closed"),
        ("http://web/", "is a URL: leave out its scheme"),
        ("web; reboot", "neither an address nor a name"),
        ("a/b/c", "neither an address nor a name"),
        ("UDP/10.96.0.10:53 ", None),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_would_be_right(text: str, says: str | None) -> None:
    if says is None:
        assert parse_target(text).port == 53
        return
    with pytest.raises(WrongUsage, match=says) as wrong:
        parse_target(text)
    assert repr(text) in str(wrong.value)


def test_two_protocols_that_differ_are_not_guessed_between() -> None:
    assert parse_target("10.96.0.10:53", "udp").protocol is UDP
    with pytest.raises(WrongUsage, match="says TCP, --protocol says UDP"):
        parse_target("TCP/10.96.0.10:53", "udp")


def test_a_connection_starts_at_the_node_a_pod_or_an_address() -> None:
    assert parse_from("").origin is parse_from("node").origin is Origin.NODE
    assert parse_from("shop/cart-1").pod == "shop/cart-1"
    assert parse_from("cart-1").pod == "default/cart-1"
    assert parse_from("[fd00::9]").address == ip_bytes("fd00::9")
    with pytest.raises(WrongUsage, match="a pod of this node"):
        parse_from("10.0.0.999")


@pytest.mark.parametrize(
    ("name", "services"),
    [
        ("web", [("shop", "web")]),
        ("web.prod", [("prod", "web")]),
        ("web.prod.svc", [("prod", "web")]),
        ("web.prod.svc.cluster.local", [("prod", "web")]),
        ("web.prod.svc.cluster.local.", [("prod", "web")]),
        ("pod-0.web.prod.svc.cluster.local", []),
        ("www.example.org", []),
    ],
)
def test_a_name_means_a_service_as_a_pods_resolver_would_have_it(
    name: str, services: list[tuple[str, str]]
) -> None:
    assert service_candidates(name, "shop", "cluster.local") == services


def test_one_port_alone_need_not_be_named() -> None:
    found = settle(parse_target("192.0.2.1"), Seen(), None, KERNEL)
    assert str(found) == "TCP/192.0.2.1:30080"


def test_of_several_ports_one_must_be_asked_for_and_they_are_listed() -> None:
    with pytest.raises(WrongUsage) as wrong:
        settle(parse_target("10.96.0.10"), Seen(), None, KERNEL)
    assert (
        "has not one port alone; it has TCP/10.96.0.10:53 (dns-tcp), TCP/10.96.0.10:9153 (metrics), "
        "UDP/10.96.0.10:53 (dns): ask for one of these"
    ) in str(wrong.value)


def test_where_two_protocols_would_do_the_other_one_is_told_of() -> None:
    found = settle(parse_target("10.96.0.10:53"), Seen(), None, KERNEL)
    assert (found.protocol, found.others) == (TCP, ("UDP/10.96.0.10:53",))
    assert settle(parse_target("UDP/10.96.0.10:53"), Seen(), None, KERNEL).others == ()


def test_a_ports_name_is_looked_up_in_the_service() -> None:
    web = service_json("shop/web", "10.96.7.7")
    seen = Seen(service=service("shop/web", "10.96.7.7"), raw=web)
    found = settle(parse_target("shop/web:http"), seen, None, [])
    assert str(found) == "TCP/10.96.7.7:80"
    with pytest.raises(WrongUsage, match=r"has not port 'grpc'; it has TCP/shop/web:80 \(http\)"):
        settle(parse_target("shop/web:grpc"), seen, None, [])


def test_a_port_without_a_service_behind_it_can_be_asked_for() -> None:
    assert str(settle(parse_target("10.96.0.10:81"), Seen(), None, KERNEL)) == "TCP/10.96.0.10:81"


def test_a_name_without_an_address_says_who_was_asked() -> None:
    answer = Answer(DNS, "web.default.svc.cluster.local", problem="no such name")
    seen = Seen(missing=("Service default/web",))
    with pytest.raises(CannotShow) as cannot:
        settle(parse_target("web"), seen, answer, [])
    assert "the API server has no Service default/web" in str(cannot.value)
    assert "the cluster's DNS says of web.default.svc.cluster.local: no such name" in str(cannot.value)


def test_without_api_server_and_dns_a_service_is_found_in_the_maps() -> None:
    seen = Seen(problem="nobody answers")
    assert (
        str(settle(parse_target("kube-system/kube-dns:metrics"), seen, None, KERNEL)) == "TCP/10.96.0.10:9153"
    )


def test_from_outside_the_frontend_for_it_goes_first_and_what_is_no_port_last() -> None:
    node_port = settle(parse_target("192.0.2.1:30080"), Seen(), None, KERNEL)
    for outside, scope in ((True, Scope.EXTERNAL), (False, Scope.INTERNAL)):
        found = find(node_port, KERNEL, outside)
        assert found is not None
        assert found.key.scope is scope
    other = find(settle(parse_target("10.96.0.10:81"), Seen(), None, KERNEL), KERNEL, True)
    assert other is not None
    assert other.rest
    assert find(settle(parse_target("10.0.0.1:81"), Seen(), None, KERNEL), KERNEL, True) is None
