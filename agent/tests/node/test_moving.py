"""Established connections that were translated before conntrack, handed over to it while packets pass.

A table of the test's translates at the client's device, without state, as the packet path's programs do.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from handover_agent.conntrack.entries import Tuple
from handover_agent.conntrack.moving import Moving
from handover_agent.conntrack.netlink import Mover
from handover_agent.kubeproxy import keeper
from handover_agent.table import ip_bytes
from tests.node.netns import Connection, Namespace, Pod, connected, listening, run

pytestmark = pytest.mark.node
both_families = pytest.mark.parametrize("family", [4, 6])
each_way = pytest.mark.parametrize("masquerade", [False, True], ids=["kept", "masqueraded"])

CLIENT = {4: "10.244.1.200", 6: "fd00:244:0:1::200"}
SERVER = {4: "10.244.1.18", 6: "fd00:244:0:1::18"}
NODE = {4: "192.0.2.7", 6: "2001:db8::7"}
SERVICE = {4: "10.96.0.10", 6: "fd00:96::a"}


@pytest.fixture
def pods(node: Namespace) -> tuple[Pod, Pod]:
    for address in NODE.values():
        run("ip", "addr", "add", address, "dev", "lo")
    keeper.ensure()  # kube-proxy's own chains keep NAT in use as well
    return tuple(Pod(node, name, (at[4], at[6])) for name, at in (("client", CLIENT), ("server", SERVER)))  # type: ignore[return-value]


def translate(family: int, masquerade: bool) -> None:
    ip = "ip" if family == 4 else "ip6"
    back = f"{ip} saddr {SERVER[family]} tcp sport 8080 {ip} saddr set {SERVICE[family]} tcp sport set 80"
    forth = f"{ip} daddr {SERVICE[family]} tcp dport 80 {ip} daddr set {SERVER[family]} tcp dport set 8080"
    if masquerade:
        forth += " meta mark set 1"
    nat = "type nat hook postrouting priority 90; meta mark 1 meta l4proto tcp masquerade to :1024-29999 fully-random;"
    run(
        "nft",
        "-f",
        "-",
        given=f"""
        table netdev path {{
            chain forth {{ type filter hook ingress device client priority 0; {forth}; }}
            chain back {{ type filter hook egress device client priority 0; {back}; }}
        }}
        table inet sources {{ chain c {{ {nat} }}; }}
        """,
    )


def moving(family: int, port: int, client_port: int | None = None) -> Moving:
    client, service, server = (ip_bytes(at[family]) for at in (CLIENT, SERVICE, SERVER))
    return Moving(
        asked=Tuple(client, port, service, 80, socket.IPPROTO_TCP),
        seen=Tuple(client, client_port or port, server, 8080, socket.IPPROTO_TCP),
    )


def opened(client: Pod, server: Pod, family: int) -> Connection:
    return connected(client.inside, (SERVICE[family], 80), listening(server.inside, SERVER[family], 8080))


@each_way
@both_families
def test_a_connection_goes_on_without_the_programs(
    pods: tuple[Pod, Pod], family: int, masquerade: bool
) -> None:
    translate(family, masquerade)
    each = opened(*pods, family)
    assert each.alive()
    assert (each.served.getpeername()[0] == CLIENT[family]) is not masquerade
    with Mover() as mover:
        assert mover.move(moving(family, each.client.getsockname()[1]))
        run("nft", "delete table netdev path")
        run("nft", "delete table inet sources")
        assert [each.alive() for _ in range(3)] == [True] * 3
        assert not mover.move(moving(family, each.client.getsockname()[1])), "it was moved already"
    (line,) = entries()
    assert f"dst={SERVICE[4]}" in line or "0096" in line
    assert "ASSURED" in line
    each.served.close()
    assert each.client.recv(1) == b""
    each.client.close()


@both_families
def test_without_being_moved_it_dies(pods: tuple[Pod, Pod], family: int) -> None:
    translate(family, False)
    each = opened(*pods, family)
    run("nft", "delete table netdev path")
    assert not each.alive()
    each.close()


@each_way
def test_bytes_that_flow_meanwhile_arrive_whole_and_in_order(pods: tuple[Pod, Pod], masquerade: bool) -> None:
    translate(4, masquerade)
    each = opened(*pods, 4)
    each.client.settimeout(20)
    received = bytearray()
    with flooding(each.served), Mover() as mover:
        while len(received) < len(PATTERN) * 3:
            received += each.client.recv(1 << 20)
            if len(received) > len(PATTERN) and entries() and "dst=10.96" not in entries()[0]:
                assert mover.move(moving(4, each.client.getsockname()[1]))
                run("nft", "delete table netdev path")
        each.client.close()
    assert bytes(received) == (PATTERN * 4)[: len(received)]
    each.served.close()


PATTERN = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))


@contextmanager
def flooding(served: socket.socket) -> Iterator[None]:
    """One end sends the pattern again and again until the other one has closed."""
    served.settimeout(20)

    def send() -> None:
        with suppress(ConnectionError):
            while True:
                served.sendall(PATTERN)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def entries() -> list[str]:
    return [
        line for line in Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines() if "tcp" in line
    ]
