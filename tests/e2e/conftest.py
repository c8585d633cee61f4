"""Failures in the shared checks show values, as those in tests do."""

import pytest

pytest.register_assert_rewrite("tests.e2e.crash", "tests.e2e.ends")
