"""What every test run shares: how hard the property tests look, and that CI skips nothing unnoticed.

Fixtures live beside the tests that use them, not here.
"""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.databases", "tests.unexpected_skips"]

# dev and ci are derandomised: the same code gives the same answer on every machine, so a red run is about the change
# and not about luck. explore looks for what those two do not find:
#   HYPOTHESIS_PROFILE=explore make unit ARGS="tests/property"
# Speed differs between machines and under load, so no example has a deadline.
_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "dev", derandomize=True, database=None, deadline=None, max_examples=100, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, max_examples=400, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "explore", deadline=None, max_examples=5000, print_blob=True, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("NIGHTSHIFT_CI") else "dev"))
