"""Crashes, lost replies and refused requests at every effect: the end is that of an undisturbed run (I9)."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import pytest

from keyturn.rotation.steps import Rest
from keyturn.rotation.world import Operation
from tests.model.fakeprovider import ORIGINAL
from tests.model.lab import Disturbance, Lab
from tests.model.profiles import THOROUGH
from tests.model.scenarios import SCENARIOS, Scenario

by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@cache
def effects(name: str) -> tuple[str, ...]:
    """What an undisturbed run does, in order."""
    lab = next(scenario for scenario in SCENARIOS if scenario.name == name).build()
    lab.run()
    return tuple(lab.log)


def assert_ended(lab: Lab, scenario: Scenario) -> None:
    status, secret = lab.resource.parsed(), lab.namespace.secret
    assert status.phase is scenario.phase, (lab.log, lab.resource.status)
    assert status.rotation is None
    assert secret is not None
    assert secret.value == lab.provider.current, "the Secret does not hold the value in force"
    assert (secret.value != ORIGINAL) is scenario.fresh
    assert secret.previous is None
    assert lab.provider.pending is None
    assert lab.journal is None
    assert not lab.resource.finalizer
    assert {pod.held for pod in lab.namespace.pods} <= {secret.value}
    for deployment in lab.namespace.deployments.values():
        assert all(count == 1 for count in deployment.stamps.values()), f"I7: {deployment.stamps}"
        restarts = scenario.restarts if deployment.replicas else 0
        assert sum(deployment.stamps.values()) == restarts, f"I7: {deployment.stamps}"
    assert len(status.history) == 1
    written = lab.log[:]
    assert isinstance(lab.run(), Rest)
    assert lab.log == written, "I12: an idle pass writes"


@by_name
def test_undisturbed(scenario: Scenario) -> None:
    lab = scenario.build()
    assert isinstance(lab.run(), Rest)
    assert_ended(lab, scenario)
    assert lab.provider.count(Operation.START) == 1
    assert lab.provider.count(Operation.FINALIZE) == (1 if scenario.fresh else 0)
    assert lab.provider.count(Operation.CANCEL) == (0 if scenario.fresh else 1)


@by_name
def test_one_disturbance_anywhere_changes_nothing(scenario: Scenario) -> None:
    for index, name in enumerate(effects(scenario.name)):
        for disturbance in Disturbance:
            if not THOROUGH and _much_like_a_crash(scenario, name, disturbance):
                continue
            lab = scenario.build()
            lab.plan = {index: disturbance}
            lab.run()
            assert_ended(lab, scenario)
            lost = _loses_the_answer(name, disturbance)
            assert lab.provider.count(Operation.START) == (2 if lost else 1), (name, disturbance, lab.log)
            cancels = (0 if scenario.fresh else 1) + lost
            assert lab.provider.count(Operation.CANCEL) == cancels, (name, disturbance, lab.log)


def _much_like_a_crash(scenario: Scenario, effect: str, disturbance: Disturbance) -> bool:
    """What an API write that fails adds to a crash, two scenarios show as well as all."""
    at_provider = effect in (*Operation,)
    crash = disturbance in (Disturbance.CRASH_BEFORE, Disturbance.CRASH_AFTER)
    return not (at_provider or crash or scenario.name in ("plain", "previous key"))


def _loses_the_answer(effect: str, disturbance: Disturbance) -> bool:
    """Whether the value that a start call issued never reaches the journal, so that it is withdrawn and asked anew."""
    if effect == Operation.START:
        return disturbance in (Disturbance.CRASH_AFTER, Disturbance.REPLY_LOST)
    return effect == "journal pending" and disturbance is Disturbance.CRASH_BEFORE


@pytest.mark.parametrize("name", ["plain", "never ready"])
def test_two_disturbances_change_nothing_either(name: str) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    count = len(effects(name)) + 3  # a lost answer makes the run longer
    every = [
        {first: one, second: other}
        for first, second in combinations(range(count), 2)
        for one, other in product(Disturbance, Disturbance)
    ]
    for plan in every[:: 1 if THOROUGH else 41]:
        lab = scenario.build()
        lab.plan = plan
        lab.run()
        assert_ended(lab, scenario)
