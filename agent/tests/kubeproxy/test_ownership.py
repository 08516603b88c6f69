"""What counts as kube-proxy's, on its recorded rules and on look-alikes."""

from pathlib import Path

import pytest
from handover_agent.kubeproxy.ownership import Owned, owned, owns_chain, owns_jump
from handover_agent.kubeproxy.rulesets import Rule, Rules, parse

pytestmark = pytest.mark.unit
SAMPLES = Path(__file__).parent / "samples"
FILES = [f"{tool}-{variant}.save" for tool in ("iptables", "ip6tables") for variant in ("nft", "legacy")]
every_sample = pytest.mark.parametrize("sample", FILES)


def sample_tables(sample: str) -> dict[str, Rules]:
    return parse((SAMPLES / sample).read_text())


def nat(*lines: str) -> Owned:
    """What is owned in a nat table with these chains (as `:NAME`) and rules."""
    built_in = [f":{name} ACCEPT [0:0]" for name in ("PREROUTING", "OUTPUT", "POSTROUTING")]
    chains = [f"{line} - [0:0]" for line in lines if line[0] == ":"]
    rules = [line for line in lines if line[0] == "-"]
    return owned(parse("\n".join(["*nat", *built_in, *chains, *rules, "COMMIT"]))["nat"])


JUMP = '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
PAIR = (
    ":KUBE-MARK-MASQ",
    ":KUBE-POSTROUTING",
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
)


@every_sample
def test_of_recorded_rules_only_what_kubelet_also_writes_is_not_kube_proxys(sample: str) -> None:
    for name, table in sample_tables(sample).items():
        mine = owned(table)
        others = [c for c, chain in table.chains.items() if chain.policy is None and c not in mine.delete]
        assert others == (["KUBE-FIREWALL"] if name == "filter" else [])
        assert mine.empty == mine.shared == ()
        built_in = [
            rule for chain in table.chains.values() if chain.policy is not None for rule in chain.rules
        ]
        assert [rule.target for rule in built_in if rule not in mine.jumps] == (
            ["KUBE-FIREWALL"] * 2 if name == "filter" else []
        )


@pytest.mark.parametrize(
    ("table", "chain"),
    [
        ("mangle", "KUBE-IPTABLES-HINT"),
        ("mangle", "KUBE-KUBELET-CANARY"),
        ("nat", "KUBE-KUBELET-CANARY"),
        ("filter", "KUBE-FIREWALL"),
        ("nat", "KUBE-MARK-DROP"),
        ("nat", "KUBE-SVC-MINE"),
        ("nat", "KUBE-SVC-AAAAAAAAAAAAAAAAA"),
        ("nat", "KUBE-SVC-aaaaaaaaaaaaaaaa"),
        ("filter", "KUBE-SVC-AAAAAAAAAAAAAAAA"),
        ("filter", "KUBE-POSTROUTING"),
        ("raw", "KUBE-SERVICES"),
        ("nat", "KUBE-ROUTER-SERVICES"),
        ("nat", "CNI-HOSTPORT-DNAT"),
    ],
)
def test_chains_that_look_similar_are_not_kube_proxys(table: str, chain: str) -> None:
    assert not owns_chain(table, chain)


@pytest.mark.parametrize("prefix", ["SVC", "SVL", "SEP", "EXT", "FW", "XLB"])
def test_chains_with_a_hash_are_kube_proxys(prefix: str) -> None:
    assert owns_chain("nat", f"KUBE-{prefix}-ABCDEFGHIJKL2345")


@pytest.mark.parametrize(
    "text",
    [
        '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES -p tcp',
        '-p tcp -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-m comment --comment "kubernetes service portals" -g KUBE-SERVICES',
        '-m comment --comment "Kubernetes service portals" -j KUBE-SERVICES',
        "-j KUBE-SERVICES",
        '-m comment --comment "kubernetes service portals -j KUBE-SERVICES" -j ACCEPT',
    ],
)
def test_a_jump_of_another_form_is_somebody_elses(text: str) -> None:
    assert not owns_jump("nat", Rule("PREROUTING", text))


def test_the_order_of_a_jumps_parts_does_not_matter() -> None:
    new, comment = "-m conntrack --ctstate NEW", '-m comment --comment "kubernetes service portals"'
    for text in (f"{new} {comment} -j KUBE-SERVICES", f"{comment} {new} -j KUBE-SERVICES"):
        assert owns_jump("filter", Rule("FORWARD", text))


def test_the_same_jump_from_another_chain_is_somebody_elses() -> None:
    assert not owns_jump("nat", Rule("POSTROUTING", JUMP.partition("PREROUTING ")[2]))


def test_a_chain_that_somebody_elses_rule_jumps_to_is_emptied_and_not_deleted() -> None:
    mine = nat(":KUBE-SERVICES", ":USER", JUMP, "-A USER -j KUBE-SERVICES")
    assert mine.empty == ("KUBE-SERVICES",)
    assert mine.delete == ()
    assert len(mine.jumps) == 1


def test_kube_proxys_own_rules_do_not_keep_the_masquerade_chains() -> None:
    mine = nat(*PAIR, ":KUBE-SEP-AAAAAAAAAAAAAAAA", "-A KUBE-SEP-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ")
    assert set(mine.delete) == {"KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-SEP-AAAAAAAAAAAAAAAA"}
    assert len(mine.jumps) == 1


def test_a_cni_plugin_that_marks_for_masquerade_keeps_both_chains_and_the_jump() -> None:
    mine = nat(*PAIR, ":CNI-DN-1", "-A CNI-DN-1 -j KUBE-MARK-MASQ")
    assert mine.shared == ("KUBE-MARK-MASQ", "KUBE-POSTROUTING")
    assert mine.delete == mine.empty == ()
    assert mine.jumps == ()


def test_an_old_kubelet_keeps_the_masquerade_chains_too() -> None:
    assert nat(*PAIR, ":KUBE-MARK-DROP").shared == ("KUBE-MARK-MASQ", "KUBE-POSTROUTING")
