"""The same with a kube-proxy that runs: its rules are taken away after it left, put back, and it takes over
again.

Skipped where there is no kube-proxy (KUBE_PROXY names one; the lab builds one).
"""

from pathlib import Path

import pytest
from handover_agent import kubeproxy
from handover_agent.kubeproxy import Snapshot, keeper
from handover_agent.kubeproxy.nodeports import NodePortPlaces, places
from handover_agent.kubeproxy.parity import compare
from handover_agent.table import ip_bytes
from tests.kubeproxy import cluster, recording
from tests.kubeproxy.test_parity import our_table
from tests.node import rules

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(recording.binary() is None, reason="no kube-proxy: KUBE_PROXY does not name one"),
]


@pytest.mark.parametrize("mode", rules.MODES)
def test_kube_proxys_rules_go_come_back_and_are_taken_over_by_it(
    uplink: object, mode: str, tmp_path: Path
) -> None:
    rules.require(mode)
    kind, backend = (
        ("nftables", "nft") if mode == "nftables" else ("iptables", mode.removeprefix("iptables-"))
    )
    binary = recording.binary()
    assert binary is not None
    with recording.kube_proxy(binary, "", kind, backend):
        pass
    before = settled()
    local = {ip_bytes(cluster.NODE_V4), ip_bytes(cluster.NODE_V6)}
    assert compare(our_table(), kubeproxy.frontends_of(kubeproxy.inspect()), local) == []
    taken = Snapshot.take(tmp_path / "s")
    kubeproxy.flush(taken)
    assert kubeproxy.inspect().leftovers() == []
    taken.restore()
    keeper.remove()
    assert settled() == before
    with recording.kube_proxy(binary, "", kind, backend):
        pass
    assert compare(our_table(), kubeproxy.frontends_of(kubeproxy.inspect()), local) == []
    taken.restore()
    assert taken.differences(kubeproxy.inspect()) == []


@pytest.mark.parametrize("mode", ["iptables-nft", "nftables"])
@pytest.mark.parametrize(
    ("configured", "iptables", "nftables"),
    [
        ("", NodePortPlaces((), localhost=True), ["192.0.2.10/32", "2001:db8::10/128"]),
        (
            "nodePortAddresses: [192.0.2.0/24]\n",
            NodePortPlaces(("192.0.2.10/32",), localhost=False),
            ["192.0.2.10/32"],
        ),
        (
            "nodePortAddresses: [127.0.0.0/8, 10.99.0.0/16]\n",
            NodePortPlaces(("127.0.0.1/32",), localhost=True),
            ["0.0.0.0/32"],
        ),
    ],
    ids=["as it comes", "a network", "localhost"],
)
def test_where_its_node_ports_are_is_read_from_its_rules(
    uplink: object, mode: str, configured: str, iptables: NodePortPlaces, nftables: list[str]
) -> None:
    rules.require(mode)
    binary = recording.binary()
    assert binary is not None
    with recording.kube_proxy(binary, "", mode.partition("-")[0], more=configured):
        pass
    seen = kubeproxy.inspect()
    expected = iptables if mode != "nftables" else NodePortPlaces(tuple(nftables), localhost=False)
    assert places(seen.rulesets, seen.nft) == expected


def settled() -> str:
    return rules.without_counters(str(rules.state()))
