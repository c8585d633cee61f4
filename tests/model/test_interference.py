"""What people and other tools do in the middle of a rotation, each pinned to the end that it must have."""

from __future__ import annotations

from functools import partial

import pytest

from keyturn.api.rotation import CreationPolicy, FailurePolicy, Phase, Result, RolloutSpec, VerifySpec
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation, Problem
from tests.model.fakecluster import SECOND, FakeSecret
from tests.model.fakeprovider import CANARY, ORIGINAL
from tests.model.lab import Lab
from tests.model.scenarios import make_lab, make_spec
from tests.model.test_crashes import effects

MADE_UP = f"{CANARY}-made-up"
PATIENT = make_spec(soak=10 * SECOND)


def waiting(lab: Lab) -> Wait:
    step = lab.run(60 * SECOND)
    assert isinstance(step, Wait), (step, lab.log)
    return step


def finalized() -> Lab:
    """The provider has dropped the old value, and the operator crashed before it wrote that down."""
    lab = make_lab()
    lab.run_to_effect(effects("plain").index(Operation.FINALIZE) + 1)
    assert lab.provider.count(Operation.FINALIZE) == 1
    return lab


# The Secret


@pytest.mark.parametrize("index", range(6, 11))
def test_taken_back_during_the_rollout_leads_back(index: int) -> None:
    """I3, I4: pods that started in between hold the old value, and nothing tells them apart."""
    lab = make_lab(PATIENT)
    lab.actions[index] = lambda: lab.edit_secret(ORIGINAL)
    assert isinstance(lab.run(), Rest)
    status = lab.resource.parsed()
    assert status.phase is Phase.CANCELLED
    assert status.last_rotation is not None
    assert "taken" in status.last_rotation.message or "took it back" in status.last_rotation.message
    assert lab.provider.pending is None


def test_deleted_while_soaking_is_asked_for_and_gets_its_value_back() -> None:
    """I2, I10: the journal holds the only copy of the value in force, and ends with the rotation."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    lab.namespace.secret = None
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretNotFound", True)
    assert "create it" in step.message
    ready = next(one for one in lab.resource.parsed().conditions if one.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "SecretNotFound")
    lab.namespace.secret = FakeSecret(None)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED
    assert lab.namespace.secret.value == ORIGINAL
    assert lab.provider.pending is None


def test_taken_back_and_given_back_under_hold_never_finalizes() -> None:
    """I4: the stamp and the age of the pod that started in between both look right."""
    lab = make_lab(make_spec(on_failure=FailurePolicy.HOLD, soak=20 * SECOND))
    lab.run(10 * SECOND)
    pending = lab.provider.pending
    lab.edit_secret(ORIGINAL)
    lab.run(5 * SECOND)
    lab.namespace.end_pods(pod for pod in lab.namespace.pods if pod.owner[1] == "web")
    lab.run(5 * SECOND)
    lab.edit_secret(pending)
    step = waiting(lab)
    assert (step.reason, step.blocked) == ("SecretReverted", True)
    assert lab.provider.count(Operation.FINALIZE) == 0
    lab.edit_spec(on_failure=FailurePolicy.CANCEL)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED


def test_taken_back_before_it_is_written_down_that_it_was_handed_out() -> None:
    """I3: two crashes, and nothing durable but the Secret itself tells that a pod may hold the new value."""
    lab = make_lab()
    lab.run_to_effect(6)
    assert lab.log[-2] == "secret"
    young = lab.namespace.add_pod(None)
    lab.elapse(20 * SECOND)
    lab.delete()
    while lab.namespace.secret and lab.namespace.secret.value != ORIGINAL:
        lab.run_to_effect(1)
    assert young.name in waiting(lab).message
    lab.namespace.end_pods([young])
    lab.run()
    assert lab.resource.gone


@pytest.mark.parametrize("moment", ["before", "after"])
def test_changed_by_somebody_before_it_is_handed_out_is_left_alone(moment: str) -> None:
    lab = make_lab()
    lab.foreign.add(MADE_UP)
    lab.actions[4 if moment == "before" else 3] = lambda: lab.edit_secret(MADE_UP)
    assert isinstance(lab.run(60 * SECOND), Rest | Wait)
    assert lab.namespace.secret is not None
    assert lab.namespace.secret.value == MADE_UP
    assert lab.resource.parsed().phase is Phase.CANCELLED


def test_put_back_by_hand_then_cancelled_restarts_what_started_before() -> None:
    """I3: Keyturn's own older write says nothing about when somebody else put the value back."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    young = lab.namespace.add_pod(None)
    lab.elapse(2 * SECOND)
    lab.edit_secret(ORIGINAL)
    step = waiting(lab)
    assert young.name in step.message
    assert lab.provider.pending is not None
    lab.namespace.end_pods([young])
    assert isinstance(lab.run(), Rest)
    assert lab.provider.pending is None


@pytest.mark.parametrize("value", [None, ORIGINAL])
def test_secret_emptied_after_finalize_gets_the_only_valid_value(value: str | None) -> None:
    lab = finalized()
    lab.edit_secret(value)
    lab.run()
    assert lab.namespace.secret is not None
    assert lab.namespace.secret.value == lab.provider.current
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_secret_deleted_after_finalize_keeps_the_journal_until_it_is_back() -> None:
    """I2: the journal holds the only copy of the only valid value."""
    lab = finalized()
    lab.drop_secret()
    step = waiting(lab)
    assert step.stalled
    assert "create it" in step.message
    assert lab.journal is not None
    assert lab.journal.pending == lab.provider.current
    lab.hold(None)
    assert isinstance(lab.run(), Rest)
    assert lab.namespace.secret is not None
    assert lab.namespace.secret.value == lab.provider.current


def test_secret_changed_after_finalize_is_left_alone_and_said() -> None:
    lab = finalized()
    lab.foreign.add(MADE_UP)
    lab.edit_secret(MADE_UP)
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretChanged", True)
    assert lab.namespace.secret is not None
    assert lab.namespace.secret.value == MADE_UP
    assert lab.journal is not None
    lab.delete()
    lab.tampered = True
    lab.run()
    assert lab.resource.gone


def test_secret_deleted_between_preparing_and_starting_starts_nothing() -> None:
    """Merge never creates the Secret, and without it the value in force is not known."""
    lab = make_lab()
    lab.actions[0] = lab.drop_secret
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretNotFound", True)
    assert lab.provider.applied == []
    lab.hold(ORIGINAL)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


# The journal


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("index", range(4, 14))
def test_journal_deleted_never_breaks_consumers(index: int, crash: bool) -> None:
    """I3; where the value is out already, a person decides, and settling it at the provider ends it."""
    lab = make_lab(PATIENT)
    lab.tampered = True
    if crash:
        lab.run_to_effect(index + 1)
        lab.journal = None
    elif effects("soak")[index] == "status Finalizing":
        return  # it was looked at a moment before, and nobody can see into the future
    else:
        lab.actions[index] = lambda: setattr(lab, "journal", None)
    step = lab.run(120 * SECOND)
    if isinstance(step, Wait):
        assert (step.reason, step.blocked) == ("JournalLost", True), lab.log
        lab.act_at_provider(Operation.FINALIZE)
        lab.foreign.add(ORIGINAL)
        step = lab.run(120 * SECOND)
        assert lab.resource.parsed().phase is Phase.FAILED
    assert isinstance(step, Rest)
    assert not lab.resource.finalizer
    assert lab.provider.pending is None


# The provider


def test_foreign_rotation_blocks_before_anything_is_done() -> None:
    lab = make_lab()
    lab.act_at_provider(Operation.START)
    step = waiting(lab)
    assert (step.reason, step.blocked) == ("ForeignRotation", True)
    assert lab.resource.parsed().phase is Phase.BLOCKED
    assert lab.provider.applied == []
    lab.act_at_provider(Operation.CANCEL)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_foreign_start_right_after_finalize_does_not_bring_back_the_dead_value() -> None:
    lab = finalized()
    lab.act_at_provider(Operation.START)
    lab.run()
    assert lab.namespace.secret is not None
    assert lab.namespace.secret.value == lab.provider.current != ORIGINAL
    assert lab.provider.count(Operation.CANCEL) == 0, "I5: somebody else's value is not ours to withdraw"


def test_finalized_by_somebody_while_cancelling_with_a_changed_secret_ends_in_one_answer() -> None:
    """Going back is impossible and going on refused: said once, not in a circle."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    lab.foreign |= {MADE_UP, ORIGINAL}
    lab.edit_secret(MADE_UP)
    lab.run_to_effect(1)
    lab.act_at_provider(Operation.FINALIZE)
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretChanged", True)
    log = lab.log[:]
    lab.run(60 * SECOND)
    assert lab.log == log


@pytest.mark.parametrize("index", range(5, 10))
def test_foreign_finalize_leads_forward(index: int) -> None:
    lab = make_lab(PATIENT)
    lab.actions[index] = partial(lab.act_at_provider, Operation.FINALIZE)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert {pod.held for pod in lab.namespace.pods} == {lab.provider.current}


# Deletion


@pytest.mark.parametrize("index", range(1, 14))
def test_namespace_deleted(index: int) -> None:
    """I11: everything is deleted at once, in no order."""
    lab = make_lab(PATIENT)
    lab.tampered = True

    def delete_everything() -> None:
        lab.delete()
        lab.namespace.secret = lab.journal = None
        lab.namespace.deployments.clear()

    lab.actions[index] = delete_everything
    lab.run(120 * SECOND)
    assert lab.resource.gone, (lab.log, lab.resource.status)
    assert lab.provider.pending is None


def test_bad_spec_while_finalizing_does_not_hold_back_a_deletion() -> None:
    lab = make_lab()
    lab.run_to_effect(effects("plain").index(Operation.FINALIZE))
    lab.resource.spec = Problem("InvalidSpec", "spec.soak: must be a duration")
    lab.delete()
    lab.run()
    assert lab.resource.gone


@pytest.mark.parametrize("index", range(1, 9))
def test_bad_spec_is_an_answer_and_correcting_it_goes_on(index: int) -> None:
    """I10."""
    lab = make_lab(PATIENT)
    lab.run_to_effect(index)
    good, lab.resource.spec = lab.resource.spec, Problem("InvalidSpec", "spec.soak: must be a duration")
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("InvalidSpec", True)
    lab.resource.spec = good
    lab.run()
    assert lab.resource.parsed().phase is Phase.COMPLETED


# Triggers


def test_a_request_rotates_exactly_once() -> None:
    lab = make_lab()
    for request, started in [("a", 1), ("b", 2), ("a", 2), ("b", 2), ("", 2), (None, 2), ("c", 3)]:
        lab.edit_spec(rotation_request=request)
        assert isinstance(lab.run(), Rest)
        assert lab.provider.count(Operation.START) == started, request
        assert lab.resource.parsed().last_handled_rotation_request == "abc"[started - 1]
    assert [past.request for past in lab.resource.parsed().history] == ["c", "b", "a"]


def test_a_request_made_while_one_runs_is_acted_on_next() -> None:
    """Also when the last write of the one and the first of the other fall into the same second."""
    lab = make_lab(make_spec(secret_ref={"previous_key": "OLD"}))
    lab.actions[5] = lambda: lab.edit_spec(rotation_request="b")
    assert isinstance(lab.run(), Rest)
    assert [past.result for past in lab.resource.parsed().history] == [Result.COMPLETED, Result.COMPLETED]


def test_suspended_starts_nothing_and_goes_on_with_what_runs() -> None:
    lab = make_lab()
    lab.edit_spec(suspend=True)
    assert isinstance(lab.run(), Rest)
    assert lab.provider.applied == []
    lab.edit_spec(suspend=False)
    lab.run_to_effect(4)
    lab.edit_spec(suspend=True)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


def test_history_is_limited() -> None:
    lab = make_lab()
    for number in range(7):
        lab.edit_spec(rotation_request=f"r{number}")
        lab.run()
    history = lab.resource.parsed().history
    assert [past.request for past in history] == ["r6", "r5", "r4", "r3", "r2"]
    assert [past.id for past in history] == sorted((past.id for past in history), reverse=True)


@pytest.mark.parametrize("policy", CreationPolicy)
def test_lost_status_is_rebuilt_from_the_journal(policy: CreationPolicy) -> None:
    """I9: somebody restored the object from a backup without its status."""
    for index in range(3, 13):
        lab = make_lab(make_spec(secret_ref={"creation_policy": policy}, soak=10 * SECOND))
        lab.run_to_effect(index)
        lab.resource.status = {}
        assert isinstance(lab.run(), Rest)
        assert lab.resource.parsed().phase is Phase.COMPLETED
        assert all(deployment.stamps.total() == 1 for deployment in lab.namespace.deployments.values()), "I7"


def test_a_provider_that_never_accepts_is_given_up_only_by_its_own_word() -> None:
    """I9: silence is no verdict."""
    lab = make_lab(make_spec(verify=VerifySpec(timeout=10 * SECOND), rollout=RolloutSpec(timeout=60 * SECOND)))
    lab.run_to_effect(5)
    lab.provider.outage = True
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("ProviderUnreachable", False)
    lab.provider.outage, lab.provider.rejects_new = False, True
    lab.run()
    assert lab.resource.parsed().phase is Phase.CANCELLED
