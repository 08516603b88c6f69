"""Established connections and kube-proxy's rules going away: they die without the keeper, and live with it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent import conntrack, kubeproxy
from handover_agent.kubeproxy import Snapshot, forwarding, keeper, nftables
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes
from tests.node import rules
from tests.node.netns import Connection, Namespace, Pod, connected, listening, run

pytestmark = pytest.mark.node
every_mode = pytest.mark.parametrize("mode", rules.MODES)
both_families = pytest.mark.parametrize("family", [4, 6])

SERVICE = {4: "10.96.1.8", 6: "fd00:96::108"}  # default/itp-local: one endpoint, which is on this node
ENDPOINT = {4: "10.244.1.18", 6: "fd00:244:0:1::18"}
DNS = FrontendKey(ip_bytes("10.96.0.10"), 53, Protocol.UDP)


@pytest.fixture
def server(uplink: Namespace) -> Pod:
    return Pod(uplink, "server", (ENDPOINT[4], ENDPOINT[6]))


@pytest.fixture
def client(uplink: Namespace) -> Pod:
    return Pod(uplink, "client", ("10.244.1.200", "fd00:244:0:1::200"))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush without its keeper, to see that it is needed."""
    monkeypatch.setattr("handover_agent.kubeproxy.keeper.ensure", lambda recorded: None)


def only_kube_proxys(mode: str) -> None:
    """kube-proxy's rules, and nothing else that uses conntrack (kubelet's copy in KUBE-FIREWALL does)."""
    rules.load(mode)
    if mode != "nftables":
        for tool in rules.TOOLS:
            run(f"{tool}-{mode.removeprefix('iptables-')}", "-F", "KUBE-FIREWALL")


def connections(node: Namespace, client: Pod, server: Pod, family: int) -> Iterator[Connection]:
    """One from a pod and one from the node itself, both through the Service."""
    listener = listening(server.inside, ENDPOINT[family], 8080)
    for where in (client.inside, node):
        yield connected(where, (SERVICE[family], 80), listener)


@both_families
@every_mode
def test_established_connections_survive_the_flush(
    node: Namespace, client: Pod, server: Pod, mode: str, family: int, tmp_path: Path
) -> None:
    only_kube_proxys(mode)
    open_ = list(connections(node, client, server, family))
    assert [each.alive() for each in open_] == [True, True]
    kubeproxy.flush(Snapshot.take(tmp_path / "s"))
    assert keeper.present()
    assert [each.alive() for each in open_] == [True, True]
    frontend = FrontendKey(ip_bytes(SERVICE[family]), 80, Protocol.TCP)
    assert conntrack.old_flows([frontend]) == 2
    Snapshot.load(tmp_path / "s").restore()
    keeper.remove()
    assert [each.alive() for each in open_] == [True, True]
    for each in open_:
        each.close()


@both_families
@every_mode
@pytest.mark.usefixtures("bare")
def test_without_the_keeper_they_die(
    node: Namespace, client: Pod, server: Pod, mode: str, family: int, tmp_path: Path
) -> None:
    only_kube_proxys(mode)
    open_ = list(connections(node, client, server, family))
    kubeproxy.flush(Snapshot.take(tmp_path / "s"))
    assert [each.alive() for each in open_] == [False, False]
    for each in open_:
        each.close()


@both_families
@pytest.mark.parametrize("mode", rules.MODES[:2])
def test_where_forward_drops_forwarded_connections_need_our_accepts(
    node: Namespace, client: Pod, server: Pod, mode: str, family: int, tmp_path: Path
) -> None:
    only_kube_proxys(mode)
    tool = f"{rules.TOOLS[family == 6]}-{mode.removeprefix('iptables-')}"
    run(tool, "-P", "FORWARD", "DROP")
    run(
        tool,
        "-A",
        "FORWARD",
        "-p",
        "tcp",
        "--dport",
        "8080",
        "-m",
        "conntrack",
        "--ctstate",
        "NEW",
        "-j",
        "ACCEPT",
    )
    if family == 6:
        run(tool, "-A", "FORWARD", "-p", "icmpv6", "-j", "ACCEPT")
    (through, _) = list(connections(node, client, server, family))
    snapshot = Snapshot.take(tmp_path / "s")
    kubeproxy.flush(snapshot)
    assert through.alive()
    keeper.release()
    keeper.ensure()
    forwarding.remove()  # or a reboot does it, or somebody who loads a firewall
    assert not keeper.present(snapshot.filters)
    keeper.ensure(snapshot.filters)
    assert keeper.present(snapshot.filters)
    assert through.alive()
    forwarding.remove()
    keeper.ensure()
    assert not through.alive()
    through.close()


def test_the_keeper_comes_once_stays_whole_and_goes_completely(node: Namespace) -> None:
    assert not keeper.present()
    keeper.ensure()
    assert keeper.present()
    before = run("nft", "list", "ruleset")
    keeper.ensure()
    assert run("nft", "list", "ruleset") == before
    run("nft", "flush chain inet handover keep-conntrack")
    assert not keeper.present()
    keeper.ensure()
    assert run("nft", "list", "ruleset") == before
    keeper.remove()
    keeper.remove()
    assert run("nft", "list", "ruleset") == ""


def test_on_kernels_without_inet_nat_the_keeper_has_a_table_per_family(
    node: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nftables.apply

    def refuses_inet(text: str) -> None:
        if "table inet" in text:
            raise kubeproxy.ToolFailed(("nft",), "Operation not supported")
        real(text)

    monkeypatch.setattr(nftables, "apply", refuses_inet)
    keeper.ensure()
    assert keeper.present()
    assert nftables.tables() == {("ip", "handover"), ("ip6", "handover")}
    monkeypatch.undo()
    keeper.remove()
    assert nftables.tables() == set()


def test_stale_udp_entries_are_deleted_and_all_others_stay(uplink: Namespace) -> None:
    rules_of = "table ip t { chain o { type nat hook output priority -100; ip daddr 10.96.0.10 udp dport 53 dnat to %s; }; }"
    run("nft", "-f", "-", given=rules_of % "127.0.0.1:5301")
    datagram("10.96.0.10", 53)
    run("nft", "delete", "table", "ip", "t")
    run("nft", "-f", "-", given=rules_of % "127.0.0.1:5302")
    datagram("10.96.0.10", 53)
    datagram("10.96.0.99", 53)
    run("nft", "delete", "table", "ip", "t")
    keeper.ensure()
    datagram("10.96.0.10", 53)  # nobody translated this one
    assert len(entries()) == 4
    gone, there = (Backend(ip_bytes("127.0.0.1"), port) for port in (5301, 5302))
    assert conntrack.old_flows([DNS]) == 2
    assert deleted({DNS: frozenset()}, untranslated=True) == (0, 0), "without an endpoint nothing is stale"
    assert deleted({DNS: {gone, there}}) == (0, 0)
    assert deleted({DNS: {gone, there}}, untranslated=True) == (1, 0)
    assert deleted({DNS: {there}}, untranslated=True) == (0, 0), "what was translated is whose rules serve"
    assert deleted({DNS: {there}}) == (1, 0)
    assert conntrack.old_flows([DNS]) == 1
    assert len(entries()) == 2


def deleted(serving: conntrack.Serving, *, untranslated: bool = False) -> tuple[int, ...]:
    """How many entries of each family, IPv4 first."""
    return tuple(each.deleted for each in conntrack.reconcile_udp(serving, untranslated=untranslated))


def datagram(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, port))


def entries() -> list[str]:
    """All entries by their original destination, read without our code."""
    return [
        line for line in Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines() if "udp" in line
    ]
