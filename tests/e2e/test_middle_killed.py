"""What happens while a phase is held and no operator runs: the next one finds it, and it ends in the same way (I9).

All these rotations are held at the same time; then kill -9; then everything happens; then another operator starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final

import pytest

from sandbox.stage import Stage
from tests.e2e import test_middle, test_middle_forward, test_middle_secret, test_middle_targets
from tests.e2e.middle import Case, all_played, each

_NAMES: Final = {
    "cancel in Finalizing",
    "deleted (Cancel) in Distributing",
    "deleted (Finalize) in Verifying",
    "edited in Starting",
    "edited in RollingOut",
    "reverted in Finalizing",
    "removed in Cancelling",
    "stamp taken off in RollingOut",
    "janrain: secret removed in RollingOut",
    "snaptrade: deleted in RollingOut",
}
_MODULES: Final = test_middle, test_middle_secret, test_middle_targets, test_middle_forward
CASES: Final = tuple(case for module in _MODULES for case in module.CASES if case.name in _NAMES)
assert {case.name for case in CASES} == _NAMES


@pytest.fixture(scope="module")
def killed(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """The cases, with the operator killed in the middle of all of them."""
    with all_played(stage, request, CASES, crash=True) as results:
        yield results


@each(CASES)
def test_killed(killed: dict[str, Future[None]], case: Case) -> None:
    """The same act, and the same end, as without the crash."""
    killed[case.name].result()
