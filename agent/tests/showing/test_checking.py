"""What `check` says of the packet path's programs, and of maps of other layouts."""

import pytest
from handover_agent import layouts
from handover_agent.checkup import devices_text, layouts_text
from handover_agent.devices import Device, Place, Role
from handover_agent.layout import LAYOUT
from handover_agent.packetpath.points import Direction, Point

pytestmark = pytest.mark.unit

ITSELF = Place(Device(1, "lo"), Role.ITSELF, "what the node sends to itself")
OWN = Place(Device(2, "eth0"), Role.OUTSIDE, "an uplink")
PORTS = [Place(Device(n, f"veth{n}"), Role.POD, "a pod's") for n in (7, 8)]
EVERYWHERE = {Point(n, direction) for n in (2, 7, 8) for direction in Direction}


def test_programs_where_they_belong_are_well() -> None:
    assert devices_text([OWN, *PORTS], EVERYWHERE) == ("on eth0 and 2 pods", True)


def test_the_loopback_device_has_a_program_where_the_kernel_can() -> None:
    assert devices_text([ITSELF, OWN, *PORTS], EVERYWHERE) == ("lo lacks to_itself", False)
    assert (
        devices_text([ITSELF, OWN], EVERYWHERE | {Point(1, Direction.EGRESS)})[0] == "on lo, eth0 and 0 pods"
    )
    assert devices_text([ITSELF, OWN], EVERYWHERE, ["to_itself", "from_node"]) == ("on eth0 and 0 pods", True)


def test_a_device_that_lacks_its_program_is_named_with_it() -> None:
    without = EVERYWHERE - {Point(8, Direction.INGRESS)}
    assert devices_text([OWN, *PORTS], without) == ("veth8 lacks from_pod", False)


def test_a_device_by_which_traffic_comes_in_unserved_is_told_of() -> None:
    tunnel = Place(Device(9, "ib0"), Role.NONE, "its packets have another header", concern=True)
    assert devices_text([OWN, tunnel], EVERYWHERE) == (
        "on eth0 and 0 pods; what comes in by these is not served: ib0 (its packets have another header)",
        True,
    )


def test_maps_of_another_layout_are_told_of_with_what_becomes_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layouts, "STEPS", (layouts.Step(1, LAYOUT, {}, {}),))
    own = str(LAYOUT)
    assert layouts_text([]) == layouts_text([own]) == []
    for pinned, said in (
        (["1"], "taken over when"),
        (["1", own], "changing over"),
        (["999"], "go back to the agent"),
    ):
        [finding] = layouts_text(pinned)
        assert not finding.ok
        assert said in finding.found
        assert f"layout {' and '.join(pinned)}, this agent has {own}" in finding.found
