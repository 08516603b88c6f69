"""The packet path's table: what the kernel does with marked packets, and that it comes and goes whole.

The marks are put on by a table of the test's; what the programs do with them is tested with the programs.
"""

import errno
import re
import socket

import pytest
from handover_agent.kubeproxy import forwarding, keeper
from handover_agent.marks import Mark
from handover_agent.packetpath import rules
from tests.node.netns import Namespace, Pod, run

pytestmark = pytest.mark.node
both_families = pytest.mark.parametrize("family", [4, 6])
both_kinds = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])

CLIENT = {4: "10.244.1.200", 6: "fd00:244:0:1::200"}
SERVER = {4: "10.244.1.18", 6: "fd00:244:0:1::18"}
NODE = {4: "169.254.1.1", 6: "fe80::1"}


@pytest.fixture
def client(node: Namespace) -> Pod:
    return Pod(node, "client", (CLIENT[4], CLIENT[6]))


@pytest.fixture
def server(node: Namespace) -> Pod:
    return Pod(node, "server", (SERVER[4], SERVER[6]))


@pytest.fixture
def addressed(node: Namespace) -> Namespace:
    """A node with an address that packets may have as their source."""
    run("ip", "addr", "add", "192.0.2.7/32", "dev", "lo")
    run("ip", "addr", "add", "2001:db8::7/128", "dev", "lo")
    return node


def mark(mark: Mark) -> None:
    """Packets of the client get a mark, as the programs put it on."""
    head = "type filter hook prerouting priority -300;"
    rule = f'iifname "client" meta l4proto {{ tcp, udp }} meta mark set meta mark | {mark:#x};'
    table = f"table inet marks {{ chain c {{ {head} {rule} }}; }}"
    run("nft", "-f", "-", given=table)


def asked(client: Pod, server: Pod, family: int, kind: socket.SocketKind) -> tuple[str, int]:
    """Where the server sees a client's first packet come from; the answer has come back."""
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    with server.inside.entered():
        listener = socket.socket(af, kind)
    with client.inside.entered():
        asking = socket.socket(af, kind)
    with listener, asking:
        for each in (listener, asking):
            each.settimeout(5)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((SERVER[family], 8080))
        if kind == socket.SOCK_DGRAM:
            asking.sendto(b"?", (SERVER[family], 8080))
            _, seen = listener.recvfrom(1)
            listener.sendto(b"!", seen)
            assert asking.recvfrom(1)[1][:2] == (SERVER[family], 8080)
            return str(seen[0]), int(seen[1])
        listener.listen()
        asking.connect((SERVER[family], 8080))
        served, seen = listener.accept()
        served.close()
        return str(seen[0]), int(seen[1])


@both_kinds
@both_families
def test_a_marked_flow_gets_the_nodes_address_and_a_port_that_is_no_node_port(
    addressed: Namespace, client: Pod, server: Pod, family: int, kind: socket.SocketKind
) -> None:
    rules.ensure()
    assert asked(client, server, family, kind)[0] == CLIENT[family]
    mark(Mark.OURS | Mark.MASQUERADE)
    seen = [asked(client, server, family, kind) for _ in range(20)]
    assert CLIENT[family] not in {address for address, _ in seen}
    assert all(1024 <= port < 30000 for _, port in seen)
    assert len({port for _, port in seen}) > 10, "ports are drawn at random"
    others = rules.free_ports({2000, 30000, 60000})
    rules.ensure(others)
    assert all(asked(client, server, family, kind)[1] in others for _ in range(10))


@both_families
def test_what_was_masqueraded_is_not_marked_for_it_any_more(
    addressed: Namespace, client: Pod, server: Pod, family: int
) -> None:
    """A packet's mark goes on to the packet that a tunnel puts around it."""
    rules.ensure()
    mark(Mark.OURS | Mark.MASQUERADE)
    head = "type filter hook postrouting priority 300;"
    seen = " ".join(f"meta mark & {bits:#x} == {bits:#x} counter;" for bits in (0x1000, Mark.OURS))
    run("nft", "-f", "-", given=f"table inet seen {{ chain c {{ {head} {seen} }}; }}")
    assert asked(client, server, family, socket.SOCK_STREAM)[0] != CLIENT[family]
    counts = re.findall(r"counter packets (\d+)", run("nft", "list", "table", "inet", "seen"))
    assert counts[0] == "0"
    assert int(counts[1]) > 0, "what tells that we translated it stays"


@both_kinds
@both_families
@pytest.mark.parametrize("forwarded", [True, False], ids=["forwarded", "to the node"])
def test_a_refused_packet_is_answered(
    node: Namespace, client: Pod, server: Pod, family: int, kind: socket.SocketKind, forwarded: bool
) -> None:
    rules.ensure()
    mark(Mark.REFUSE)
    run("nft", "add table inet quiet")  # the node's own refusals must not be taken for ours
    run("nft", "add chain inet quiet c { type filter hook input priority 10; }")
    run("nft", "add rule inet quiet c meta l4proto { tcp, udp } drop")
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    to = SERVER[family] if forwarded else NODE[family]
    with client.inside.entered():
        scope = socket.if_nametoindex("eth0") if to.startswith("fe80") else 0
        with socket.socket(af, kind) as asking, pytest.raises(ConnectionRefusedError) as refused:
            asking.settimeout(5)
            asking.connect((to, 9) if family == 4 else (to, 9, 0, scope))
            asking.send(b"?")
            asking.recv(1)
    assert refused.value.errno == errno.ECONNREFUSED


def test_the_table_comes_once_stays_whole_and_goes_completely(node: Namespace) -> None:
    rules.remove()
    assert not rules.present()
    keeper.ensure()
    before = run("nft", "list", "ruleset")
    rules.ensure()
    whole = run("nft", "list", "ruleset")
    rules.ensure()
    assert run("nft", "list", "ruleset") == whole
    for damage in (
        "flush chain inet handover-path sources",
        "delete chain inet handover-path arriving",
        "add rule inet handover-path forwarding drop comment foreign",
        "delete table inet handover-path",
    ):
        if damage.startswith("delete chain"):
            run("nft", "flush chain inet handover-path arriving")
        run("nft", damage)
        assert not rules.present()
        rules.ensure()
        assert run("nft", "list", "ruleset") == whole
    rules.ensure(range(40000, 50000))
    assert (rules.present(), rules.present(range(40000, 50000))) == (False, True)
    rules.ensure()
    assert run("nft", "list", "ruleset") == whole
    rules.remove()
    assert run("nft", "list", "ruleset") == before


def test_where_forward_drops_translated_packets_are_accepted(
    node: Namespace, client: Pod, server: Pod
) -> None:
    run("iptables-nft-restore", given=KUBE_FORWARD)
    forwarding.ensure()
    before = run("iptables-nft-save")
    forwarding.ensure()
    assert run("iptables-nft-save") == before
    with pytest.raises(TimeoutError):
        asked(client, server, 4, socket.SOCK_DGRAM)
    mark(Mark.OURS)
    assert asked(client, server, 4, socket.SOCK_DGRAM)[0] == CLIENT[4]


KUBE_FORWARD = """\
*filter
:FORWARD DROP [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
