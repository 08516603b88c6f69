"""The program that asks and serves says the right words, and they are the same on each side."""

import socket
import threading

import pytest

from e2e.behaviours.inside import peer
from e2e.behaviours.sides import Side, in_words

pytestmark = pytest.mark.unit


def free_port(host: str) -> int:
    with socket.create_server((host, 0), family=peer.family_of(host)) as taken:
        number: int = taken.getsockname()[1]
        return number


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> peer.Address:
    host: str = request.param
    port = free_port(host)
    for serve in (peer.serve_streams, peer.serve_datagrams):
        threading.Thread(target=serve, args=("server-n2", host, port), daemon=True).start()
    while peer.tcp((host, port)) == {"what": peer.REFUSED} or peer.udp((host, port)) == {
        "what": peer.REFUSED
    }:
        pass
    return host, port


def test_a_server_says_who_it_is_and_whom_it_sees(server: peer.Address) -> None:
    wanted = {"by": "server-n2", "port": server[1], "from": server[0]}
    assert peer.tcp(server).items() >= wanted.items()
    for connected in (True, False):
        assert peer.udp(server, connected=connected).items() >= wanted.items()


def test_datagrams_are_whole_both_ways(server: peer.Address) -> None:
    assert peer.udp(server, size=60000)["got"] == 60000


def test_sctp_is_written_as_it_is_read_and_a_wrong_checksum_is_noticed() -> None:
    assert peer.crc32c(b"123456789") == 0xE3069283
    packet = peer.sctp_packet(20001, 80, 7, 2, b"who I am")
    found = peer.sctp_read(packet, socket.AF_INET6)
    assert (found["from"], found["to"], found["chunk"], found["cookie"]) == (20001, 80, 2, b"who I am")
    assert peer.sctp_read(packet[:-1] + b"x", socket.AF_INET6) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_where_nobody_listens_refuses(host: str) -> None:
    target = (host, free_port(host))
    assert peer.tcp(target) == {"what": peer.REFUSED}
    assert peer.udp(target) == {"what": peer.REFUSED}
    assert peer.udp(target, connected=False) == {"what": peer.REFUSED}


def test_where_nobody_answers_it_is_dropped() -> None:
    # A listener whose queue is full takes no SYN and says nothing.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as queued:
        queued.connect(full.getsockname())
        assert peer.tcp(full.getsockname()) == {"what": peer.DROPPED}
    with socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        assert peer.udp(mute.getsockname()) == {"what": peer.DROPPED}


def test_answers_are_told_as_seen_from_a_side() -> None:
    ring = Side(None, ("n2", "n3", "n1"))  # type: ignore[arg-type]
    found = {"by": "server-n3", "port": 8001, "from": "10.0.0.1"}
    names = {"10.0.0.1": "client-n2"}
    assert in_words(found, ring, names, source=True, port=True) == "server-next:8001 sees client-here"
    assert in_words(found, ring, names, source=False, port=False) == "server-next"
    assert in_words({"what": "refused"}, ring, names, source=True, port=True) == "refused"
