"""Where NodePorts are is read from the rules that kube-proxy 1.36 writes for its nodePortAddresses."""

import pytest
from handover_agent.kubeproxy.iptables import Family, Source, Variant
from handover_agent.kubeproxy.nodeports import NodePortPlaces, by_name, places
from handover_agent.kubeproxy.rulesets import parse
from tests.kubeproxy.test_parity import SAMPLES

pytestmark = pytest.mark.unit

LAST = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'


def iptables(*families: tuple[Family, list[str]]) -> NodePortPlaces | None:
    """What rules in KUBE-SERVICES say."""
    rulesets = {}
    for family, rules in families:
        lines = ["*nat", ":PREROUTING ACCEPT [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-SERVICES - [0:0]"]
        lines += [
            "-A PREROUTING -j KUBE-SERVICES",
            *(f"-A KUBE-SERVICES {rule}" for rule in rules),
            "COMMIT",
            "",
        ]
        rulesets[Source(Variant.NFT, family)] = parse("\n".join(lines))
    return places(rulesets, {})


def nft(**elements: str) -> NodePortPlaces | None:
    """What tables with these elements in `nodeport-ips` say."""
    rule = "\t\tip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n"
    tables = {
        (family, "kube-proxy"): f"\tset nodeport-ips {{\n\t\ttype x\n{text}\t}}\n{rule}"
        for family, text in elements.items()
    }
    return places(
        {}, {table: f"table {table[0]} kube-proxy {{\n{text}}}\n" for table, text in tables.items()}
    )


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_kube_proxys_iptables_rules_say_everywhere_and_localhost(variant: str) -> None:
    rulesets = {
        Source(Variant(variant), family): parse((SAMPLES / f"{name}-{variant}.save").read_text())
        for family, name in ((Family.IPV4, "iptables"), (Family.IPV6, "ip6tables"))
    }
    assert places(rulesets, {}) == NodePortPlaces((), localhost=True)


def test_kube_proxys_nft_tables_name_the_addresses() -> None:
    tables = {(family, "kube-proxy"): (SAMPLES / f"{family}.nft").read_text() for family in ("ip", "ip6")}
    found = places({}, tables)
    assert found is not None
    assert "192.0.2.10/32" in found.addresses
    assert not found.localhost


def test_localhost_may_be_shut_out() -> None:
    shut = f"! -d 127.0.0.0/8 {LAST} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    assert iptables((Family.IPV4, [shut])) == NodePortPlaces((), localhost=False)


def test_addresses_that_are_named_are_all_there_are() -> None:
    named = [f"-d {ip} {LAST} -j KUBE-NODEPORTS" for ip in ("192.0.2.10/32", "127.0.0.1/32")]
    everywhere = f"! -d ::1/128 {LAST} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    assert iptables((Family.IPV4, named), (Family.IPV6, [everywhere])) == NodePortPlaces(
        ("127.0.0.1/32", "192.0.2.10/32"), localhost=True
    )
    assert iptables((Family.IPV4, named[:1])) == NodePortPlaces(("192.0.2.10/32",), localhost=False)


def test_an_empty_set_is_nowhere_and_many_elements_are_many() -> None:
    assert nft(ip="") == NodePortPlaces(("0.0.0.0/32",), localhost=False)
    assert nft(
        ip="\t\telements = { 192.0.2.10, 10.0.0.1,\n\t\t\t     10.0.0.2 }\n", ip6=""
    ) == NodePortPlaces(("10.0.0.1/32", "10.0.0.2/32", "192.0.2.10/32", "::/128"), localhost=False)


def test_a_table_without_the_set_means_everywhere() -> None:
    rule = (
        "\t\tfib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports\n"
    )
    found = places({}, {("ip", "kube-proxy"): f"table ip kube-proxy {{\n{rule}}}\n"})
    assert found == NodePortPlaces((), localhost=False)


def test_without_rules_nothing_is_known() -> None:
    assert places({}, {}) is None
    assert iptables((Family.IPV4, [])) is None


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (("192.0.2.10/32", "2001:db8::10/128"), ("primary",)),
        (("192.0.2.10/32",), ("primary",)),
        (("192.0.2.10/32", "10.0.0.1/32"), ("192.0.2.10/32", "10.0.0.1/32")),
        (("192.0.2.10/32", "2001:db8::10/128", "0.0.0.0/32"), ("primary",)),
        ((), ()),
    ],
)
def test_the_nodes_primary_addresses_are_called_so(addresses: tuple[str, ...], said: tuple[str, ...]) -> None:
    found = by_name(NodePortPlaces(addresses, localhost=False), ["192.0.2.10", "2001:DB8::10"])
    assert found == NodePortPlaces(said, localhost=False)
