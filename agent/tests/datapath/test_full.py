"""Maps without room: what cannot be remembered is not translated, and counted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from handover_agent.bpfmap import MapType
from handover_agent.datapath import Datapath
from handover_agent.layout import Sizes, counter_names, map_specs
from handover_agent.table import FrontendFlags, FrontendValue, MapFull
from tests.datapath.compiling import pin_packet_programs
from tests.datapath.frames import UDP, ip, udp
from tests.datapath.pods import TCP, VIPS, Pod, backends, frontend
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, Trial

pytestmark = pytest.mark.datapath

VIP, OTHER_VIP = VIPS[4]
BACKEND = "192.0.2.11:8080"
SMALL = Sizes(frontends=8, backends=64, sockets=64, affinity=64)


def loaded(own: Datapath, full: str) -> Iterator[Rig]:
    """A datapath whose map `full` holds one entry only: an LRU would make room."""
    specs = map_specs(SMALL)
    own.load_maps(
        replace(spec, type=MapType.HASH, max_entries=1) if spec.name == full else spec for spec in specs
    )
    own.attach()
    with Rig(own) as rig:
        rig.serve(VIP, backends(4, (0,)), FrontendFlags.AFFINITY, 3600, service_id=1)
        rig.serve(OTHER_VIP, backends(4, (0,)), FrontendFlags.AFFINITY, 3600, service_id=2)
        yield rig


@pytest.mark.parametrize("full", ["reverse", "sockets"])
def test_a_connection_that_cannot_be_remembered_is_left_alone(
    own: Datapath, no_compiler: None, own_pod: Pod, full: str
) -> None:
    for rig in loaded(own, full):
        first = own_pod.tcp(VIP)
        assert first.answer() == BACKEND
        assert own_pod.tcp(VIP).answer() == f"{VIP}:80"
        assert rig.counted()["error_reverse_not_written"] == 1
        assert own.remembered.translated() == 1  # nothing half written stays behind
        first.close()
        assert own.remembered.translated() == 0


def test_a_datagram_whose_choice_cannot_be_remembered_is_sent_to_a_backend(
    own: Datapath, no_compiler: None, own_pod: Pod
) -> None:
    for rig in loaded(own, "forward"):
        assert own_pod.udp().ask(VIP) == BACKEND
        second = own_pod.udp()
        second.sendto(VIP)
        assert second.answer_from() == (BACKEND, VIP, 80)
        assert rig.counted()["error_forward_not_written"] == 1


def test_affinity_that_cannot_be_remembered_is_counted(
    own: Datapath, no_compiler: None, own_pod: Pod
) -> None:
    for rig in loaded(own, "affinity"):
        for address in (VIP, OTHER_VIP):
            assert own_pod.tcp(address).answer() == BACKEND
        assert rig.counted()["error_affinity_not_written"] == 1


def test_a_flow_that_cannot_be_remembered_is_left_alone(
    own: Datapath, no_compiler: None, packet_compiled: dict[str, bytes], bpffs: Path
) -> None:
    """Without its entries, its answers would be the backend's."""
    for rig in loaded(own, "flows"):
        pin_packet_programs(packet_compiled, bpffs / "own", bpffs / "own" / "packets")
        packet = ip(UDP, "10.244.1.2", VIP, udp(40000, 80))
        outcome = Trial(bpffs / "own" / "packets")("from_pod", packet)
        assert (outcome.verdict, outcome.packet, outcome.mark) == (GO_ON, packet, 0)
        assert rig.counted() | {"affinity_new": 0} == {"error_flow_not_written": 1, "affinity_new": 0}


def test_pieces_that_cannot_be_remembered_are_counted(
    own: Datapath, no_compiler: None, packet_compiled: dict[str, bytes], bpffs: Path
) -> None:
    for rig in loaded(own, "fragments"):
        pin_packet_programs(packet_compiled, bpffs / "own", bpffs / "own" / "packets")
        trial = Trial(bpffs / "own" / "packets")
        for number in (1, 2):
            trial("from_pod", ip(UDP, "10.244.1.2", VIP, udp(1, 80), piece=(0, True), number=number))
        assert rig.counted()["error_fragment_not_written"] == 1


def test_more_frontends_than_the_map_holds_is_an_error_that_says_so(own: Datapath, no_compiler: None) -> None:
    own.load_maps(map_specs(SMALL))
    with own.maps() as maps:
        wanted = {frontend(VIP, TCP, port): FrontendValue(0, 1, 1) for port in range(1, 10)}
        with pytest.raises(MapFull, match="frontends is full: it holds 8 entries, 9 are wanted"):
            maps.write_frontends(wanted)
        assert len(maps.read_frontends()) == 8


def test_backends_outside_of_the_array_are_an_error_that_says_so(own: Datapath, no_compiler: None) -> None:
    own.load_maps(map_specs(SMALL))
    with own.maps() as maps:
        for offset in (62, 64, -1):
            with pytest.raises(MapFull, match="backends is full: it holds 64 entries"):
                maps.write_backends(offset, backends(4))
            with pytest.raises(MapFull):
                maps.read_backends(offset, 3)
        assert maps.read_backends(61, 3) == [maps.read_backends(0, 1)[0]] * 3  # nothing was written


def test_every_counter_is_reached_by_a_test() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    counted = [
        name for name, meaning in counter_names().items() if not meaning.startswith("Not counted any more")
    ]
    assert [name for name in counted if f'"{name}"' not in text] == []
