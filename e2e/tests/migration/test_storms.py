"""A whole migration and back while nothing around it holds still, with traffic of all kinds: nothing is lost.

`make storms`, and not part of `make e2e`: it takes a quarter of an hour for each mode of kube-proxy, and all of two
cores (docs/behaviours.md).
"""

import os
from collections.abc import Iterator

import pytest
from handover_api.proxymigration import Phase

from e2e.migration import DIAGNOSTICS, Migration
from e2e.storms import Storm, raging, until_forgotten
from e2e.storms.agents import DyingAgents
from e2e.storms.devices import ComingAndGoing
from e2e.storms.flapping import FlappingEndpoints
from e2e.storms.recording import Recording, ports_of
from e2e.storms.rolling import PODS_UDP_PORT, UDP_PORT, RollingPods
from e2e.trial import until

pytestmark = pytest.mark.storms

STORMS = (RollingPods, FlappingEndpoints, DyingAgents, ComingAndGoing)
# HANDOVER_E2E_STORMS=RollingPods,DyingAgents lets only some of them rage, to find out whose fault something is.
CHOSEN = os.environ.get("HANDOVER_E2E_STORMS", "")
_WAY_S = 600.0
_RECORDED = DIAGNOSTICS / "recorded.txt"


@pytest.fixture
def storms(migration: Migration) -> list[Storm]:
    chosen = CHOSEN.split(",") if CHOSEN else [kind.__name__ for kind in STORMS]
    return [kind(migration.trial) for kind in STORMS if kind.__name__ in chosen]


@pytest.fixture(autouse=True)
def recorded(migration: Migration) -> Iterator[None]:
    """How far came what was lost is written down."""
    netns = [(node.name, node.netns) for node in migration.trial.lab.nodes]
    with Recording(netns, (UDP_PORT, PODS_UDP_PORT)) as recording:
        yield
        ports = ports_of(migration.trial.traffic.report().failures)
    if ports:
        _RECORDED.parent.mkdir(parents=True, exist_ok=True)
        _RECORDED.write_text("".join(f"{packet}\n" for packet in recording.of(ports)))
        print(f"packets of the ports {ports} are in {_RECORDED}")


def test_nothing_is_lost_while_pods_roll_endpoints_flap_agents_die_and_devices_come_and_go(
    migration: Migration, storms: list[Storm]
) -> None:
    with raging(migration.trial, storms):
        migration.ask("eBPF")
        migration.wait_for_phase(Phase.MIGRATED, within_s=_WAY_S)
        blown = {storm: storm.blown for storm in storms}
        until(
            "every storm has raged while all nodes were migrated",
            lambda: all(storm.blown > blown[storm] for storm in storms),
            _WAY_S,
            lambda: [f"{storm}: {storm.said()}" for storm in storms],
        )
        migration.ask("KubeProxy")
        migration.wait_for_phase(Phase.REVERSED, within_s=_WAY_S)
    until_forgotten(migration.trial, [storm.service for storm in storms if storm.service])
    print(*(f"{storm}: {storm.said()}" for storm in storms), sep="\n")
    for storm in storms:
        if isinstance(storm, DyingAgents):
            assert len(storm.programs) > 1, "no agent of the other version has loaded its programs"
