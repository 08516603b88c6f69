"""A lab of its own for the operator: the real API server and kube-proxy, the agents only pretend.

HANDOVER_E2E_KEEP=1 leaves the lab up, and the next run uses it again.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.kube import Kube
from e2e.lab import Lab
from e2e.lab.paths import CHECKOUT
from e2e.netns import Inside
from e2e.tests.operator.outside import OutsideOperator
from e2e.tests.operator.pretend import PretendedAgents
from e2e.trial import until

PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three nodes with kube-proxy, and our CustomResourceDefinitions."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    made = Lab("e2eoperator", nodes=3)
    made.up()
    made.kubectl("apply", "--server-side", "-k", str(CHECKOUT / "crds"))
    made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    yield made
    if not os.environ.get("HANDOVER_E2E_KEEP"):
        made.down()


@pytest.fixture(scope="session")
def kube(lab: Lab) -> Iterator[Kube]:
    """The lab's API."""
    with Inside(lab.plan.fabric_netns) as inside:
        yield Kube(inside, lab.plan.api4, lab.scratch.pki)


@pytest.fixture
def operator(lab: Lab, kube: Kube, tmp_path: Path) -> Iterator[OutsideOperator]:
    """A running operator. Afterwards there is no ProxyMigration, and kube-proxy is where it was."""
    made = OutsideOperator(lab, tmp_path)
    made.grant()
    made.start()
    try:
        yield made
        made.stop()
        made.start()
        for item in kube.list("ProxyMigration"):
            kube.delete("ProxyMigration", item["metadata"]["name"])
        until("no ProxyMigration is left", lambda: not kube.list("ProxyMigration"), PATIENCE_S)
    finally:
        made.stop(signal.SIGKILL)
        print(made.said())


@pytest.fixture
def agents(kube: Kube) -> Iterator[PretendedAgents]:
    """Agents that say yes to everything. Ask for them before `operator`, so that they outlive it."""
    with PretendedAgents(kube) as made:
        yield made
