"""What the edge makes of the tools' answers that one does not see on every machine."""

import pytest
from handover_agent.kubeproxy import ToolFailed, iptables, nftables
from handover_agent.kubeproxy.command import run
from handover_agent.kubeproxy.iptables import Family, Incompatible, Source, Variant

pytestmark = pytest.mark.unit
NFT = Source(Variant.NFT, Family.IPV4)
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
