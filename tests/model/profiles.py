"""How much is tried: `KEYTURN_TEST_PROFILE=thorough` takes minutes and other random numbers on every run."""

import os

from hypothesis import HealthCheck, settings

THOROUGH = os.environ.get("KEYTURN_TEST_PROFILE") == "thorough"

_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("quick", _COMMON, derandomize=True, max_examples=60)
settings.register_profile("thorough", _COMMON, max_examples=int(os.environ.get("KEYTURN_TEST_EXAMPLES", "5000")))
FUZZ = settings.get_profile("thorough" if THOROUGH else "quick")
