"""What the user says in the middle: cancel, resume; and what only the user or others can end."""

from __future__ import annotations

import pytest

from keyturn.api.rotation import FailurePolicy, Phase, RestartPolicy, RolloutSpec, TargetState, UnrestartablePolicy
from keyturn.api.semantics import Capabilities
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation, Problem
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import ORIGINAL, Fault
from tests.model.fakesemantics import IMMEDIATE, TIMED, make_resetting
from tests.model.lab import Lab
from tests.model.scenarios import make_lab, make_spec
from tests.model.test_crashes import effects

PATIENT = make_spec(soak=10 * SECOND)
FINALIZE = effects("soak").index(Operation.FINALIZE)


def waiting(lab: Lab, seconds: int = 60) -> Wait:
    step = lab.run(seconds * SECOND)
    assert isinstance(step, Wait), (step, lab.log)
    return step


def running(lab: Lab) -> str:
    record = lab.resource.parsed().rotation
    assert record is not None
    return record.id


@pytest.mark.parametrize("index", range(1, FINALIZE - 1))
def test_cancelled_by_the_user_at_any_moment(index: int) -> None:
    lab = make_lab(PATIENT)
    lab.actions[index] = lambda: lab.say(cancel_request=running(lab))
    assert isinstance(lab.run(), Rest)
    status, secret = lab.resource.parsed(), lab.namespace.secret
    assert status.phase is Phase.CANCELLED
    assert status.last_rotation is not None
    assert "keyturn.dev/cancel" in status.last_rotation.message
    assert secret is not None
    assert secret.value == lab.provider.current == ORIGINAL
    assert lab.provider.pending is None
    assert lab.journal is None


@pytest.mark.parametrize("word", ["", "r0000", "all"])
def test_a_word_for_another_rotation_is_not_heard(word: str) -> None:
    lab = make_lab(PATIENT)
    lab.say(cancel_request=word, resume_request=word)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def held() -> Lab:
    lab = make_lab(make_spec(on_failure=FailurePolicy.HOLD, rollout=RolloutSpec(timeout=12 * SECOND)))
    lab.namespace.deployments["worker"].grace = 70 * SECOND
    step = waiting(lab, 30)
    assert (step.reason, step.blocked) == ("RolloutTimeout", True)
    assert running(lab) in step.message
    return lab


def test_resumed_by_the_user_has_its_time_again_and_each_word_counts_once() -> None:
    lab = held()
    lab.say(resume_request=f"{running(lab)}-1")
    assert not waiting(lab, 5).blocked
    assert waiting(lab, 15).blocked
    assert waiting(lab, 5).blocked
    lab.say(resume_request=f"{running(lab)}-2")
    assert not waiting(lab, 3).blocked
    lab.elapse(40 * SECOND)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_held_and_then_cancelled_by_the_user() -> None:
    lab = held()
    lab.say(cancel_request=running(lab))
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED


def test_a_pod_by_itself_holds_the_old_value_alive_however_long() -> None:
    """I4: neither is the value dropped, nor the rotation given up, which would only begin anew."""
    lab = make_lab(make_spec(rollout=RolloutSpec(timeout=12 * SECOND)))
    stray = lab.namespace.add_pod(None)
    lab.elapse(2 * SECOND)
    step = waiting(lab, 90)
    assert (step.reason, step.stalled, step.blocked) == ("RolloutHeld", True, False)
    assert stray.name in step.message
    assert lab.provider.count(Operation.FINALIZE) == 0
    lab.namespace.end_pods([stray])
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_a_pod_by_itself_may_count_as_rollout() -> None:
    rollout = RolloutSpec(timeout=12 * SECOND, unrestartable=UnrestartablePolicy.FAIL)
    lab = make_lab(make_spec(rollout=rollout))
    lab.namespace.add_pod(None)
    lab.elapse(2 * SECOND)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED


def test_a_paused_deployment_is_left_alone_and_named_at_once() -> None:
    lab = make_lab(make_spec(rollout=RolloutSpec(timeout=12 * SECOND)))
    web = lab.namespace.deployments["web"]
    web.paused = True
    step = waiting(lab, 10)
    assert (step.reason, step.stalled) == ("WorkloadPaused", True)
    assert waiting(lab, 60).reason == "WorkloadPaused"
    assert not web.stamps


@pytest.mark.parametrize("promise", [TIMED, IMMEDIATE], ids=["timed", "immediate"])
def test_nothing_begins_for_a_paused_deployment_where_no_way_leads_back(promise: Capabilities) -> None:
    """I3, I10: said before the call; nothing has to be done but to resume it."""
    lab = make_resetting(promise)
    web = lab.namespace.deployments["web"]
    web.paused = True
    step = waiting(lab, 10)
    assert (step.reason, step.stalled) == ("WorkloadPaused", True)
    assert "Deployment/web" in step.message
    assert not lab.provider.calls
    web.paused = False
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_pods_that_crash_on_the_new_value_lead_back_at_once() -> None:
    lab = make_lab(make_spec(rollout=RolloutSpec(timeout=600 * SECOND)))
    web = lab.namespace.deployments["web"]
    web.sick = lambda stamp: stamp is not None and not stamp.endswith("cancelled")

    def crash() -> None:
        for pod in lab.namespace.pods:
            pod.crashing = pod.sick

    lab.after(8 * SECOND, crash)
    begun = lab.now
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED
    assert lab.now - begun < 60 * SECOND


def test_volumes_are_left_alone_and_waited_for() -> None:
    lab = make_lab(make_spec(rollout=RolloutSpec(restart=RestartPolicy.ENV_ONLY, volume_refresh=20 * SECOND)))
    for pod in lab.namespace.pods:
        if pod.owner[1] == "web":
            pod.live = True
    step = waiting(lab, 10)
    assert "in their volumes until" in step.message
    states = {target.name: target.state for target in lab.resource.parsed().rotation.targets}  # type: ignore[union-attr]
    assert states == {"web": TargetState.WAITING, "worker": TargetState.READY}
    for pod in lab.namespace.pods:
        if pod.live:
            pod.held = lab.provider.pending
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert not lab.namespace.deployments["web"].stamps


def test_the_old_value_is_seen_to_be_refused() -> None:
    lab = make_lab()
    lab.run()
    last = lab.resource.parsed().last_rotation
    assert last is not None
    assert last.previous_refused is True


def test_an_old_value_that_goes_on_working_is_told() -> None:
    lab = make_lab()
    lab.provider.linger = 3600 * SECOND
    assert isinstance(lab.run(), Rest)
    last = lab.resource.parsed().last_rotation
    assert last is not None
    assert last.previous_refused is False
    assert "still accepts it" in last.message


def test_a_record_that_was_lost_does_not_keep_what_is_deleted() -> None:
    """I11: the status is gone, and so is the account."""
    lab = make_lab()
    lab.run_to_effect(5)
    assert lab.resource.finalizer
    lab.resource.status, lab.account_gone = {}, True
    lab.delete()
    lab.run(60 * SECOND)
    assert lab.resource.gone


def test_called_off_while_the_provider_refuses_to_finalize() -> None:
    """The point of no return is the call that succeeds, not the phase."""
    lab = make_lab()
    lab.provider.faults.extend([None, *[Fault.REJECTED] * 100])
    waiting(lab, 30)
    assert lab.resource.parsed().phase is Phase.FINALIZING
    lab.say(cancel_request=running(lab))
    lab.after(30 * SECOND, lab.provider.faults.clear)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED
    assert lab.provider.pending is None


def test_a_spec_that_becomes_invalid_does_not_forget_how_workloads_are_restarted() -> None:
    lab = make_lab(make_spec(rollout=RolloutSpec(restart=RestartPolicy.NEVER), soak=30 * SECOND))
    assert "Never" in waiting(lab, 10).message
    lab.resource.spec = Problem("InvalidSpec", "spec.soak: must be a duration")
    lab.say(cancel_request=running(lab))
    waiting(lab, 20)
    assert not any(deployment.stamps for deployment in lab.namespace.deployments.values())


def test_a_word_that_names_no_rotation_is_answered() -> None:
    lab = held()
    lab.say(cancel_request="yes")
    assert f"to cancel this rotation, set it to {running(lab)}" in waiting(lab, 5).message


def test_what_does_not_come_up_keeps_nobody_else_from_going_back() -> None:
    """`maxConcurrent` counts on the way back too, but not without end."""
    lab = make_lab(make_spec(soak=600 * SECOND))
    web, worker = lab.namespace.deployments["web"], lab.namespace.deployments["worker"]
    lab.run(12 * SECOND)
    assert lab.resource.parsed().phase is Phase.SOAKING
    web.sick = worker.sick = lambda stamp: True
    lab.edit_spec(rollout=RolloutSpec(timeout=12 * SECOND, max_concurrent=1))
    lab.say(cancel_request=running(lab))
    lab.run(5 * SECOND)
    assert sum(f"{one.stamp}".endswith("cancelled") for one in (web, worker)) == 1
    lab.run(30 * SECOND)
    assert sum(f"{one.stamp}".endswith("cancelled") for one in (web, worker)) == 2


def test_a_lost_journal_and_a_lost_secret_leave_nothing_to_restart_for() -> None:
    lab = held()
    for deployment in lab.namespace.deployments.values():
        deployment.replicas = 0
    lab.elapse(80 * SECOND)
    lab.tampered, lab.journal, lab.namespace.secret = True, None, None
    lab.say(cancel_request=running(lab))
    lab.run(60 * SECOND)
    assert lab.resource.parsed().phase in (Phase.CANCELLED, Phase.FAILED, Phase.BLOCKED, Phase.CANCELLING)


def test_an_interrupted_soak_is_an_event() -> None:
    lab = make_lab(make_spec(soak=20 * SECOND))
    lab.run(10 * SECOND)
    assert lab.resource.parsed().phase is Phase.SOAKING
    ready = next(pod for pod in lab.namespace.pods if pod.owner[1] == "web" and pod.ready)
    ready.sick = True
    lab.run(5 * SECOND)
    ready.sick = False
    assert isinstance(lab.run(), Rest)
    reasons = [said.reason for said in lab.events]
    assert reasons.count("SoakInterrupted") == 1
    assert reasons.count("RolloutRestartTriggered") == 1
