"""What is recorded of connections that begin, and of datagrams."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from e2e.netns import Inside
from e2e.storms.recording import Packet, Recording, parse, ports_of
from e2e.trial import until

SERVICE, PODS = 81, 8081


@pytest.mark.unit
def test_a_packet_that_is_cut_off_says_nothing() -> None:
    assert parse(bytes.fromhex("4500") + bytes(7) + b"\x06" + bytes(20)) is None
    assert parse(bytes.fromhex("6000") + bytes(4) + b"\x11" + bytes(40)) is None


@pytest.mark.unit
def test_the_ports_of_what_failed_are_found_in_what_is_said_of_it() -> None:
    failures = [{"detail": "timed out from port 40001"}, {"detail": "from port 7"}, {"detail": "port 9"}]
    assert ports_of(failures) == {40001, 7}


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"recording{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.datapath
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_beginnings_resets_and_datagrams_of_a_port_are_told_in_order(netns: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with Recording([("n1", netns)], (SERVICE, PODS)) as recording:
        with Inside(netns) as inside:
            asking, other = inside.call(socket.socket, family), inside.call(socket.socket, family)
            sending = inside.call(socket.socket, family, socket.SOCK_DGRAM)
        with asking, other, sending:
            for each in (other, asking):
                each.bind((address, 0))
                with pytest.raises(ConnectionRefusedError):
                    each.connect((address, 9))
            port = asking.getsockname()[1]
            sending.bind((address, port))
            for to in (9, SERVICE, PODS):
                sending.sendto(b"echo", (address, to))
            until("all are seen", lambda: len(recording.of([port])) >= 8, 10)
        seen = recording.of([port])
    told = [(each.leaving, each.source_port, each.port, each.said.split()[0]) for each in seen]
    assert told == [
        (True, port, 9, "SYN"),
        (False, port, 9, "SYN"),
        (True, 9, port, "RST+ACK"),
        (False, 9, port, "RST+ACK"),
        (True, port, SERVICE, "UDP"),
        (False, port, SERVICE, "UDP"),
        (True, port, PODS, "UDP"),
        (False, port, PODS, "UDP"),
    ]
    assert seen[-1].said == "UDP b'echo'"
    assert {(each.node, each.device, each.source, each.target) for each in seen} == {
        ("n1", "lo", address, address)
    }


@pytest.mark.unit
def test_a_packet_says_when_where_and_which_way() -> None:
    seen = Packet(0.25, "n1", "eth0", False, "192.0.2.1", 4000, "10.96.0.1", 80, "SYN 7")
    assert str(seen) == "00:00:00.250000 n1 in by eth0: 192.0.2.1 4000 → 10.96.0.1 80 SYN 7"
