"""What the edge makes of the tools' answers that one does not see on every machine."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from handover_agent.kubeproxy import Inspection, Snapshot, ToolFailed, iptables, nftables, snapshot
from handover_agent.kubeproxy.command import bytes_of, run, text_of
from handover_agent.kubeproxy.iptables import Family, Incompatible, Source, Variant
from handover_agent.kubeproxy.nfacct import _request
from handover_agent.kubeproxy.rulesets import parse
from handover_api.nodemigration import Fault

pytestmark = pytest.mark.unit
NFT = Source(Variant.NFT, Family.IPV4)
ODD = b'-m comment --comment "caf\xe9 \xc2\x85 \xe2\x80\xa8 \r" -j ACCEPT'
"""A comment in Latin-1, with three ends of lines that are none: the kernel and its tools take it, and print it again."""
INCOMPATIBLE = "# Table `nat' is incompatible, use 'nft' tool.\n"


def answering(monkeypatch: pytest.MonkeyPatch, text: str, listing: str = "") -> None:
    monkeypatch.setattr(iptables, "run", lambda _: text)
    monkeypatch.setattr(nftables, "listing", lambda _: listing)


def failing(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def fails(command: tuple[str, ...]) -> str:
        raise ToolFailed(command, why)

    monkeypatch.setattr(iptables, "run", fails)


def test_a_table_of_somebody_elses_that_iptables_cannot_show_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, INCOMPATIBLE, "table ip nat {\n\tchain KUBE-SERVICES-OF-MINE {\n\t}\n}\n")
    assert iptables.read(NFT) == {}


def test_kube_proxys_chains_in_a_table_that_iptables_cannot_show_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, INCOMPATIBLE, "table ip nat {\n\tchain KUBE-SERVICES {\n\t}\n}\n")
    with pytest.raises(Incompatible, match="cannot show table nat"):
        iptables.read(NFT)


def test_a_kernel_without_nftables_has_no_such_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "iptables-nft-save: Failed to initialize nft: Protocol not supported")
    assert iptables.read(NFT) == {}


def test_any_other_failure_is_not_taken_for_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "Could not fetch rule set generation id: Permission denied (you must be root)")
    with pytest.raises(ToolFailed, match="Permission denied"):
        iptables.read(NFT)


def test_output_that_is_not_understood_is_an_error_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "*nat\nsurprise\n")
    with pytest.raises(ToolFailed, match="'surprise' is not iptables-save's"):
        iptables.read(NFT)


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ToolFailed, match=r"`no-such-tool -x` failed: the program is not installed"):
        run(("no-such-tool", "-x"))


def test_what_packets_change_in_an_nft_table_is_not_part_of_its_static_text() -> None:
    listing = (
        "table ip kube-proxy {\n\tset a {\n\t\ttype ipv4_addr\n\t\tsize 65535\n\t\tflags dynamic,timeout\n"
        "\t\ttimeout 3h\n%s\t}\n\tset b {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1 }\n\t}\n}\n"
    )
    some = "\t\telements = { 10.1.0.1 expires 2h59m57s,\n\t\t\t     10.1.0.2 expires 1s }\n"
    assert nftables.static(listing % some) == nftables.static(listing % "") == listing % ""


def test_what_a_tool_prints_is_what_it_is_given_byte_for_byte() -> None:
    printed = run(("cat",), text_of(ODD + b"\r\n"))
    assert bytes_of(printed) == ODD + b"\r\n"


def odd_rules() -> bytes:
    lines = [b"*filter", b":INPUT ACCEPT [0:0]", b":KUBE-FORWARD - [0:0]", b"-A INPUT " + ODD]
    return b"\n".join([*lines, b"-A KUBE-FORWARD " + ODD, b"COMMIT", b""])


def test_a_rule_in_no_text_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, text_of(odd_rules()))
    found = iptables.read(NFT)["filter"]
    assert [bytes_of(rule.text) for rule in found.rules] == [ODD, ODD]
    assert [rule.target for rule in found.rules] == ["ACCEPT", "ACCEPT"]
    assert bytes_of(found.text) == odd_rules()


def test_a_snapshot_keeps_bytes_that_are_no_text_over_an_interrupted_flush_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listing = text_of(b'table ip kube-proxy {\n\tchain x {\n\t\taccept comment "caf\xe9"\n\t}\n}\n')
    table = ("ip", "kube-proxy")
    full = Inspection({NFT: parse(text_of(odd_rules()))}, {table: listing})
    monkeypatch.setattr(nftables, "check", lambda _: None)
    monkeypatch.setattr(iptables, "check", lambda *_: None)
    monkeypatch.setattr(snapshot, "inspect", lambda: full)
    taken = Snapshot.take(tmp_path)
    assert bytes_of(taken.rulesets[NFT]["filter"].text) == odd_rules()
    assert taken.differences(full) == []
    taken.begin_flush()
    monkeypatch.setattr(snapshot, "inspect", lambda: Inspection({}, {}))
    again = Snapshot.take(tmp_path)
    assert bytes_of(again.rulesets[NFT]["filter"].text) == odd_rules()
    assert again.nft == {table: listing}


def test_an_accounting_object_in_no_text_is_asked_for_by_its_bytes() -> None:
    assert b"caf\xe9\0" in _request(1, text_of(b"caf\xe9"))


def test_an_error_that_quotes_such_a_rule_can_be_a_fault_of_the_status() -> None:
    error = ToolFailed(("iptables-nft-restore",), text_of(b"line 7 failed: " + ODD))
    assert "caf\\udce9" in Fault(reason="X", message=str(error), since=datetime.now(UTC)).message
