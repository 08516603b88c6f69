"""A lab with live traffic for each mode of kube-proxy, brought up once and used by all tests of the mode.

HANDOVER_E2E_KEEP=1 leaves the labs up, and the next run uses them again.
"""

import os
from collections.abc import Iterator

import pytest

from e2e.lab import Lab
from e2e.trial import Trial

MODES = ("iptables", "nftables")


@pytest.fixture(scope="session", params=MODES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A cluster of three nodes with kube-proxy in one of its modes."""
    made = Lab(f"e2e{request.param}", nodes=3, mode=request.param)
    made.up()
    yield made
    if not os.environ.get("HANDOVER_E2E_KEEP"):
        made.down()


@pytest.fixture(scope="session")
def trial(lab: Lab) -> Iterator[Trial]:
    """The same with traffic on it, which runs through all tests."""
    made = Trial(lab)
    made.start_traffic()
    yield made
    made.close()
