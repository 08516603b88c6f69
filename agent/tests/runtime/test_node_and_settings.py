"""What the agent learns of its node and of its pod."""

import argparse
import json
import os
import socket
from pathlib import Path

import msgspec
import pytest
from handover_agent import addresses, bpffs
from handover_agent.cli import main, parser
from handover_agent.devices import Address, reading
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.node import (
    NoCgroup2,
    NodeObject,
    decode_node,
    find_cgroup,
    find_cgroup_anywhere,
    node_info,
)
from handover_agent.rtnetlink import Message, NetlinkError, RouteSocket, attribute
from handover_agent.settings import Settings, SettingsError
from handover_agent.table import ip_bytes, ip_text
from handover_agent.wish import decode_wish, pod_kind
from handover_api.base import Rung
from handover_api.nodemigration import KubeProxySelector
from pydantic import ValidationError

pytestmark = pytest.mark.unit

HYBRID = """\
24 20 0:22 / /host/cgroup ro - tmpfs tmpfs rw,mode=755
25 24 0:23 / /host/cgroup/memory ro - cgroup cgroup rw,memory
26 24 0:24 / /host/cgroup/unified ro master:5 - cgroup2 cgroup2 rw
27 20 0:24 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw
"""
UNIFIED = "24 20 0:22 / /host/cgroup ro shared:1 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_the_cgroup_root_is_the_cgroup2_mount_below_the_search_path() -> None:
    search = Path("/host/cgroup")
    assert find_cgroup(search, HYBRID) == search / "unified"
    assert find_cgroup(search, UNIFIED) == search
    with pytest.raises(NoCgroup2, match="hostPath"):
        find_cgroup(Path("/elsewhere"), HYBRID)


def test_what_else_is_mounted_may_have_any_bytes_in_its_path(tmp_path: Path) -> None:
    file, search = tmp_path / "mountinfo", Path("/host/cgroup")
    odd = b"25 20 0:9 / /mnt/caf\xe9\xc2\x85\\040x rw - ext4 /dev/sda rw\n"
    file.write_bytes(odd + UNIFIED.encode())
    text = bpffs.mountinfo(file)
    assert find_cgroup(search, text) == search
    assert bpffs.filesystem(text, Path(os.fsdecode(b"/mnt/caf\xe9\xc2\x85 x/y"))) == "ext4"


def test_outside_of_the_agents_pod_the_nodes_own_cgroup_root_is_found(tmp_path: Path) -> None:
    own = find_cgroup_anywhere(tmp_path)
    assert own == tmp_path or (own / "cgroup.controllers").exists()


def test_the_nodes_own_loopback_addresses_are_found() -> None:
    found = {ip_text(packed) for packed in addresses.local_addresses()}
    assert "127.0.0.1" in found


def test_an_error_from_the_kernel_is_an_error() -> None:
    with RouteSocket() as kernel, pytest.raises(NetlinkError, match="list addresses of nothing: "):
        kernel.dump(0xFFFF, bytes(16), "list addresses of nothing")


def test_addresses_of_both_families_are_read_from_a_dump() -> None:
    def message(family: int, packed: bytes) -> Message:
        return Message(20, reading._ADDRESS.pack(family, 64, 0, 0, 7) + attribute(1, packed))

    dump = [message(socket.AF_INET, b"\x0a\x00\x00\x01"), message(socket.AF_INET6, ip_bytes("fd00::1"))]
    assert list(reading.addresses_in(dump)) == [
        (7, Address(ip_bytes("10.0.0.1"), 64)),
        (7, Address(ip_bytes("fd00::1"), 64)),
    ]


def test_the_node_object_gives_zone_addresses_and_eligibility() -> None:
    document = {
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]
        },
    }
    node = decode_node(json.dumps(document).encode())
    assert (node.zone, node.addresses, node.eligible) == (
        "a",
        (ip_bytes("10.0.0.1"), ip_bytes("fd00::1")),
        True,
    )
    own = NodePortPlaces(("10.0.0.1/32", "fd00::1/128"), localhost=False)
    info = node_info(node, frozenset({ip_bytes("10.0.0.1")}), own)
    assert (info.zone, info.localhost_node_ports, info.node_port_addresses) == ("a", False, ("primary",))
    document["spec"] = {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}
    assert not decode_node(json.dumps(document).encode()).eligible


def test_the_link_local_address_of_a_pods_device_makes_no_other_node() -> None:
    """A NodeInfo that differs has the whole table compiled anew, and each pod that starts brings such an address."""
    node, own = NodeObject("n1"), [ip_bytes("10.0.0.1"), ip_bytes("fd00::1"), ip_bytes("169.254.20.10")]
    before = node_info(node, frozenset(own), NodePortPlaces())
    pods = [ip_bytes("fe80::34f5:1bff:fe2c:1"), ip_bytes("febf::1")]
    assert node_info(node, frozenset([*own, *pods]), NodePortPlaces()) == before
    assert before.local_addresses == frozenset(own)  # NodeLocal DNSCache has its IPv4 one


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ("", None),
        ("primary", NodePortPlaces(("primary",))),
        (" 10.0.0.0/8, fd00::/64 ", NodePortPlaces(("10.0.0.0/8", "fd00::/64"))),
    ],
)
def test_where_node_ports_are_may_be_set(given: str, places: NodePortPlaces | None) -> None:
    assert Settings(node_port_addresses=given).places == places


def test_a_place_for_node_ports_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="eth0"):
        Settings(node_port_addresses="10.0.0.0/8,eth0")


def test_a_node_migration_is_read_with_its_generation() -> None:
    document = {
        "metadata": {"name": "n1", "uid": "u", "generation": 4},
        "spec": {"nodeName": "n1", "rung": "Serving", "deadline": "2026-05-01T12:00:00Z", "later": True},
    }
    wish = decode_wish(json.dumps(document).encode())
    assert (wish.uid, wish.generation, wish.spec.rung) == ("u", 4, Rung.SERVING)
    document["spec"] = {"nodeName": "n1", "rung": "Top"}
    with pytest.raises(msgspec.MsgspecError, match="understands"):
        decode_wish(json.dumps(document).encode())


def test_kube_proxys_pods_are_asked_for_by_label_and_node() -> None:
    kind = pod_kind(KubeProxySelector(namespace="proxies", selector={"b": "2", "a": "1"}), "n1")
    assert kind.namespace == "proxies"
    assert kind.params == {"labelSelector": "a=1,b=2", "fieldSelector": "spec.nodeName=n1"}
    unnamed = pod_kind(KubeProxySelector(), "n1")
    assert unnamed.params["labelSelector"] == "k8s-app=kube-proxy"


def test_flags_go_before_the_environment() -> None:
    options = parser().parse_args(["run", "--grace-s", "3"])
    environ = {"HANDOVER_GRACE_S": "9", "HANDOVER_PROBE_S": "7", "NODE_NAME": "n1", "PINS": "/tmp/no"}
    settings = Settings.gather(options, environ)
    assert (settings.grace_s, settings.probe_s, settings.node_name) == (3.0, 7.0, "n1")
    assert settings.pins == Path("/sys/fs/bpf/handover")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HANDOVER_HEALTH_PORT": "high"}, r"--health-port \(HANDOVER_HEALTH_PORT\) is 'high'"),
        ({"HANDOVER_HEARTBEAT_S": "0"}, r"--heartbeat-s .* is '0': Input should be greater than 0"),
        ({"HANDOVER_LOG_FORMAT": "xml"}, r"--log-format .* should be 'text' or 'json'"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.gather(argparse.Namespace(), environ)


def test_a_node_without_a_name_cannot_run_an_agent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    assert main(["run"]) == 1
    assert "NODE_NAME" in capsys.readouterr().err
