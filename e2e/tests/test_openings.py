"""What is recorded of connections that are opened and reset."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from e2e.netns import Inside
from e2e.storms.openings import Opening, Openings, parse, ports_of
from e2e.trial import until


@pytest.mark.unit
def test_a_packet_that_is_cut_off_says_nothing() -> None:
    assert parse(bytes.fromhex("4500") + bytes(30)) is None
    assert parse(bytes.fromhex("6000") + bytes(50)) is None


@pytest.mark.unit
def test_the_ports_of_what_failed_are_found_in_what_is_said_of_it() -> None:
    failures = [{"detail": "timed out from port 40001"}, {"detail": "from port 7"}, {"detail": "port 9"}]
    assert ports_of(failures) == {40001, 7}


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"openings{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.datapath
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_openings_and_resets_of_a_port_are_told_in_order(netns: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with Openings([("n1", netns)]) as openings:
        with Inside(netns) as inside:
            asking, other = inside.call(socket.socket, family), inside.call(socket.socket, family)
        with asking, other:
            for each in (other, asking):
                each.bind((address, 0))
                with pytest.raises(ConnectionRefusedError):
                    each.connect((address, 9))
            port = asking.getsockname()[1]
            until("all four are seen", lambda: len(openings.of([port])) >= 4, 10)
        seen = openings.of([port])
    told = [(each.leaving, each.source_port, each.port, each.flags) for each in seen]
    assert told == [
        (True, port, 9, "SYN"),
        (False, port, 9, "SYN"),
        (True, 9, port, "RST+ACK"),
        (False, 9, port, "RST+ACK"),
    ]
    assert {(each.node, each.device, each.source, each.target) for each in seen} == {
        ("n1", "lo", address, address)
    }


@pytest.mark.unit
def test_an_opening_says_when_where_and_which_way() -> None:
    seen = Opening(0.25, "n1", "eth0", False, "192.0.2.1", 4000, "10.96.0.1", 80, "SYN", 7)
    assert str(seen) == "00:00:00.250000 n1 in by eth0: 192.0.2.1 4000 → 10.96.0.1 80 SYN 7"
