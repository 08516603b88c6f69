"""The reading of nft rules, on rules that kube-proxy once wrote for `kubeproxy/cluster.py`."""

import json
from pathlib import Path

import pytest
from handover_agent.table import Protocol, ip_bytes
from tests.differential.nft import NotUnderstood, Table
from tests.differential.packets import Origin, Packet, told
from tests.kubeproxy import cluster

pytestmark = pytest.mark.unit

SAMPLES = Path(__file__).parents[1] / "kubeproxy" / "samples"
OUTSIDE, POD, NODE = Origin.OUTSIDE, Origin.POD, Origin.NODE
SOURCES = {OUTSIDE: "198.51.100.9", POD: "10.244.1.99", NODE: cluster.NODE_V4}


def table(family: str = "ip") -> Table:
    objects = json.loads((SAMPLES / f"{family}.json").read_text())["nftables"]
    return Table(objects, frozenset(map(ip_bytes, (cluster.NODE_V4, cluster.NODE_V6))))


def end(origin: Origin, to: str, source: str = "", protocol: str = "TCP") -> str:
    address, _, port = to.rpartition(":")
    source = source or SOURCES[origin]
    packet = Packet(origin, ip_bytes(source), ip_bytes(address), int(port), Protocol[protocol])
    return told(table("ip6" if ":" in address else "ip").endings(packet))


ONE = "goes to 10.244.3.9:6443"
TWO = "goes to 10.244.1.12:8080{0} or goes to 10.244.2.12:8080{0}"
LOCAL, BOTH = "goes to 10.244.1.15:8080", "goes to 10.244.1.15:8080 or goes to 10.244.2.15:8080"
MASQUERADED = " masqueraded"


@pytest.mark.parametrize(
    ("origin", "to", "ending"),
    [
        (POD, "10.96.0.1:443", ONE),
        (OUTSIDE, "10.96.0.1:443", ONE + MASQUERADED),
        (NODE, "10.96.0.1:443", ONE + MASQUERADED),
        (POD, "10.96.0.1:444", "is refused"),
        (OUTSIDE, "10.96.0.1:444", "is refused"),
        (POD, "10.96.77.77:80", "is dropped"),
        (POD, "192.0.2.77:80", "is left alone"),
        (POD, "192.0.2.10:30080", TWO.format(MASQUERADED)),
        (OUTSIDE, "192.0.2.10:30080", TWO.format(MASQUERADED)),
        (OUTSIDE, "192.0.2.10:31234", "is left alone"),
        (POD, "203.0.113.5:80", BOTH),
        (OUTSIDE, "203.0.113.5:80", LOCAL),
        (OUTSIDE, "192.0.2.10:30505", LOCAL),
        (NODE, "192.0.2.10:30505", "goes to 10.244.1.15:8080 masqueraded or goes to 10.244.2.15:8080 masqueraded"),
        (OUTSIDE, "203.0.113.6:80", "is dropped"),
        (OUTSIDE, "192.0.2.10:30606", "is dropped"),
        (POD, "192.0.2.10:30606", "goes to 10.244.2.16:8080 or goes to 10.244.3.16:8080"),
        (POD, "10.96.1.9:80", "is dropped"),
        (POD, "10.96.2.1:80", "is refused"),
        (NODE, "192.0.2.10:30201", "is refused"),
        (OUTSIDE, "203.0.113.21:80", "is refused"),
        (POD, "10.96.1.7:80", "goes to 10.244.1.17:8080 or goes to 10.244.2.17:8080"),
        (POD, "[fd00:96::108]:80", "goes to [fd00:244:0:1::18]:8080"),
    ],
)  # fmt: skip
def test_a_packet_ends_as_the_rules_say(origin: Origin, to: str, ending: str) -> None:
    address = to.replace("[", "").replace("]", "")
    source = "fd00:244:0:1::99" if to.startswith("[") else ""
    assert end(origin, address, source) == ending


def test_source_ranges_let_in_whom_they_name() -> None:
    assert end(OUTSIDE, "203.0.113.4:443", source="198.51.100.255").startswith("goes to")
    assert end(OUTSIDE, "203.0.113.4:443", source="198.51.101.0") == "is dropped"
    assert end(POD, "203.0.113.4:443") == "is dropped"
    assert end(NODE, "203.0.113.4:443").startswith("goes to")
    assert end(OUTSIDE, "192.0.2.10:30443", source="198.51.101.0").startswith("goes to")


def test_a_pod_that_is_sent_to_itself_is_masqueraded() -> None:
    ending = "goes to 10.244.1.11:8080 masqueraded or goes to 10.244.2.11:8080 or goes to 10.244.3.11:8080"
    assert end(POD, "10.96.1.1:80", source="10.244.1.11") == ending


def test_protocols_are_apart() -> None:
    assert (
        end(POD, "10.96.1.3:5000", protocol="UDP") == "goes to 10.244.1.13:5001 or goes to 10.244.3.13:5001"
    )
    assert end(POD, "10.96.2.3:9999", protocol="SCTP") == "goes to 10.244.2.23:9999"
    assert end(POD, "10.96.2.3:9999", protocol="UDP") == "is refused"


@pytest.mark.parametrize(
    "expression",
    [
        {"log": None},
        {"match": {"op": "<", "left": {"payload": {"protocol": "th", "field": "dport"}}, "right": 9}},
        {"match": {"op": "==", "left": {"meta": {"key": "cpu"}}, "right": 1}},
    ],
    ids=str,
)
def test_what_is_not_understood_is_said(expression: object) -> None:
    chain = {"name": "c", "hook": "prerouting", "prio": 0, "type": "filter", "policy": "accept"}
    read = Table([{"chain": chain}, {"rule": {"chain": "c", "expr": [expression]}}], frozenset())
    with pytest.raises(NotUnderstood):
        read.endings(Packet(POD, ip_bytes("10.0.0.1"), ip_bytes("10.0.0.2"), 1, Protocol.TCP))
