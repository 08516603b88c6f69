"""The transactions that take kube-proxy's part of a table away and put it back: text in, text out."""

from pathlib import Path

import pytest
from handover_agent.kubeproxy import forwarding
from handover_agent.kubeproxy.ownership import owned
from handover_agent.kubeproxy.restoring import merged, removal, restoration
from handover_agent.kubeproxy.rulesets import Rule, Rules, Unreadable, parse
from handover_agent.marks import Mark
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.unit
SAMPLES = Path(__file__).parent / "samples"
PORTALS = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'


def table(*lines: str) -> Rules:
    head = ["*nat", ":PREROUTING ACCEPT [7:8]", ":OUTPUT DROP [0:0]"]
    return parse("\n".join([*head, *lines, "COMMIT"]))["nat"]


def restored(recorded: Rules, now: Rules | None) -> str:
    return restoration(recorded, owned(recorded), now, owned(now) if now is not None else None)


def test_a_removal_empties_unlinks_and_deletes_and_names_no_built_in_chain_otherwise() -> None:
    full = table(":KUBE-SERVICES - [0:0]", f"-A PREROUTING {PORTALS}", "-A KUBE-SERVICES -p tcp -j RETURN")
    assert removal(owned(full)) == (
        f"*nat\n:KUBE-SERVICES - [0:0]\n-D PREROUTING {PORTALS}\n-X KUBE-SERVICES\nCOMMIT\n"
    )


def test_where_nothing_is_kube_proxys_there_is_no_transaction() -> None:
    empty = table("-A PREROUTING -p tcp -j RETURN")
    assert removal(owned(empty)) == restored(empty, empty) == ""


def test_a_restoration_puts_a_jump_back_behind_the_rule_that_it_followed() -> None:
    full = table(
        ":KUBE-SERVICES - [0:0]",
        "-A PREROUTING -p tcp -j RETURN",
        f"-A PREROUTING {PORTALS}",
        "-A PREROUTING -p udp -j RETURN",
        "-A KUBE-SERVICES -p tcp -j RETURN",
    )
    now = table(
        "-A PREROUTING -p sctp -j RETURN", *(f"-A PREROUTING -p {p} -j RETURN" for p in ("tcp", "udp"))
    )
    assert restored(full, now) == (
        "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -p tcp -j RETURN\n"
        f"-I PREROUTING 3 {PORTALS}\nCOMMIT\n"
    )


def test_what_is_as_recorded_is_not_written() -> None:
    full = table(":KUBE-SERVICES - [0:0]", f"-A PREROUTING {PORTALS}")
    assert restored(full, full) == ""


def test_chains_that_came_later_go() -> None:
    full = table(":KUBE-SERVICES - [0:0]")
    now = table(":KUBE-SERVICES - [0:0]", ":KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]", f"-A OUTPUT {PORTALS}")
    assert restored(full, now) == (
        f"*nat\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n-D OUTPUT {PORTALS}\n-X KUBE-SVC-AAAAAAAAAAAAAAAA\nCOMMIT\n"
    )


@pytest.mark.parametrize("sample", ["iptables-nft.save", "ip6tables-legacy.save"])
def test_recorded_rules_are_restored_completely_over_nothing(sample: str) -> None:
    for full in parse((SAMPLES / sample).read_text()).values():
        again = restored(full, None)
        for line in full.text.splitlines():
            if line.startswith("-A KUBE-") and "KUBE-FIREWALL" not in line:
                assert line in again
            if line.startswith("-A") and "-j KUBE-" in line and "kubernetes" in line:
                assert line.partition(" ")[2].partition(" ")[2] in again


rule = st.builds(Rule, st.just("INPUT"), st.sampled_from("abcdef"))
foreign = st.lists(rule, max_size=8)


@given(foreign, foreign, st.data())
def test_merging_never_changes_others_rules_or_their_order(
    before: list[Rule], current: list[Rule], data: st.DataObject
) -> None:
    jumps = [Rule("INPUT", f"jump {number}") for number in range(3)]
    recorded = list(before)
    for jump in jumps:
        recorded.insert(data.draw(st.integers(0, len(recorded))), jump)
    target = merged(recorded, jumps, current, [])
    assert [each for each in target if each not in jumps] == current
    assert [each for each in target if each in jumps] == [each for each in recorded if each in jumps]


@given(foreign, st.data())
def test_merging_into_what_a_flush_left_gives_what_was_recorded(
    before: list[Rule], data: st.DataObject
) -> None:
    jumps = [Rule("INPUT", f"jump {number}") for number in range(3)]
    recorded = list(before)
    for jump in jumps:
        recorded.insert(data.draw(st.integers(0, len(recorded))), jump)
    assert merged(recorded, jumps, before, []) == recorded


def forward_table(*rules: str, ours: tuple[str, ...] = ()) -> Rules:
    chains = [
        ":FORWARD DROP [0:0]",
        ":KUBE-FORWARD - [0:0]",
        *([":HANDOVER-FORWARD - [0:0]"] if ours else []),
    ]
    accept = "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    drop = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    return parse("\n".join(["*filter", *chains, *rules, drop, accept, *ours, "COMMIT"]))["filter"]


KUBE_FORWARD = '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'


def test_our_accepts_stand_right_behind_kube_proxys_and_are_not_its_drops() -> None:
    text = forwarding.addition(forward_table("-A FORWARD -j USER", KUBE_FORWARD, "-A FORWARD -j OTHER"))
    assert text.splitlines()[1:-1] == [
        ":HANDOVER-FORWARD - [0:0]",
        "-A HANDOVER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A HANDOVER-FORWARD -m mark --mark {Mark.OURS:#x}/{Mark.OURS:#x} -j ACCEPT",
        '-I FORWARD 3 -m comment --comment "handover: accept what KUBE-FORWARD accepted" -j HANDOVER-FORWARD',
    ]


def test_without_a_jump_to_kube_forward_nothing_is_added() -> None:
    assert forwarding.addition(forward_table("-A FORWARD -j KUBE-FORWARD")) == ""
    assert forwarding.addition(None) == ""


def bare_table(*rules: str) -> Rules:
    return parse("\n".join(["*filter", ":FORWARD DROP [0:0]", *rules, "COMMIT"]))["filter"]


RECORDED = forward_table("-A FORWARD -j USER", KUBE_FORWARD, "-A FORWARD -j OTHER")


@pytest.mark.parametrize(
    ("now", "place"),
    [
        (("-A FORWARD -j USER", "-A FORWARD -j OTHER"), 2),
        (("-A FORWARD -j NEW", "-A FORWARD -j USER", "-A FORWARD -j OTHER"), 3),
        (("-A FORWARD -j OTHER",), 1),
        ((), 1),
    ],
)
def test_once_kube_proxys_rules_are_gone_the_snapshot_says_what_was_accepted_and_where(
    now: tuple[str, ...], place: int
) -> None:
    text = forwarding.addition(bare_table(*now), RECORDED).splitlines()
    assert text[2] == "-A HANDOVER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    assert text[-2].startswith(f"-I FORWARD {place} ")
    assert text[-2].endswith("-j HANDOVER-FORWARD")


def test_what_stands_there_already_is_not_written_again() -> None:
    text = forwarding.addition(bare_table("-A FORWARD -j USER"), RECORDED)
    there = [line for line in text.splitlines() if line.startswith((":", "-A"))]
    jump = "-A FORWARD -j HANDOVER-FORWARD"
    chains, rules = there[:1], there[1:]
    table = parse(
        "\n".join(["*filter", ":FORWARD DROP [0:0]", *chains, "-A FORWARD -j USER", jump, *rules, "COMMIT"])
    )
    assert forwarding.addition(table["filter"], RECORDED) == ""


def test_a_snapshot_without_kube_forward_adds_nothing() -> None:
    assert forwarding.addition(bare_table(), bare_table("-A FORWARD -j USER")) == ""
    assert forwarding.addition(None, RECORDED) == ""


@pytest.mark.parametrize(
    "text", ["*nat\n", "nonsense\n", "*nat\n-A X -j Y\nCOMMIT\n", "*nat\n*filter\nCOMMIT\n", ":X - [0:0]\n"]
)
def test_text_that_iptables_save_does_not_print_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


def test_a_target_is_not_looked_for_in_comments() -> None:
    assert Rule("A", '-m comment --comment "say \\"-j NO\\" -j NO" -p tcp -j YES').target == "YES"
    assert Rule("A", '-m comment --comment "-j NO"').target == ""
    assert Rule("A", '-m comment --comment "a \\"b\\"" -j X').words == (
        "-m",
        "comment",
        "--comment",
        'a "b"',
        "-j",
        "X",
    )
