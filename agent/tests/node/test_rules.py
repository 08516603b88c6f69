"""kube-proxy's real rules among others': taken away completely, others' untouched, put back byte for byte."""

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from handover_agent import kubeproxy
from handover_agent.kubeproxy import Inspection, NothingFlushed, Snapshot, keeper
from handover_api.nodemigration import ProxyMode
from tests.node import rules
from tests.node.netns import Namespace, run

pytestmark = pytest.mark.node
every_mode = pytest.mark.parametrize("mode", rules.MODES)
iptables_modes = pytest.mark.parametrize("mode", rules.MODES[:2])


def snapshot_of(tmp_path: Path) -> Snapshot:
    return Snapshot.take(tmp_path / "snapshot")


def count_a_packet() -> None:
    """Give others' rules and policies counters that are not zero."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            with suppress(PermissionError):  # the foreign rule drops it
                sender.sendto(b"", (address, 15))
            sender.sendto(b"", (address, 16))


@every_mode
def test_reading_sees_the_mode_and_creates_nothing(node: Namespace, mode: str) -> None:
    before = run("nft", "list", "ruleset"), legacy_tables()
    assert kubeproxy.inspect().mode is ProxyMode.NONE
    assert (run("nft", "list", "ruleset"), legacy_tables()) == before == ("", "")
    rules.load(mode)
    found = kubeproxy.inspect()
    assert found.mode is (ProxyMode.NFTABLES if mode == "nftables" else ProxyMode.IPTABLES)
    assert found.backends == (() if mode == "nftables" else (mode.removeprefix("iptables-"),))
    assert found.rule_count > 100
    assert found.leftovers()


@every_mode
def test_after_a_flush_nothing_of_kube_proxys_is_left_and_all_else_is_untouched(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    rules.load_foreign(mode)
    count_a_packet()
    before = rules.state()
    taken = snapshot_of(tmp_path)
    removed = kubeproxy.flush(taken)
    assert len(removed) == (2 if mode == "nftables" else 158)
    assert kubeproxy.inspect().leftovers() == []
    assert kubeproxy.inspect().mode is ProxyMode.NONE
    keeper.remove()
    after = rules.state()
    assert after.iptables.splitlines() == rules.foreign(before.iptables)
    assert "kube-proxy" not in after.nft
    assert "tcp dport 17 drop" in after.nft
    assert any(line.startswith("[1:28] -A OUTPUT -p udp") for line in after.iptables.splitlines())


@every_mode
def test_a_restore_after_a_flush_is_byte_for_byte_what_was_there(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    rules.load_foreign(mode)
    count_a_packet()
    before = rules.state()
    kubeproxy.flush(snapshot_of(tmp_path))
    written = Snapshot.load(tmp_path / "snapshot").restore()
    assert len(written) == 2
    keeper.remove()
    assert str(rules.state()) == str(before)


@every_mode
def test_rules_with_bytes_that_are_no_text_neither_hide_others_nor_change(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    """Latin-1 in a comment, and what Unicode takes for ends of lines: in somebody else's rule and in kube-proxy's chain."""
    rules.load(mode)
    comment = b"caf\xe9 \xc2\x85 \xe2\x80\xa8 \r"
    if mode == "nftables":
        odd = [b"nft", b"add rule ip kube-proxy services accept comment", b'"' + comment + b'"']
        reading = ["nft", "list", "table", "ip", "kube-proxy"]
        subprocess.run(odd, check=True)
    else:
        reading = [f"{mode}-save"]
        for chain in ("INPUT", "KUBE-FORWARD"):
            odd = [
                os.fsencode(mode),
                b"-A",
                os.fsencode(chain),
                *b"-j ACCEPT -m comment --comment".split(),
                comment,
            ]
            subprocess.run(odd, check=True)

    def lines() -> list[bytes]:
        printed = subprocess.run(reading, check=False, capture_output=True).stdout
        return [line for line in printed.split(b"\n") if b"caf" in line]

    before = lines()
    taken = snapshot_of(tmp_path)
    kubeproxy.flush(taken)
    assert len(lines()) == (0 if mode == "nftables" else 2)  # the keeper accepts what KUBE-FORWARD accepted
    Snapshot.load(tmp_path / "snapshot").restore()
    keeper.remove()
    assert lines() == before
    assert all(comment in line for line in before)
    assert len(before) == (1 if mode == "nftables" else 2)


@every_mode
def test_restoring_again_writes_nothing(node: Namespace, mode: str, tmp_path: Path) -> None:
    rules.load(mode)
    taken = snapshot_of(tmp_path)
    assert taken.restore() == []
    kubeproxy.flush(taken)
    taken.restore()
    between = str(rules.state())
    assert taken.restore() == []
    assert str(rules.state()) == between


@iptables_modes
def test_a_restore_over_rules_that_kube_proxy_wrote_anew_makes_them_the_recorded_ones(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    rules.load_foreign(mode)
    before = rules.state()
    taken = snapshot_of(tmp_path)
    kubeproxy.flush(taken)
    keeper.remove()
    variant = mode.removeprefix("iptables-")
    for tool in rules.TOOLS:
        run(f"{tool}-{variant}-restore", "--noflush", given=(
            "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n"
            "-A KUBE-SERVICES -p tcp -m tcp --dport 1 -j KUBE-SVC-AAAAAAAAAAAAAAAA\n"
            '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\nCOMMIT\n'
        ))  # fmt: skip
    taken.restore()
    assert str(rules.state()) == str(before)


@iptables_modes
def test_rules_that_others_added_in_between_stay_where_they_are(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    rules.load_foreign(mode)
    taken = snapshot_of(tmp_path)
    kubeproxy.flush(taken)
    keeper.remove()
    variant = mode.removeprefix("iptables-")
    run(f"iptables-{variant}", "-D", "FORWARD", "-j", "DOCKER-USER")
    run(f"iptables-{variant}", "-I", "FORWARD", "-p", "tcp", "--dport", "19", "-j", "ACCEPT")
    run(f"iptables-{variant}", "-A", "FORWARD", "-p", "tcp", "--dport", "20", "-j", "ACCEPT")
    others = rules.foreign(rules.state().iptables)
    taken.restore()
    now = rules.state().iptables
    assert rules.foreign(now) == others
    assert kubeproxy.inspect().mode is ProxyMode.IPTABLES
    assert [line for line in now.splitlines() if "-j KUBE-FORWARD" in line]


@iptables_modes
def test_the_masquerade_chains_stay_while_a_cni_plugin_uses_them(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    rules.load_foreign(mode, more=rules.PORTMAP)
    before = rules.state()
    taken = snapshot_of(tmp_path)
    kubeproxy.flush(taken)
    assert kubeproxy.inspect().leftovers() == []
    assert kubeproxy.inspect().rule_count == 0
    now = rules.state().iptables
    for kept in ("-j KUBE-MARK-MASQ", ":KUBE-MARK-MASQ ", ":KUBE-POSTROUTING ", "-j KUBE-POSTROUTING"):
        assert kept in now, kept
    assert ":KUBE-SERVICES " not in now
    taken.restore()
    keeper.remove()
    assert str(rules.state()) == str(before)


@iptables_modes
def test_a_chain_that_a_persons_rule_jumps_to_is_emptied_and_the_rule_stays(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    mine = "-A INPUT -p tcp --dport 21 -j KUBE-SERVICES"
    run(f"iptables-{mode.removeprefix('iptables-')}", *mine.split())
    before = rules.state()
    taken = snapshot_of(tmp_path)
    kubeproxy.flush(taken)
    assert kubeproxy.inspect().leftovers() == []
    assert kubeproxy.inspect().mode is ProxyMode.NONE
    now = rules.state().iptables
    assert "-A INPUT -p tcp -m tcp --dport 21 -j KUBE-SERVICES" in now
    assert "-A KUBE-SERVICES" not in now
    taken.restore()
    keeper.remove()
    assert str(rules.state()) == str(before)


@every_mode
def test_a_flush_is_refused_when_the_rules_are_not_those_on_disk(
    node: Namespace, mode: str, tmp_path: Path
) -> None:
    rules.load(mode)
    taken = snapshot_of(tmp_path)
    if mode == "nftables":
        run("nft", "add element ip kube-proxy cluster-ips { 10.96.7.7 }")
    else:
        variant = mode.removeprefix("iptables-")
        run(f"ip6tables-{variant}", "-t", "nat", "-A", "KUBE-SERVICES", "-p", "tcp", "-j", "RETURN")
    before = rules.state()
    with pytest.raises(NothingFlushed, match="has changed since"):
        kubeproxy.flush(taken)
    assert str(rules.state()) == str(before)


def test_both_back_ends_are_flushed_when_an_old_kube_proxy_left_rules_in_the_other(
    node: Namespace, tmp_path: Path
) -> None:
    rules.load("iptables-legacy")
    rules.load("iptables-nft")
    rules.load("nftables")
    before = rules.state()
    assert kubeproxy.inspect().mode is ProxyMode.NFTABLES
    kubeproxy.flush(snapshot_of(tmp_path))
    assert kubeproxy.inspect().leftovers() == []
    Snapshot.load(tmp_path / "snapshot").restore()
    keeper.remove()
    assert str(rules.state()) == str(before)


def test_elements_that_packets_added_to_affinity_sets_survive_and_do_not_count_as_changes(
    node: Namespace, tmp_path: Path
) -> None:
    rules.load("nftables")
    name = "affinity-AQL3BIGF-default/sticky/tcp/http__10.244.1.17/8080"
    run("nft", f"add element ip kube-proxy {name} {{ 10.244.1.3 }}")
    taken = snapshot_of(tmp_path)
    run("nft", f"add element ip kube-proxy {name} {{ 10.244.1.4 }}")
    kubeproxy.flush(taken)
    taken.restore()
    assert "10.244.1.3" in run("nft", "list", "set", "ip", "kube-proxy", name)
    assert kubeproxy.inspect().mode is ProxyMode.NFTABLES


def test_an_ipvs_node_is_refused_with_what_to_do(node: Namespace) -> None:
    run("ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "other")
    with pytest.raises(
        kubeproxy.NotSupported, match=r"device kube-ipvs0\. Leave this node on kube-proxy, or"
    ):
        kubeproxy.inspect()


def test_a_node_without_kube_proxy_has_an_empty_snapshot_and_an_empty_flush(
    node: Namespace, tmp_path: Path
) -> None:
    taken = snapshot_of(tmp_path)
    assert taken.manifest.mode is ProxyMode.NONE
    assert kubeproxy.flush(taken) == []
    assert taken.restore() == []
    assert Inspection({}, {}).leftovers() == []


def legacy_tables() -> str:
    return "".join(
        file.read_text()
        for name in ("ip", "ip6")
        if (file := Path(f"/proc/thread-self/net/{name}_tables_names")).exists()
    )
