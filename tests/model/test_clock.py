"""The operator's clock is set back in the middle: what is waited for by it begins anew, and takes no hour longer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keyturn.api.rotation import FailurePolicy, Phase, RolloutSpec, RotationSpec, VerifySpec
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND
from tests.model.lab import Lab
from tests.model.scenarios import make_lab, make_spec
from tests.model.test_crashes import effects

HOUR = timedelta(hours=1)


def set_back(lab: Lab, phase: Phase) -> None:
    """Some seconds after the phase was entered."""
    while lab.resource.parsed().phase is not phase:
        lab.run(SECOND)
    lab.run(5 * SECOND)
    running = lab.resource.parsed().rotation
    assert running is not None
    assert running.phase is phase
    lab.ahead = -HOUR


def test_a_soak_lasts_at_most_twice_as_long() -> None:
    lab = make_lab(make_spec(soak=20 * SECOND))
    set_back(lab, Phase.SOAKING)
    begun = lab.now
    step = lab.run(timedelta())
    running = lab.resource.parsed().rotation
    assert isinstance(step, Wait)
    assert running is not None
    assert (running.phase, running.phase_started_time) == (Phase.SOAKING, begun - HOUR)
    assert running.deadline == begun - HOUR + 20 * SECOND
    assert [said.reason for said in lab.events].count("Soaking") == 1
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert 20 * SECOND <= lab.now - begun < 30 * SECOND


@pytest.mark.parametrize(
    ("phase", "spec"),
    [
        (Phase.VERIFYING, make_spec(verify=VerifySpec(timeout=20 * SECOND))),
        (Phase.ROLLING_OUT, make_spec(rollout=RolloutSpec(timeout=20 * SECOND))),
        (Phase.ROLLING_OUT, make_spec(rollout=RolloutSpec(timeout=20 * SECOND), on_failure=FailurePolicy.HOLD)),
    ],
    ids=["verification", "rollout", "rollout, held"],
)
def test_what_does_not_succeed_is_given_up_after_the_same_time_again(phase: Phase, spec: RotationSpec) -> None:
    lab = make_lab(spec)
    lab.provider.rejects_new = phase is Phase.VERIFYING
    lab.namespace.deployments["web"].sick = lambda stamp: stamp is not None and not stamp.endswith("cancelled")
    set_back(lab, phase)
    step = lab.run(30 * SECOND)
    if spec.on_failure is FailurePolicy.HOLD:
        assert isinstance(step, Wait)
        assert step.blocked
    else:
        assert isinstance(lab.run(30 * SECOND), Rest)
        assert lab.resource.parsed().phase is Phase.CANCELLED


def test_an_intent_of_a_clock_that_was_set_back_is_written_anew_before_the_call() -> None:
    """I1: the end of the old value is counted from it, and would lie an hour too late."""
    lab = make_lab()
    index = effects("plain").index(Operation.START)
    lab.run_to_effect(index)
    intent = lab.resource.parsed().rotation
    assert intent is not None
    assert lab.provider.applied == []
    lab.ahead = -HOUR
    assert isinstance(lab.run(), Rest)
    assert lab.provider.applied.count(Operation.START) == 1
    assert lab.log[index + 1 : index + 3] == ["status Starting", Operation.START]
