"""Others' rules before kube-proxy's DNAT, as the tools of this machine write them and the agent reads them."""

from collections.abc import Iterator, Sequence

import pytest
from handover_agent.bypassed import bypassed, outside, read
from handover_agent.compile import NodeInfo
from handover_agent.kubeproxy import inspect
from handover_agent.table import ip_bytes
from tests.fakes.objects import service
from tests.kubeproxy import cluster
from tests.node import rules
from tests.node.netns import Namespace, run

pytestmark = pytest.mark.node

NODE = NodeInfo("n1", local_addresses=frozenset({ip_bytes(cluster.NODE_V4), ip_bytes(cluster.NODE_V6)}))
WEB = service(
    "shop/web",
    ["10.96.0.10", "fd00::10"],
    [{"name": "http", "port": 80, "nodePort": 30080}],
    type="NodePort",
)
FIREWALL = ("-p", "tcp", "-m", "tcp", "--dport", "30000:32767", "-j", "DROP")
HARMLESS: Sequence[tuple[str, ...]] = (
    ("-p", "tcp", "-m", "tcp", "--dport", "22", "-j", "DROP"),
    ("-s", "198.51.100.0/24", "-j", "DROP"),
    ("-p", "udp", "-m", "udp", "--dport", "4789", "-j", "NOTRACK"),
)


def found() -> list[str]:
    """What the agent would tell, as place and rule."""
    early = read(inspect().rulesets)
    return [f"{each.place}, {each.rule}" for each in bypassed(early, outside([WEB], NODE))]


@pytest.fixture
def firewall() -> Iterator[str]:
    """One in a table of nft."""
    yield """table inet firewall {
        set friends { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }
        chain raw { type filter hook prerouting priority raw; tcp dport 30000-32767 jump strangers; }
        chain strangers { ip saddr != @friends counter drop; }
    }"""


@pytest.mark.parametrize("mode", rules.MODES)
def test_kube_proxys_own_rules_are_none_of_them(node: Namespace, mode: str) -> None:
    rules.load(mode)
    rules.load_foreign(mode)
    assert found() == []


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("table", ["raw", "mangle"])
@pytest.mark.parametrize(("tool", "family"), [("iptables", "ipv4"), ("ip6tables", "ipv6")])
def test_a_firewall_of_iptables_is_found_among_harmless_rules(
    node: Namespace, variant: str, table: str, tool: str, family: str
) -> None:
    rules.require(f"iptables-{variant}")
    for rule in HARMLESS:
        if family == "ipv4" or "-s" not in rule:
            where = "raw" if "NOTRACK" in rule else table
            run(f"{tool}-{variant}", "-t", where, "-A", "PREROUTING", *rule)
    assert found() == []
    run(f"{tool}-{variant}", "-t", table, "-N", "FIREWALL")
    run(f"{tool}-{variant}", "-t", table, "-A", "FIREWALL", *FIREWALL)
    assert found() == []
    run(f"{tool}-{variant}", "-t", table, "-A", "PREROUTING", "-i", "eth0", "-j", "FIREWALL")
    assert found() == [f"iptables-{variant} {family} {table}, FIREWALL: {' '.join(FIREWALL)}"]


def test_a_firewall_of_nft_is_found_and_told_without_its_counter(node: Namespace, firewall: str) -> None:
    run("nft", "-f", "-", given=firewall)
    assert found() == ["nft inet firewall, strangers: ip saddr != @friends counter drop"]
    run("nft", "delete", "table", "inet", "firewall")
    assert found() == []


def test_a_firewall_of_nft_at_a_device_is_found(node: Namespace, uplink: Namespace) -> None:
    chain = "type filter hook ingress device {} priority 0; tcp dport 30080 drop;"
    run("nft", "-f", "-", given=f"table netdev early {{ chain in {{ {chain.format('lo')} }}; }}")
    assert found() == []
    run("nft", "-f", "-", given=f"table netdev early {{ chain eth {{ {chain.format('eth0')} }}; }}")
    assert found() == ["nft netdev early, eth: tcp dport 30080 drop"]


def test_nft_rules_in_a_table_that_iptables_cannot_show_are_found(node: Namespace) -> None:
    run("iptables-nft", "-t", "raw", "-A", "PREROUTING", *HARMLESS[0])
    rule = ("fib", "daddr", "type", "local", "tcp", "dport", "30080", "drop")
    run("nft", "add", "rule", "ip", "raw", "PREROUTING", *rule)
    assert "incompatible" in run("iptables-nft-save")
    assert found() == [f"nft ip raw, PREROUTING: {' '.join(rule)}"]


def test_a_named_map_of_verdicts_is_read(node: Namespace) -> None:
    table = """table ip fw {{
        map ports {{ type inet_service : verdict; elements = {{ {port} : drop }}; }}
        chain raw {{ type filter hook prerouting priority raw; tcp dport vmap @ports; }}
    }}"""
    run("nft", "-f", "-", given=table.format(port=22))
    assert found() == []
    run("nft", "delete", "table", "ip", "fw")
    run("nft", "-f", "-", given=table.format(port=30080))
    assert found() == ["nft ip fw, raw: tcp dport vmap @ports"]


def test_what_is_ours_is_none_of_them(node: Namespace) -> None:
    drop = "type filter hook prerouting priority raw; tcp dport 30080 drop;"
    for name in ("handover", "handover-path", "handover-moving"):
        run("nft", "-f", "-", given=f"table inet {name} {{ chain c {{ {drop} }}; }}")
    assert found() == []
