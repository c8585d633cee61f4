"""Deletions, outages and missing accounts that begin right after each single effect of a rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest

from keyturn.api.rotation import DeletionPolicy, Phase
from keyturn.api.semantics import Failure
from keyturn.rotation.steps import Rest
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import ORIGINAL
from tests.model.lab import Disturbance, Lab
from tests.model.profiles import THOROUGH
from tests.model.scenarios import SCENARIOS, make_lab, make_spec
from tests.model.test_crashes import assert_ended, effects

SOAK = make_spec(soak=10 * SECOND)
NAMED = {scenario.name: scenario for scenario in SCENARIOS}


def _labs(policy: DeletionPolicy, name: str = "soak") -> Iterator[tuple[int, Lab]]:
    for index in range(len(effects(name))):
        lab = NAMED[name].build()
        lab.edit_spec(deletion_policy=policy)
        lab.actions[index] = lab.delete
        yield index, lab


def _assert_deleted(lab: Lab) -> None:
    """I11: nothing is left behind, and what runs holds the value that is in force."""
    secret = lab.namespace.secret
    assert lab.resource.gone, (lab.log, lab.resource.status)
    assert secret is not None
    assert secret.value == lab.provider.current
    assert secret.previous is None
    assert lab.provider.pending is None
    assert lab.journal is None
    assert {pod.held for pod in lab.namespace.pods} <= {secret.value}
    for deployment in lab.namespace.deployments.values():
        assert all(count == 1 for count in deployment.stamps.values()), f"I7: {deployment.stamps}"
        assert len(deployment.stamps) <= 2, f"I7: {deployment.stamps}"


@pytest.mark.parametrize("name", ["soak", "previous key", "not accepted", "never ready"])
@pytest.mark.parametrize("policy", DeletionPolicy)
def test_deleted_after_each_effect(policy: DeletionPolicy, name: str) -> None:
    for index, lab in _labs(policy, name):
        lab.run()
        lab.elapse(5 * SECOND)
        _assert_deleted(lab)
        begun = Operation.START in lab.log
        finished = lab.provider.current != ORIGINAL
        decided = "status Finalizing" in lab.log[: index + 1]
        wanted = decided or (policy is DeletionPolicy.FINALIZE and begun and NAMED[name].fresh)
        assert finished is wanted, (index, lab.log)


@pytest.mark.parametrize("policy", DeletionPolicy)
def test_deleted_and_crashed(policy: DeletionPolicy) -> None:
    step = 1 if THOROUGH else 5
    count = len(effects("soak"))
    for crash in range(0, count + 6, step):
        for disturbance in Disturbance:
            for _, lab in list(_labs(policy))[crash % step :: step]:
                lab.plan = {crash: disturbance}
                lab.run()
                lab.elapse(5 * SECOND)
                _assert_deleted(lab)


@pytest.mark.parametrize("held_back", [False, True], ids=["at once", "held back by another finalizer"])
def test_deleted_when_idle(held_back: bool) -> None:
    lab = make_lab(make_spec(rotation_request=None))
    lab.run()
    lab.resource.held_back = held_back
    written = len(lab.log)
    lab.delete()
    lab.run()
    assert len(lab.log) == written, "I11, I12: the deletion of an idle object needs nothing from us"


@pytest.mark.parametrize("policy", DeletionPolicy)
def test_deleted_between_intent_and_finalizer(policy: DeletionPolicy) -> None:
    """Another finalizer keeps the object, and on an object that is being deleted we may not put ours any more."""
    lab = make_lab(make_spec(deletion_policy=policy))
    lab.resource.held_back = True
    lab.actions[0] = lab.delete
    assert isinstance(lab.run(), Rest)
    assert lab.provider.applied == []
    assert lab.journal is None


def _provider_outage(lab: Lab, length: timedelta) -> None:
    lab.provider.outage = True
    lab.after(length, lambda: setattr(lab.provider, "outage", False))


def _forbidden_address(lab: Lab, length: timedelta) -> None:
    """The provider object is given an address that no tenant may have, and its own again."""
    lab.provider.obstacle = Failure.ADDRESS_NOT_PERMITTED
    _provider_outage(lab, length)


def _missing_account(lab: Lab, length: timedelta) -> None:
    lab.account_gone = True
    lab.after(length, lambda: setattr(lab, "account_gone", False))


def _api_outage(lab: Lab, length: timedelta) -> None:
    lab.api_down = True
    lab.after(length, lambda: setattr(lab, "api_down", False))


@pytest.mark.parametrize("outage", [_provider_outage, _forbidden_address, _missing_account, _api_outage])
@pytest.mark.parametrize(("name", "seconds"), [("soak", 30), ("soak", 180), ("never ready", 40)])
def test_an_outage_after_each_effect_only_delays(
    outage: Callable[[Lab, timedelta], None], name: str, seconds: int
) -> None:
    scenario, length = NAMED[name], seconds * SECOND
    for index in range(len(effects(scenario.name))):
        lab = scenario.build()
        lab.actions[index] = partial(outage, lab, length)
        lab.run()
        assert_ended(lab, scenario)


def _delete_all(lab: Lab) -> None:
    lab.delete()
    lab.account_gone = True


@pytest.mark.parametrize("policy", DeletionPolicy)
def test_deleted_together_with_the_account(policy: DeletionPolicy) -> None:
    """I11: with nobody left to ask, the object goes away, and consumers keep a value that works."""
    for index, lab in _labs(policy):
        if index:
            lab.actions[index] = partial(_delete_all, lab)
            lab.run()
            assert lab.resource.gone, (index, lab.log)
            assert lab.journal is None
            secret = lab.namespace.secret
            assert secret is not None
            assert secret.value is not None
            assert lab.provider.accepts(secret.value)


def test_the_phase_says_how_it_ended() -> None:
    lab = make_lab(SOAK)
    lab.run()
    assert lab.resource.parsed().phase is Phase.COMPLETED
