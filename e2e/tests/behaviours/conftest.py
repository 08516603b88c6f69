"""One lab for all behaviours, brought up once.

HANDOVER_E2E_KEEP=1 leaves it up, and the next run uses it again.
"""

import os
from collections.abc import Iterator

import pytest

from e2e.behaviours.stage import Stage

NAME = "e2ebehaviours"


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Three nodes with everybody on them: kube-proxy in nftables mode, in iptables mode, and none."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    made = Stage.open(NAME)
    yield made
    made.close()
    if not os.environ.get("HANDOVER_E2E_KEEP"):
        made.lab.down()


@pytest.fixture(autouse=True)
def cleared(stage: Stage) -> Iterator[None]:
    """What a test makes goes with it."""
    yield
    stage.clear()
