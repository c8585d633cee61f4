"""A sample of the faults of `make chaos`, and of the seeded bugs that only faults show."""

from __future__ import annotations

from typing import Final

import pytest

from sandbox.stage import Stage
from tests.chaos.campaign import Reference, all_caught, campaign, references
from tests.chaos.faultbugs import FAULT_BUGS
from tests.chaos.faults import FAULTS, fault_plans
from tests.chaos.scenarios import SUCCESS, Scenario

PARALLEL: Final = 5  # most of them wait, most of the time
_CHOSEN: Final = {
    "stytch success, API 503 from the provider's answer on",
    "stytch success, API 429 from the provider's answer on",
    "stytch success, 410 in the middle of a paged list",
    "stytch success, token expires at the provider's answer",
    "stytch success, watches 500 in stream",
    "stytch success, events dropped: ADDED, MODIFIED, DELETED",
    "stytch success, stale reads of Keyturn's objects",
    "snaptrade success, start truncated, applied",
    "snaptrade success, operator's clock an hour ahead, which the provider minds",
}
_CAUGHT: Final = {"nothing is swept", "Retry-After is ignored while an answer is in memory"}


@pytest.fixture(scope="module")
def known(stage: Stage) -> dict[Scenario, Reference]:
    scenarios = [Scenario(provider, SUCCESS) for provider in ("stytch", "snaptrade")]
    return references(stage, PARALLEL, runs=1, scenarios=scenarios)


@pytest.mark.timeout(300)
def test_faults_are_survived(stage: Stage, known: dict[Scenario, Reference]) -> None:
    """I1-I5, I7-I9, I12: the same end as that of an undisturbed run, or the one that is prescribed."""
    plans = [plan for plan in fault_plans() if str(plan) in _CHOSEN]
    assert len(plans) == len(_CHOSEN)
    result = campaign(stage, known, plans, parallel=PARALLEL)
    assert {str(one.plan): one.violations for one in result.failed} == {}
    assert result.unreached == []


@pytest.mark.timeout(300)
def test_bugs_are_caught(stage: Stage, known: dict[Scenario, Reference]) -> None:
    """The harness is no good if it lets these through."""
    chosen = [bug for bug in FAULT_BUGS if bug.name in _CAUGHT]
    assert len(chosen) == len(_CAUGHT)
    found = all_caught(stage, known, chosen, PARALLEL)
    assert [name for name, evidence in found.items() if evidence is None] == []


def test_names_are_unique() -> None:
    plans = [str(plan) for plan in fault_plans()]
    assert len(set(plans)) == len(plans)
    assert len({fault.name for fault in FAULTS}) > 100
