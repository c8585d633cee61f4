"""What people do in the middle of a rotation, and how they are helped out of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyturn.api.rotation import CreationPolicy, Phase, Result, RolloutSpec, VerifyMode, VerifySpec
from keyturn.rotation.lifecycle import SOAK_POLL
from keyturn.rotation.steps import Rest, Wait
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import ORIGINAL
from tests.model.fakesemantics import IMMEDIATE, TIMED, ResettingLab, make_resetting
from tests.model.lab import Lab
from tests.model.scenarios import make_lab, make_spec

PATIENT = make_spec(soak=10 * SECOND)
MADE_UP = "made up"


def waiting(lab: Lab) -> Wait:
    step = lab.run(60 * SECOND)
    assert isinstance(step, Wait), (step, lab.log)
    return step


def value_of(lab: Lab) -> str | None:
    secret = lab.namespace.secret
    return "no Secret" if secret is None else secret.value


def stamps(lab: Lab) -> list[int]:
    return [deployment.stamps.total() for deployment in lab.namespace.deployments.values()]


# No way back


def soaking(policy: CreationPolicy = CreationPolicy.MERGE) -> ResettingLab:
    lab = make_resetting(TIMED, soak=30 * SECOND, secret_ref={"creation_policy": policy})
    lab.run(20 * SECOND)
    assert lab.resource.parsed().phase is Phase.SOAKING
    return lab


def distributing(policy: CreationPolicy = CreationPolicy.MERGE) -> ResettingLab:
    """The provider has replaced the value, and the Secret does not hold it yet."""
    lab = make_resetting(IMMEDIATE, secret_ref={"creation_policy": policy})
    lab.run_to_effect(5)
    assert lab.log[-2:] == ["journal pending", "secret"]
    return lab


def half_way() -> ResettingLab:
    """The first workload is restarted, the second waits for its turn on the old value."""
    undisturbed, lab = (make_resetting(TIMED, rollout=RolloutSpec(max_concurrent=1)) for _ in range(2))
    undisturbed.run()
    lab.run_to_effect(undisturbed.log.index("restart worker"))
    assert lab.resource.parsed().phase is Phase.ROLLING_OUT
    assert stamps(lab) == [1, 0]
    return lab


@pytest.mark.parametrize("policy", CreationPolicy)
@pytest.mark.parametrize("begin", [soaking, distributing])
def test_a_secret_that_is_deleted_is_there_again(
    begin: Callable[[CreationPolicy], ResettingLab], policy: CreationPolicy
) -> None:
    """I2, I3: only the new value is left, and nothing of anybody's is in its way."""
    lab = begin(policy)
    lab.drop_secret()
    assert isinstance(lab.run(), Rest)
    assert value_of(lab) == lab.provider.current
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert stamps(lab) == [1, 1], "I7"


@pytest.mark.parametrize("value", [ORIGINAL, MADE_UP])
def test_a_value_of_somebody_elses_is_left_until_the_key_is_removed(value: str) -> None:
    lab = soaking()
    lab.foreign.add(MADE_UP)
    lab.edit_secret(value)
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretReverted", True)
    assert "remove the key to have the new value written" in step.message
    lab.edit_secret(None)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert stamps(lab) == [1, 1], "I7"


@pytest.mark.parametrize("begin", [soaking, distributing])
def test_who_deletes_the_object_too_is_not_asked_for_the_secret(begin: Callable[[], ResettingLab]) -> None:
    """I11: in a namespace that is deleted, none could be created."""
    lab = begin()
    lab.tampered = True
    lab.drop_secret()
    lab.delete()
    lab.run(60 * SECOND)
    assert lab.resource.gone
    assert any("Secret app" in said.message for said in lab.events)


@pytest.mark.parametrize("begin", [distributing, half_way])
def test_an_account_that_is_lost_holds_up_no_consumer(begin: Callable[[], ResettingLab]) -> None:
    """I3: the old value dies, or is dead, whether or not the provider can be asked; the rest waits for the account."""
    lab = begin()
    lab.account_gone = True
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("ProviderNotFound", True)
    assert value_of(lab) == lab.provider.current
    assert {pod.held for pod in lab.namespace.pods} == {lab.provider.current}
    lab.account_gone = False
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED


# A way back


@pytest.mark.parametrize("mended", [None, ORIGINAL])
def test_nothing_is_rolled_back_on_to_a_value_that_the_provider_refuses(mended: str | None) -> None:
    """I3: the made-up value counts as a refused call as soon as a pod has it."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    before = stamps(lab)
    lab.edit_secret(MADE_UP)
    step = waiting(lab)
    assert (step.reason, step.stalled) == ("SecretChanged", True)
    assert "remove the key" in step.message
    assert stamps(lab) == before
    lab.edit_secret(mended)
    assert isinstance(lab.run(), Rest)
    status = lab.resource.parsed()
    assert status.last_rotation is not None
    assert status.last_rotation.result is Result.CANCELLED
    assert "(SecretReverted)" in status.last_rotation.message
    assert value_of(lab) == ORIGINAL
    assert lab.provider.pending is None


def test_without_verification_nobody_asks_what_the_value_is() -> None:
    lab = make_lab(make_spec(soak=10 * SECOND, verify=VerifySpec(mode=VerifyMode.SKIP)))
    lab.run(10 * SECOND)
    lab.foreign.add(MADE_UP)
    lab.edit_secret(MADE_UP)
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED


def test_put_in_once_more_on_the_way_back() -> None:
    """I4: pods may have started on it since the previous value was put back."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    running, pending = lab.resource.parsed().rotation, lab.provider.pending
    assert running is not None
    early = lab.namespace.add_pod(None)
    lab.elapse(2 * SECOND)
    lab.say(cancel_request=running.id)
    assert early.name in waiting(lab).message
    lab.edit_secret(pending)
    late = lab.namespace.add_pod(None)
    lab.elapse(2 * SECOND)
    assert late.held == pending
    lab.namespace.end_pods([early])
    assert late.name in waiting(lab).message
    lab.namespace.end_pods([late])
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED


# Everywhere


def test_ready_speaks_of_what_the_spec_says_after_the_end() -> None:
    """The running rotation keeps its subject; the value of another one was never looked at."""
    lab = make_lab(PATIENT)
    lab.run(10 * SECOND)
    lab.edit_spec(client_id="client-2")
    assert isinstance(lab.run(), Rest)
    status = lab.resource.parsed()
    assert status.phase is Phase.COMPLETED
    ready = next(condition for condition in status.conditions if condition.type == "Ready")
    assert (ready.status, ready.reason) == ("True", "CredentialVerified")


def test_a_long_soak_looks_at_the_secret_now_and_then() -> None:
    """Nobody tells Keyturn that a Secret has changed."""
    lab = make_lab(make_spec(soak=3600 * SECOND))
    step = waiting(lab)
    assert step.after == SOAK_POLL
