"""Packets between addresses that nobody serves are passed by; an address has its place before anything is found there."""

import pytest
from handover_agent.known import groups
from handover_agent.layout import KNOWN_GROUP_BYTES, KNOWN_GROUPS, place_of
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes
from tests.datapath import frames
from tests.datapath.frames import ACK, SYN
from tests.datapath.rig import Rig
from tests.datapath.trial import GO_ON, Trial

pytestmark = pytest.mark.datapath

CLIENT = {4: "10.244.1.2", 6: "fd00:244:1::2"}
BACKEND = {4: "10.244.2.2", 6: "fd00:244:2::2"}
SERVICE = {4: "10.96.0.10", 6: "fd00:96::10"}
both_families = pytest.mark.parametrize("family", [4, 6])


def segment(source: str, target: str, ports: tuple[int, int], flags: int, ack: int = 0) -> bytes:
    return frames.ip(frames.TCP, source, target, frames.tcp(*ports, flags, ack=ack))


def serve(rig: Rig, family: int) -> None:
    rig.expose(SERVICE[family], 80, [Backend(ip_bytes(BACKEND[family]), 8080)])


@both_families
def test_c_and_python_give_an_address_the_same_place(trial: Trial, trial_rig: Rig, family: int) -> None:
    """By what happens: a frontend in the map is found by packets only if its place is right."""
    for number in range(1, 100):
        address = f"10.96.7.{number}" if family == 4 else f"fd00:96:{number:x}::{number * 77:x}"
        trial_rig.expose(address, 80, [Backend(ip_bytes(BACKEND[family]), 8080)])
        trial("from_pod", segment(CLIENT[family], address, (40_000 + number, 80), SYN))
    assert trial_rig.counted()["packet_forwarded"] == 99


@both_families
def test_an_address_that_nobody_serves_is_not_looked_for(trial: Trial, trial_rig: Rig, family: int) -> None:
    """Shown by a frontend whose address has lost its place: it is there, and is not found."""
    unused = {4: "10.96.77.77", 6: "fd00:96:77::77"}[family]  # as an address that had flows keeps its place
    trial_rig.expose(unused, 80, [Backend(ip_bytes(BACKEND[family]), 8080)])
    trial_rig.forget_places()
    packet = segment(CLIENT[family], unused, (40_000, 80), SYN)
    assert trial("from_pod", packet).verdict == GO_ON
    assert trial_rig.counted() == {"packet_not_a_frontend": 1}


@both_families
def test_a_flow_is_found_after_its_frontend_has_gone(trial: Trial, trial_rig: Rig, family: int) -> None:
    serve(trial_rig, family)
    trial("from_pod", segment(CLIENT[family], SERVICE[family], (40_000, 80), SYN))
    trial_rig.withdraw(SERVICE[family], 80)
    trial_rig.forget_places()
    trial_rig.counted()
    there = trial("from_pod", segment(CLIENT[family], SERVICE[family], (40_000, 80), ACK))
    back = trial("outward", segment(BACKEND[family], CLIENT[family], (8080, 40_000), SYN | ACK, 1001))
    assert frames.read(there.packet).target == BACKEND[family]
    assert frames.read(back.packet).source == SERVICE[family]


def test_addresses_that_share_a_place_keep_it_while_one_of_them_is_served(
    trial: Trial, trial_rig: Rig
) -> None:
    """Taking one frontend away leaves the place: it may be another's, and costs one look-up at most."""
    serve(trial_rig, 4)
    trial_rig.expose("10.96.0.11", 80, [Backend(ip_bytes(BACKEND[4]), 8080)])
    trial_rig.remove(FrontendKey(ip_bytes("10.96.0.11"), 80, Protocol.TCP))
    trial("from_pod", segment(CLIENT[4], SERVICE[4], (40_001, 80), SYN))
    assert trial_rig.counted()["packet_forwarded"] == 1


@pytest.mark.unit
def test_places_are_inside_of_the_map_and_neighbours_have_different_ones() -> None:
    places = {place_of(ip_bytes(f"10.96.{n // 250}.{n % 250 + 1}")) for n in range(5000)}
    assert len(places) == 5000
    assert all(group < KNOWN_GROUPS and byte < KNOWN_GROUP_BYTES and bit < 8 for group, byte, bit in places)


@pytest.mark.unit
def test_groups_have_a_bit_for_each_address_and_no_other() -> None:
    addresses = [ip_bytes("10.96.0.1"), ip_bytes("10.96.0.2"), ip_bytes("fd00:96::1")]
    found = groups(addresses)
    assert sum(byte.bit_count() for content in found.values() for byte in content) == len(
        {place_of(address) for address in addresses}
    )
