"""Timed and Immediate providers, disturbed at every effect: to the end, or to the end that is documented (I5, I9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from pydantic import SecretStr

from keyturn.api.rotation import (
    CreationPolicy,
    DeletionPolicy,
    Phase,
    RolloutSpec,
    VerifyMode,
    VerifySpec,
)
from keyturn.api.semantics import Inspection, Standing
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import ORIGINAL, Fault
from tests.model.fakesemantics import IMMEDIATE, TIMED, ResettingLab, make_resetting
from tests.model.lab import Disturbance
from tests.model.profiles import THOROUGH

LIMIT = timedelta(seconds=75)


@dataclass(frozen=True)
class Case:
    """`blocked`: the reason with which a lost answer ends here; None: it is recovered."""

    name: str
    build: Callable[[], ResettingLab]
    blocked: str | None


def _slow(lab: ResettingLab) -> ResettingLab:
    lab.provider.propagation = 8 * SECOND
    return lab


def _stuck(lab: ResettingLab) -> ResettingLab:
    """Pods on the new value are not ready for a while, longer than the rollout may take."""
    web = lab.namespace.deployments["web"]
    web.sick = lambda stamp: stamp is not None

    def mend() -> None:
        web.sick = lambda _: False
        for pod in lab.namespace.pods:
            pod.sick = False

    lab.after(30 * SECOND, mend)
    return lab


_SHORT = RolloutSpec(timeout=12 * SECOND)
_TRUSTING = VerifySpec(mode=VerifyMode.SKIP)
_OWNER = {"creation_policy": CreationPolicy.OWNER}
_DOUBLE = {"previous_key": "OLD", "client_id_key": "ID"}

CASES = [
    Case("timed", lambda: make_resetting(TIMED, reads_back=True), None),
    Case("timed, soak", lambda: make_resetting(TIMED, reads_back=True, soak=10 * SECOND), None),
    Case("timed, previous key", lambda: make_resetting(TIMED, reads_back=True, secret_ref=_DOUBLE), None),
    Case("timed, slow", lambda: _slow(make_resetting(TIMED, reads_back=True)), None),
    Case("timed, stuck", lambda: _stuck(make_resetting(TIMED, reads_back=True, rollout=_SHORT)), None),
    Case("timed, blind", lambda: make_resetting(TIMED), "AnswerLost"),
    Case("timed, blind, new secret", lambda: make_resetting(TIMED, secret_ref=_OWNER), "AnswerLost"),
    Case("immediate", lambda: make_resetting(IMMEDIATE), "SecretLost"),
    Case("immediate, stuck", lambda: _stuck(make_resetting(IMMEDIATE, rollout=_SHORT)), "SecretLost"),
    Case("immediate, unverified", lambda: make_resetting(IMMEDIATE, verify=_TRUSTING), "SecretLost"),
]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def assert_completed(lab: ResettingLab) -> None:
    status, secret = lab.resource.parsed(), lab.namespace.secret
    assert status.phase is Phase.COMPLETED, (lab.log, lab.resource.status)
    assert status.rotation is None
    assert secret is not None
    assert (secret.value, secret.previous) == (lab.provider.current, None)
    assert secret.value != ORIGINAL
    assert lab.journal is None
    assert not lab.resource.finalizer
    assert {pod.held for pod in lab.namespace.pods} <= {secret.value}
    for deployment in lab.namespace.deployments.values():
        assert list(deployment.stamps.values()) == [1], f"I7: {deployment.stamps}"
    written = lab.log[:]
    assert isinstance(lab.run(LIMIT), Rest)
    assert lab.log == written, "I12: an idle pass writes"


def assert_blocked(lab: ResettingLab, step: Wait | Rest | None, reason: str) -> None:
    """Said with its remedy, all values kept, and not tried again however long it takes."""
    assert isinstance(step, Wait), (step, lab.log)
    assert (step.reason, step.stalled, step.blocked) == (reason, True, True)
    assert "app, key SECRET" in step.message
    assert lab.resource.parsed().phase is Phase.BLOCKED
    assert lab.journal is not None
    assert lab.journal.pending is None
    assert sum(sum(deployment.stamps.values()) for deployment in lab.namespace.deployments.values()) == 0
    called = len(lab.provider.calls)
    lab.run(LIMIT)
    assert len(lab.provider.calls) == called, "I5: a blind call"


@by_name
def test_undisturbed(case: Case) -> None:
    """I2: the answer goes into the journal before anything else; an Immediate one then into the Secret, then on."""
    lab = case.build()
    lab.run()
    assert_completed(lab)
    assert len(lab.provider.calls) == 1
    after = lab.log[lab.log.index(Operation.START) + 1 :]
    assert after[0] == "journal pending"
    if lab.provider.immediate:
        assert after[1:4] == ["secret", "restart web", "restart worker"]


@by_name
def test_one_disturbance_anywhere(case: Case) -> None:
    """I5, I9: at most one reset is carried out; lost is only what no other copy of can be had."""
    names = effects(case)
    for index, name in enumerate(names):
        for disturbance in Disturbance:
            if disturbance is Disturbance.REPLY_LOST and name not in (*Operation,) and not THOROUGH:
                continue  # all but the same as a crash after it
            lab = case.build()
            lab.plan = {index: disturbance}
            step = lab.run(LIMIT)
            where = (case.name, name, disturbance, lab.log)
            assert lab.provider.count(Operation.START) <= 1, where
            if case.blocked and loses_the_answer(name, disturbance):
                assert_blocked(lab, step, case.blocked)
                lab.edit_secret(lab.provider.current)
                step = lab.run(LIMIT)
            elif case.blocked == "AnswerLost" and hides_the_call(names, index, disturbance):
                assert_blocked(lab, step, case.blocked)
                lab.provider.reads_back = True
                step = lab.run(LIMIT)
            assert isinstance(step, Rest), where
            assert_completed(lab)


def effects(case: Case) -> list[str]:
    lab = case.build()
    lab.run()
    return lab.log


def loses_the_answer(effect: str, disturbance: Disturbance) -> bool:
    if effect == Operation.START:
        return disturbance in (Disturbance.CRASH_AFTER, Disturbance.REPLY_LOST)
    return effect == "journal pending" and disturbance is Disturbance.CRASH_BEFORE


def hides_the_call(names: list[str], index: int, disturbance: Disturbance) -> bool:
    """Whether the intent to call is written, and the call not made, which only the provider could tell."""
    if disturbance not in (Disturbance.CRASH_AFTER, Disturbance.REPLY_LOST, Disturbance.CRASH_BEFORE):
        return False
    intended = names.index(Operation.START) - (0 if disturbance is Disturbance.CRASH_BEFORE else 1)
    return index == intended


@by_name
def test_a_call_that_vanished(case: Case) -> None:
    """I5: not carried out and not answered; made again only where the provider shows or proves that."""
    lab = case.build()
    lab.provider.faults.append(Fault.VANISHED)
    step = lab.run(LIMIT)
    if case.blocked == "AnswerLost":
        assert lab.provider.count(Operation.START) == 0
        assert_blocked(lab, step, case.blocked)
        return
    assert_completed(lab)
    assert len(lab.provider.calls) == 2


@by_name
def test_refused_calls_are_made_again(case: Case) -> None:
    lab = case.build()
    lab.provider.faults += [Fault.REFUSED, Fault.REFUSED]
    lab.run(LIMIT)
    assert_completed(lab)
    assert lab.provider.count(Operation.START) == 1


def test_a_call_carried_out_after_all_is_lost_and_not_just_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5: the probe finds the old value alive, and the first call is carried out only then; the second is refused."""
    lab = make_resetting(IMMEDIATE)
    probe = lab.provider.inspect

    def inspect(pending: SecretStr | None, previous: SecretStr | None = None) -> Inspection:
        seen = probe(pending, previous)
        if lab.provider.calls and seen.standing is Standing.UNROTATED:
            lab.provider.reset()
        return seen

    monkeypatch.setattr(lab.provider, "inspect", inspect)
    lab.provider.faults.append(Fault.VANISHED)
    step = lab.run(LIMIT)
    assert len(lab.provider.calls) == 2
    assert lab.provider.count(Operation.START) == 1
    assert_blocked(lab, step, "SecretLost")


def test_a_value_put_in_by_hand_is_taken_up_in_a_later_rotation_too() -> None:
    """I4: Keyturn wrote the Secret long ago, in another rotation: that says nothing of when the new value came in."""
    lab = make_resetting(TIMED)
    lab.run()
    assert_completed(lab)
    lab.elapse(60 * SECOND)
    lab.namespace.end_pods([pod for pod in lab.namespace.pods if pod.owner[1] == "web"])
    lab.elapse(10 * SECOND)
    lab.provider.faults.append(Fault.LOST)
    lab.edit_spec(rotation_request="b")
    step = lab.run(LIMIT)
    assert isinstance(step, Wait)
    assert step.reason == "AnswerLost"
    lab.edit_secret(lab.provider.current)
    lab.run(LIMIT)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert {pod.held for pod in lab.namespace.pods} == {lab.provider.current}
    assert [len(one.stamps) for one in lab.namespace.deployments.values()] == [2, 2]


def test_a_wrong_value_put_in_by_hand_is_not_taken_up() -> None:
    lab = make_resetting(IMMEDIATE)
    lab.provider.faults.append(Fault.LOST)
    lab.run(LIMIT)
    lab.foreign.add("made up")
    lab.edit_secret("made up")
    step = lab.run(LIMIT)
    assert isinstance(step, Wait)
    assert step.reason == "SecretLost"
    assert "refuses" in step.message
    assert lab.journal is not None
    assert lab.journal.pending is None


@pytest.mark.parametrize("policy", DeletionPolicy)
@pytest.mark.parametrize("case", [CASES[1], CASES[5], CASES[7]], ids=lambda case: case.name)
def test_deleted_anywhere(case: Case, policy: DeletionPolicy) -> None:
    """I11: before the call nothing was changed; after it there is only forward."""
    names = effects(case)
    begun = names.index("status Starting")
    for index in range(begun, len(names)):
        lab = case.build()
        lab.edit_spec(deletion_policy=policy)
        lab.actions[index] = lab.delete
        lab.run(LIMIT)
        assert lab.resource.gone, (names[index], lab.log)
        assert lab.provider.count(Operation.START) <= 1
        secret = lab.namespace.secret
        assert secret is not None
        assert secret.value == lab.provider.current, (names[index], lab.log)
        assert lab.provider.accepts(secret.value)


@pytest.mark.parametrize("case", [CASES[1], CASES[5], CASES[7]], ids=lambda case: case.name)
def test_deleted_anywhere_together_with_the_account(case: Case) -> None:
    """I2, I11: as `kubectl delete -f` does with one file. The value in force must not go with the journal."""
    names = effects(case)
    for index in range(names.index("status Starting"), len(names)):
        lab = case.build()

        def leave(lab: ResettingLab = lab) -> None:
            lab.account_gone = True
            lab.delete()

        lab.actions[index] = leave
        lab.run(LIMIT)
        assert lab.resource.gone, (names[index], lab.log)
        secret = lab.namespace.secret
        assert secret is not None
        assert secret.value == lab.provider.current, (names[index], lab.log)


def test_deleted_when_the_answer_is_lost() -> None:
    """I11: nobody is left to put the value in, and an object that cannot be deleted helps nobody."""
    lab = make_resetting(IMMEDIATE)
    lab.provider.faults.append(Fault.LOST)
    lab.run(LIMIT)
    lab.delete()
    lab.run(LIMIT)
    assert lab.resource.gone
    assert any("deleteUser" in said.message or "put the new value" in said.message for said in lab.events)
