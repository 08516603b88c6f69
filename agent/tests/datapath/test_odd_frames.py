"""Odd frames and devices: what only the kernel can hand to the programs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from handover_agent.table import Backend, ip_bytes
from tests.datapath.cable import End
from tests.datapath.frames import TCP, UDP, ethernet, ip, read, tcp, udp
from tests.datapath.node import PODS, PORT, Namespaces, text
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

CLIENTS = {4: "10.244.1.2", 6: "fd00:244:1::2"}
FRONTENDS = {4: "10.96.0.10", 6: "fd00:96::10"}


@pytest.fixture(autouse=True)
def served(rig: Rig) -> None:
    for family in (4, 6):
        rig.expose(FRONTENDS[family], 80, [Backend(ip_bytes(PODS["b"][family]), PORT)])


@contextmanager
def sending_frames(net: Namespaces) -> Iterator[socket.socket]:
    """A socket of a pod that sends frames as they are."""
    with net.inside("a"):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        yield raw


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_packet_that_ends_in_its_ip_header_is_dropped(net: Namespaces, rig: Rig, family: int) -> None:
    frame = ethernet(ip(TCP, CLIENTS[family], FRONTENDS[family], tcp(40000, 80)))
    lengths = range(15, 14 + {4: 20, 6: 40}[family])
    with sending_frames(net) as raw:
        for length in lengths:
            raw.send(frame[:length])
    assert rig.counted()["packet_malformed"] == len(lengths)


def test_packets_with_a_vlan_tag_are_left_to_the_vlans_device(net: Namespaces, rig: Rig) -> None:
    frame = ethernet(ip(TCP, CLIENTS[4], FRONTENDS[4], tcp(40000, 80)))
    with sending_frames(net) as raw:
        raw.send(frame[:12] + b"\x81\x00\x00\x05" + frame[12:])
    assert rig.counted()["packet_vlan"] >= 1
    assert rig.flows() == []


@pytest.fixture
def tunnel(net: Namespaces, packet_programs: Path) -> Iterator[End]:
    """A device of the node without link headers, like WireGuard's."""
    with net.inside("node"):
        end = End.open("tunnel")
    net.ip("node", ["address add 198.18.7.1/24 dev tunnel", "link set tunnel up"])
    net.attach("node", "tunnel", packet_programs / "from_outside", packet_programs / "from_node")
    yield end
    end.close()


LIKE_FRAMES = ("8.0.69.1", 32768, "1.0.0.10", 17), ("2001:db8:86dd:6000::1100:2", 40000, FRONTENDS[6], 80)
"""Whose IP packets could be read as frames with other IP packets in them."""


@pytest.mark.parametrize(
    ("source", "source_port", "frontend", "port"),
    [
        ("198.18.7.2", 40000, FRONTENDS[4], 80),
        ("2001:db8:7::2", 40000, FRONTENDS[6], 80),
        *LIKE_FRAMES,
    ],
)
def test_a_device_without_link_headers_is_served(
    net: Namespaces, rig: Rig, tunnel: End, source: str, source_port: int, frontend: str, port: int
) -> None:
    backend = PODS["b"][6 if ":" in source else 4]
    net.ip("node", [f"route add {source} dev tunnel"])
    rig.expose(frontend, port, [Backend(ip_bytes(backend), PORT)])
    with net.no_way("node", frontend):
        tunnel.send(ip(UDP, source, frontend, udp(source_port, port, b"?" * 500)))
        answer = read(tunnel.receive())
        while answer.protocol != UDP:  # router solicitations
            answer = read(tunnel.receive())
    assert (answer.source, answer.source_port, answer.port) == (frontend, port, source_port)
    assert text(backend, PORT).encode() in answer.data
