"""Session affinity: a client stays with a backend of a Service port."""

import pytest
from handover_agent.table import FrontendFlags
from tests.datapath.pods import BACKENDS, VIPS, Pod, backends
from tests.datapath.rig import Rig

pytestmark = pytest.mark.datapath

VIP, OTHER_VIP = VIPS[4]
AFFINITY = FrontendFlags.AFFINITY
HOUR_S = 3600


def test_all_connections_of_a_client_reach_one_backend(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4), AFFINITY, HOUR_S, service_id=100)
    assert len({pod.tcp(VIP).answer() for _ in range(20)}) == 1
    counted = rig.counted()
    assert (counted["affinity_new"], counted["affinity_kept"]) == (1, 19)


def test_the_frontends_of_a_service_port_share_the_affinity(rig: Rig, pod: Pod) -> None:
    for address in (VIP, OTHER_VIP):
        rig.serve(address, backends(4), AFFINITY, HOUR_S, service_id=101)
    assert len({pod.tcp(address).answer() for address in (VIP, OTHER_VIP) * 10}) == 1


def test_services_do_not_share_it(rig: Rig, pod: Pod) -> None:
    reached = set()
    for service_id in range(200, 230):
        rig.serve(VIP, backends(4), AFFINITY, HOUR_S, service_id)
        reached.add(pod.tcp(VIP).answer())
    assert len(reached) == 3  # not so once in 10^5 runs, by 30 independent choices


def test_clients_do_not_share_it(rig: Rig, pod: Pod, other_pod: Pod) -> None:
    differ = False
    for service_id in range(300, 340):
        rig.serve(VIP, backends(4), AFFINITY, HOUR_S, service_id)
        differ |= pod.tcp(VIP).answer() != other_pod.tcp(VIP).answer()
    assert differ


def test_it_lasts_over_a_move_to_another_region(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (1,)), AFFINITY, HOUR_S, service_id=102)
    pod.tcp(VIP)
    rig.serve(VIP, backends(4), AFFINITY, HOUR_S, service_id=102)
    assert {pod.tcp(VIP).answer() for _ in range(20)} == {f"{BACKENDS[4][1]}:8080"}


def test_a_client_whose_backend_is_gone_gets_another_and_stays_there(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4, (0,)), AFFINITY, HOUR_S, service_id=103)
    pod.tcp(VIP)
    rig.serve(VIP, backends(4, (1, 2)), AFFINITY, HOUR_S, service_id=103)
    rig.counted()
    assert len({pod.tcp(VIP).answer() for _ in range(20)}) == 1
    assert rig.counted()["backend_gone"] == 1


def test_it_ends_with_its_time_out(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4), AFFINITY, timeout_s=0, service_id=104)  # over as soon as it began
    assert len({pod.tcp(VIP).answer() for _ in range(60)}) == 3
    assert rig.counted()["affinity_expired"] == 59


def test_datagrams_have_it_too(rig: Rig, pod: Pod) -> None:
    rig.serve(VIP, backends(4), AFFINITY, HOUR_S, service_id=105)
    assert len({pod.udp().ask(VIP) for _ in range(20)}) == 1
