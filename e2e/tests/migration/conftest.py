"""A lab with live traffic for each mode of kube-proxy, brought up once and used by all tests of the mode.

Every test begins and ends with the cluster as it was recorded before Handover did anything, and with
nothing lost in between. A test that cannot get home costs the lab: the next one gets a new one.

HANDOVER_E2E_KEEP=1 leaves the labs up, and the next run uses them again. What could explain a failure is
written below build/e2e.
"""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import pytest

from e2e import footprint
from e2e.footprint import Footprint
from e2e.kube import KubeError
from e2e.lab import Lab, images
from e2e.migration import DIAGNOSTICS, Migration, losses, write_down
from e2e.traffic.collector import CollectorError
from e2e.trial import Trial, TrialError

MODES = ("iptables", "nftables")
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know on the way down whether their test has failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@dataclass(slots=True)
class Stage:
    """A lab and its traffic, made anew when a test has left them in no good state."""

    mode: str
    _trial: Trial | None = None
    installed: bool = False
    before: Footprint = field(default_factory=dict)

    def trial(self) -> Trial:
        """The lab with traffic on it."""
        if self._trial is None:
            lab = Lab(f"e2e{self.mode}", nodes=3, mode=self.mode)
            lab.up(preload_images=images.of_project(lab.progress))
            self._trial = Trial(lab)
            self._trial.start_traffic(outside=True)
        return self._trial

    def migration(self) -> Migration:
        """The same with Handover installed; what it looks like then is recorded."""
        migration = Migration(self.trial())
        if not self.installed:
            migration.trial.lab.install()
            migration.go_home()  # of an earlier run
            self.before = footprint.record(migration.trial.lab, migration.kube)
            self.installed = True
        return migration

    def strike(self) -> None:
        """Take the lab away."""
        if self._trial is not None:
            self._trial.close()
            self._trial.lab.down()
        self._trial, self.installed = None, False


@pytest.fixture(scope="session", params=MODES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A cluster of three nodes with kube-proxy in one of its modes."""
    made = Stage(request.param)
    yield made
    if not os.environ.get("HANDOVER_E2E_KEEP"):
        made.strike()


@pytest.fixture
def trial(stage: Stage) -> Trial:
    """The lab with traffic on it, without anything of ours."""
    return stage.trial()


@pytest.fixture
def migration(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Migration]:
    """The lab with traffic, with Handover installed and nothing asked of it.

    After the test: back home, everything as it was recorded, nothing lost since the test began.
    """
    made = stage.migration()
    trial, name = made.trial, request.node.name
    trial.wait_until_calm(requests=2_000)
    trial.traffic.phase(name)
    try:
        yield made
    finally:
        failed = bool(request.node.stash.get(_FAILED, False))
        if failed:
            _explain(trial, name)
        try:
            made.go_home()
            made.wait_for_footprint(stage.before)
        except (TrialError, KubeError, CollectorError):
            if not failed:
                _explain(trial, name)
            stage.strike()
            raise
    trial.traffic.phase("between tests")
    report = trial.traffic.settled(name)
    found = losses(report, {phase.name for phase in report.phases if phase.name.startswith(name)})
    if found and not failed:
        _explain(trial, name)
    assert not found, found


def _explain(trial: Trial, name: str) -> None:
    directory = DIAGNOSTICS / name.replace("/", "-").replace("[", "-").rstrip("]")
    write_down(trial, directory)
    print(f"\n{Migration(trial).picture()}\nmore in {directory}")
