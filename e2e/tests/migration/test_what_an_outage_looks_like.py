"""The traffic sees a loss: none while nothing happens, and the outage of a naive migration.

Its name puts it behind the other modules: it costs the lab, which then nobody has to bring up again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from e2e import naive
from e2e.lab import Node
from e2e.traffic.report import Phase
from e2e.trial import Trial, until

if TYPE_CHECKING:
    from e2e.tests.migration.conftest import Stage

pytestmark = pytest.mark.e2e

ENOUGH = 20_000  # requests: some seconds of all clients
STREAMS = ("tcp4 new", "tcp6 new", "udp4 fresh unconnected", "udp6 fresh connected", "dns4 fresh connected")


def current(trial: Trial, name: str) -> Phase:
    return trial.traffic.report().phase(name)


def lost_somewhere_on(trial: Trial, nodes: list[Node], since: dict[str, int]) -> bool:
    """Whether both clients of every node have lost more than before."""
    lost = {client.name: client.lost for client in trial.traffic.report().clients}
    return all(
        lost[name] > since[name] + 20 for node in nodes for name in (f"{node.name}/pod", f"{node.name}/node")
    )


@pytest.fixture
def doomed(stage: "Stage") -> Iterator[Trial]:
    """A lab that nobody uses afterwards: new connections were refused for a minute after kube-proxy was back, on
    every node. Most likely the outage's conntrack entries, which have no translation, caught reused ports.
    """
    yield stage.trial()
    stage.strike()


def test_the_naive_migration_is_reported_as_an_outage_and_nothing_is_lost_before_it(doomed: Trial) -> None:
    trial = doomed
    trial.traffic.phase("before the naive migration")
    trial.wait_for_requests(ENOUGH)
    trial.traffic.phase("naive migration")
    before = trial.traffic.settled("before the naive migration").phase("before the naive migration")
    assert before.lost() == {}
    assert all(before.streams[stream].answered for stream in STREAMS)

    since = {client.name: client.lost for client in trial.traffic.report().clients}
    naive.remove_kube_proxy(trial.lab, trial.kube)
    until(
        "both clients of every node report the outage",
        lambda: lost_somewhere_on(trial, trial.lab.nodes, since),
        60,
        lambda: current(trial, "naive migration").lost(),
    )
    trial.traffic.phase("after the naive migration")
    outage = trial.traffic.settled("naive migration").phase("naive migration")
    assert set(STREAMS) <= outage.lost().keys(), outage.lost()
    kinds = {kind for stream in ("tcp4 new", "tcp6 new") for kind in outage.streams[stream].lost}
    assert kinds <= {"connect-timeout", "connect-refused", "connect-unreachable", "request-timeout"}, kinds
