"""Which of nft's rules before kube-proxy's DNAT our programs would be ahead of, as nft itself prints them."""

import json
from typing import Any

import pytest
from handover_agent.bypassed import bypassed
from handover_agent.bypassed.nft import hooked
from handover_agent.bypassed.nftchains import Base, early

from .setting import INTERNAL, KEEPS_CLIENT, SAMPLES, WEB, spans

pytestmark = pytest.mark.unit


def sample(name: str) -> list[dict[str, Any]]:
    """Recorded objects."""
    objects: list[dict[str, Any]] = json.loads((SAMPLES / name).read_text())["nftables"]
    return objects


def verdicts(name: str) -> list[Any]:
    """The one map that has them."""
    (elements,) = [each["map"]["elem"] for each in sample("verdicts.json") if "map" in each]
    assert name == "verdicts"
    return list(elements)


EARLY = {base.name: base for base in early((SAMPLES / "chains.txt").read_text())}
TEXT = (SAMPLES / "before.txt").read_text()


def found(name: str, *services: Any) -> list[str]:
    """What is told of a base chain."""
    base = hooked(EARLY[name], sample("before.json"), TEXT, verdicts)
    return [each.rule for each in bypassed([base], spans(*services))]


@pytest.mark.parametrize("name", [name for name in EARLY if name.startswith("told_")])
def test_rules_that_decide_by_where_packets_for_services_go_are_told_of(name: str) -> None:
    assert len(found(name, WEB, KEEPS_CLIENT)) == 1
    assert found(name, INTERNAL) == []


@pytest.mark.parametrize("name", [name for name in EARLY if name.startswith("left_")])
def test_other_rules_are_not(name: str) -> None:
    assert found(name, WEB, KEEPS_CLIENT) == []


def test_a_chain_is_early_if_it_comes_before_kube_proxys() -> None:
    assert len(EARLY) == 18
    assert not {"late", "input", "others"} & EARLY.keys()
    assert [name for name, base in EARLY.items() if base.drops] == ["told_exception"]


@pytest.mark.parametrize(
    ("family", "hook", "expected"),
    [
        ("netdev", 'ingress device "eth0" priority 0; policy accept;', True),
        ("netdev", 'ingress devices = { "lo", "eth0" } priority 0; policy accept;', True),
        ("netdev", "ingress devices = { eth0, eth1 } priority -500; policy accept;", True),
        ("netdev", "ingress priority 0; policy accept;", True),
        ("inet", 'ingress device "eth0" priority 0; policy accept;', True),
        ("netdev", 'ingress device "lo" priority 0; policy accept;', False),
        ("netdev", 'egress device "eth0" priority 0; policy accept;', False),
        ("ip", "prerouting priority -101; policy accept;", True),
        ("ip", "prerouting priority -100; policy accept;", False),
        ("ip6", "prerouting priority 0; policy accept;", False),
        ("bridge", "prerouting priority -300; policy accept;", False),
        ("arp", "input priority -300; policy accept;", False),
    ],
)
def test_hooks_that_packets_from_outside_meet_before(family: str, hook: str, expected: bool) -> None:
    text = f'table {family} t {{\n\tchain c {{\n\t\tcomment "it"\n\t\ttype filter hook {hook}\n\t}}\n}}\n'
    assert list(early(text)) == ([Base(family, "t", "c")] if expected else [])


def test_a_rule_is_told_as_nft_prints_it_without_what_changes_by_itself() -> None:
    assert found("told_range", WEB) == [
        'told_range: ip saddr != @inside tcp dport 30000-32767 counter drop comment "from outside # no"'
    ]
    assert found("told_exception", WEB) == ["told_exception: policy drop"]
    assert found("told_jump", WEB) == ["others: ip saddr != 10.0.0.0/8 drop"]


def test_a_rule_whose_text_is_not_there_is_told_by_its_handle() -> None:
    base = hooked(EARLY["told_negated"], sample("before.json"), "", verdicts)
    (rule,) = bypassed([base], spans(WEB))
    assert rule.place == "nft inet fw"
    assert "rule with handle" in rule.rule


def alone(*expr: Any) -> list[str]:
    """What is told of one rule in a base chain."""
    common = {"family": "inet", "table": "t"}
    objects = [
        {"rule": common | {"chain": "c", "handle": 7, "expr": list(expr)}},
        {"rule": common | {"chain": "c", "handle": 8}},
    ]
    base = hooked(Base("inet", "t", "c"), objects, "", verdicts)
    return [each.rule for each in bypassed([base], spans(WEB))]


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ({"payload": {"base": "th", "offset": 16, "len": 16}}, 30080, True),
        ({"payload": {"base": "th", "offset": 0, "len": 16}}, 30080, False),
        ({"payload": {"protocol": "tcp", "field": "sport"}}, 30080, False),
        ({"payload": {"tunnel": "vxlan", "protocol": "tcp", "field": "dport"}}, 30080, False),
        ({"&": [{"payload": {"protocol": "ip", "field": "daddr"}}, "255.255.255.0"]}, "192.0.2.0", True),
        ({"&": [{"meta": {"key": "mark"}}, 255]}, 1, False),
        ({"socket": {"key": "mark"}}, 1, False),
        ({"ct": {"key": "state"}}, ["new"], False),
        ({"fib": {"result": "oif", "flags": ["daddr", "iif"]}}, False, True),
        ("something", 1, False),
    ],
    ids=str,
)
def test_what_a_match_may_look_like(left: Any, right: Any, told: bool) -> None:
    match = {"match": {"op": "==", "left": left, "right": right}}
    assert alone(match, {"drop": None}) == (["c: rule with handle 7"] if told else [])


def test_calicos_policies_in_its_own_table_are_told_of() -> None:
    policy = "mangle-cali-pi-default.allow"
    rules = [
        ("mangle-PREROUTING", [{"jump": {"target": policy}}]),
        (policy, [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}]),
        (policy, [{"return": None}]),
    ]
    common = {"family": "ip", "table": "calico"}
    objects = [
        {"rule": common | {"chain": chain, "handle": handle, "expr": expr}}
        for handle, (chain, expr) in enumerate(rules)
    ]
    base = hooked(Base("ip", "calico", "mangle-PREROUTING"), objects, "", verdicts)
    (rule,) = bypassed([base], spans(WEB))
    assert rule.rule == f"{policy}: rule with handle 1"
