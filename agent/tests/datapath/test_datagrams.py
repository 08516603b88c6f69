"""Datagrams of sockets that name their destination each time, and of sockets that are connected."""

import errno
from pathlib import Path

import pytest
from handover_agent import bpfmap, bpfsys, layout
from handover_agent.datapath import Datapath
from handover_agent.table import Backend, FrontendFlags
from tests.datapath.pods import BACKENDS, UDP, VIPS, Pod, Refused, backends, frontend
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

VIP, OTHER_VIP = VIPS[4]
NONE, DROP, AFFINITY = FrontendFlags.NONE, FrontendFlags.DROP, FrontendFlags.AFFINITY
FAMILIES = {"4": (4, 4, VIPS[4][0]), "6": (6, 6, VIPS[6][0]), "mapped": (4, 6, f"::ffff:{VIPS[4][0]}")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_datagram_reaches_a_backend_and_its_answer_comes_from_the_frontend(
    rig: Rig, pod: Pod, family: str
) -> None:
    version, of_socket, address = FAMILIES[family]
    rig.serve(VIPS[version][0], backends(version, (1,)))
    asking = pod.udp(of_socket)
    asking.sendto(address)
    host = BACKENDS[version][1]
    assert asking.answer_from() == (f"[{host}]:8080" if version == 6 else f"{host}:8080", address, 80)
    assert rig.counted() == {"sendmsg_translated": 1, "recvmsg_restored": 1}


def test_a_socket_keeps_its_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4))
    asking = pod.udp()
    assert len({asking.ask(VIP) for _ in range(30)}) == 1
    counted = rig.counted()
    assert (counted["sendmsg_translated"], counted["sendmsg_kept"]) == (1, 29)


def test_sockets_spread_over_all_backends(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4))
    reached = [pod.udp().ask(VIP) for _ in range(120)]
    assert {host: reached.count(f"{host}:8080") >= 10 for host in BACKENDS[4]} == dict.fromkeys(
        BACKENDS[4], True
    )


def test_a_socket_whose_backend_is_gone_gets_another(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    assert asking.ask(VIP) == "192.0.2.11:8080"
    rig.serve(VIP, backends(4, (1, 2)))
    assert asking.ask(VIP) in ("192.0.2.12:8080", "192.0.2.13:8080")
    assert rig.counted() | {"recvmsg_restored": 0} == {
        "sendmsg_translated": 2,
        "backend_gone": 1,
        "recvmsg_restored": 0,
    }


@pytest.mark.parametrize("others", [(1,), ()], ids=["others", "no-other"])
def test_a_socket_keeps_a_backend_that_gets_no_new_ones_as_long_as_it_serves(
    rig: Rig, pod: Pod, others: tuple[int, ...]
) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    assert asking.ask(VIP) == "192.0.2.11:8080"
    rig.serve(VIP, backends(4, others), NONE if others else DROP, draining=backends(4, (0, 2)))
    rig.counted()
    assert {asking.ask(VIP) for _ in range(5)} == {"192.0.2.11:8080"}
    assert rig.counted()["sendmsg_kept"] == 5
    if others:
        assert pod.udp().ask(VIP) == "192.0.2.12:8080"
    rig.serve(VIP, backends(4, (1,)), draining=backends(4, (2,)))
    assert asking.ask(VIP) == "192.0.2.12:8080"


def test_a_client_with_affinity_has_new_sockets_sent_to_whom_new_ones_go(rig: Rig, pod: Pod) -> None:
    service_id = 4711
    rig.serve(VIP, backends(4, (0,)), AFFINITY, 60, service_id)
    old = pod.udp()
    assert old.ask(VIP) == "192.0.2.11:8080"
    rig.serve(VIP, backends(4, (1,)), AFFINITY, 60, service_id, backends(4, (0,)))
    assert pod.udp().ask(VIP) == "192.0.2.12:8080"
    assert old.ask(VIP) == "192.0.2.11:8080"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_socket_keeps_its_backend_when_the_service_moves_to_another_region(
    rig: Rig, pod: Pod, which: int
) -> None:
    rig.serve(VIP, backends(4, (which,)))
    asking = pod.udp()
    before = asking.ask(VIP)
    rig.serve(VIP, backends(4))
    assert {asking.ask(VIP) for _ in range(20)} == {before}
    assert rig.counted()["sendmsg_kept"] == 20


def test_a_socket_keeps_its_backend_among_others_at_the_same_address(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    asking.ask(VIP)
    address = backends(4)[0].address
    rig.serve(VIP, [Backend(address, port) for port in range(8074, 8081)])
    assert {asking.ask(VIP) for _ in range(20)} == {"192.0.2.11:8080"}
    assert "backend_gone" not in rig.counted()


def test_an_answer_of_the_earlier_backend_still_comes_from_the_frontend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    asking = pod.udp()
    asking.sendto(VIP)
    rig.serve(VIP, backends(4, (1,)))
    asking.sendto(VIP)
    answers = {asking.answer_from() for _ in range(2)}
    assert answers == {("192.0.2.11:8080", VIP, 80), ("192.0.2.12:8080", VIP, 80)}


def test_one_socket_talks_to_several_frontends_and_to_backends_directly(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)))
    rig.serve(OTHER_VIP, backends(4, (1,)))
    asking = pod.udp()
    for address, port, who in ((VIP, 80, 0), (OTHER_VIP, 80, 1), (BACKENDS[4][2], 8080, 2)):
        asking.sendto(address, port)
        assert asking.answer_from() == (f"{BACKENDS[4][who]}:8080", address, port)
    assert rig.counted() == {
        "sendmsg_translated": 2,
        "recvmsg_restored": 2,
        "not_a_frontend": 1,
        "recvmsg_no_entry": 1,
    }


def test_one_backend_behind_two_frontends_answers_for_the_one_used_last(rig: Rig, pod: Pod) -> None:
    for address in (VIP, OTHER_VIP):
        rig.serve(address, backends(4, (0,)))
    asking = pod.udp()
    for address in (VIP, OTHER_VIP, VIP):
        asking.sendto(address)
        assert asking.answer_from() == ("192.0.2.11:8080", address, 80)


def test_an_unconnected_socket_is_refused_when_there_is_no_endpoint(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, [], FrontendFlags.REFUSE)
    asking = pod.udp()
    with pytest.raises(Refused) as refused:
        asking.sendto(VIP)
    assert refused.value.errno == errno.ECONNREFUSED
    rig.serve(VIP, backends(4, (0,)))
    assert asking.ask(VIP) == "192.0.2.11:8080"


def test_a_connected_socket_that_names_its_destination_reaches_the_same_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4))
    asking = pod.udp()
    asking.connect(VIP)
    asking.send()
    first = asking.answer()
    assert {asking.ask(VIP) for _ in range(10)} == {first}


def test_connecting_again_reaches_the_same_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4))
    asking = pod.udp()
    reached = set()
    for _ in range(10):
        asking.connect(VIP)
        asking.send()
        reached.add(asking.answer())
        asking.disconnect()
    assert len(reached) == 1


def test_a_socket_that_was_connected_to_the_frontend_before_us_is_left_alone(
    rig: Rig, datapath: Datapath, pod: Pod
) -> None:
    asking = pod.udp()
    asking.connect(VIP)  # nothing of ours is there yet: it is connected to the frontend itself
    rig.counted()
    rig.serve(VIP, backends(4))
    asking.sendto(VIP)
    assert asking.answer_from() == (f"{VIP}:80", VIP, 80)
    asking.send()
    assert asking.answer() == f"{VIP}:80"
    assert rig.counted()["connected_left"] == 1


def test_a_socket_of_ipv6_that_was_connected_before_us_is_left_alone(rig: Rig, pod: Pod) -> None:
    asking = pod.udp(6)
    asking.connect(VIPS[6][0])
    rig.counted()
    rig.serve(VIPS[6][0], backends(6))
    assert asking.ask(VIPS[6][0]) == f"[{VIPS[6][0]}]:80"
    assert rig.counted()["connected_left"] == 1


def test_a_removed_frontend_is_left_alone_at_once(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4))
    asking = pod.udp()
    asking.ask(VIP)
    rig.remove(frontend(VIP, UDP))
    assert asking.ask(VIP) == f"{VIP}:80"


def forward_entries(bpffs: Path) -> int:
    with bpfsys.obj_get(bpffs / "shared" / f"maps-{layout.LAYOUT}" / "forward") as forward:
        return len(list(bpfmap.keys(forward.fd, 32)))


def test_closing_a_socket_forgets_all_that_it_talked_to(rig: Rig, pod: Pod, bpffs: Path) -> None:
    rig.serve(VIP, backends(4, (0,)))
    rig.serve(OTHER_VIP, backends(4, (1,)))
    before, forward_before = rig.datapath.remembered.translated(), forward_entries(bpffs)
    asking = pod.udp()
    for address in (VIP, OTHER_VIP, VIP):
        asking.ask(address)
    assert rig.datapath.remembered.translated() == before + 2
    asking.close()
    assert (rig.datapath.remembered.translated(), forward_entries(bpffs)) == (before, forward_before)
    assert rig.counted()["released"] == 2


def test_closing_a_socket_with_very_many_frontends_is_counted_as_incomplete(rig: Rig, pod: Pod) -> None:
    # 17 backends of one socket: one address each, of which 3 answer; nobody waits for the others
    asking = pod.udp()
    for n in range(17):
        address = f"10.96.1.{n}"
        rig.serve(address, [Backend(backends(4)[0].address, 9000 + n)])
        asking.sendto(address)
    asking.close()
    counted = rig.counted()
    assert (counted["released"], counted["release_truncated"]) == (16, 1)


def test_closing_a_socket_that_never_was_translated_is_counted(rig: Rig, pod: Pod) -> None:
    pod.udp().close()
    assert rig.counted() == {"release_no_entry": 1}
