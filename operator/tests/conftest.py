"""Lets the tests of this folder import what they share, and how many examples the properties run."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
settings.register_profile("unit", max_examples=2000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("more", max_examples=50_000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile(os.environ.get("HANDOVER_HYPOTHESIS", "unit"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write operator/tests/golden anew")
