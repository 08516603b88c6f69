"""How many examples the properties run: 2,000, or 50,000 with HANDOVER_HYPOTHESIS=more."""

import os

from hypothesis import HealthCheck, settings

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
settings.register_profile("unit", max_examples=2000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("more", max_examples=50_000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile(os.environ.get("HANDOVER_HYPOTHESIS", "unit"))
