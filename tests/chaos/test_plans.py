"""A sample of `make chaos`: some of the plans, and the seeded bugs that they catch; the rest takes an hour."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest

from sandbox.stage import Stage
from tests.chaos.bugs import BUGS, Bug
from tests.chaos.campaign import Reference, all_caught, campaign, references
from tests.chaos.faultbugs import FAULT_BUGS
from tests.chaos.scenarios import Scenario

SEED: Final = 20261122
PLANS: Final = 24
PARALLEL: Final = 3
_CAUGHT: Final = {"an unknown outcome is called again", "the new value is logged", "a stale index is trusted"}


@pytest.fixture(scope="module")
def known(stage: Stage) -> dict[Scenario, Reference]:
    return references(stage, PARALLEL, runs=1)


@pytest.mark.timeout(300)
def test_plans_converge(stage: Stage, known: dict[Scenario, Reference]) -> None:
    """I1-I5, I7-I9, I12: whatever request it is, and whatever happens at it."""
    plans = [plan for reference in known.values() for plan in reference.plans()]
    assert len(plans) > 500
    result = campaign(stage, known, random.Random(SEED).sample(plans, PLANS), parallel=PARALLEL)
    assert {str(one.plan): one.violations for one in result.failed} == {}
    assert result.missed == []


@pytest.mark.timeout(300)
def test_bugs_are_caught(stage: Stage, known: dict[Scenario, Reference]) -> None:
    """The harness is no good if it lets these through."""
    chosen = [bug for bug in BUGS if bug.name in _CAUGHT]
    assert len(chosen) == len(_CAUGHT)
    found = all_caught(stage, known, chosen, PARALLEL)
    assert [name for name, evidence in found.items() if evidence is None] == []


@pytest.mark.parametrize("bug", [*BUGS, *FAULT_BUGS], ids=lambda bug: bug.name)
def test_bugs_fit_the_source(bug: Bug, tmp_path: Path) -> None:
    """Each edit is of a text that is there, once."""
    assert (bug.install(tmp_path) / "keyturn" / "rotation").is_dir()
