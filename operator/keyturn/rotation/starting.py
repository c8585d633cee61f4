"""Starting: the call that not every provider takes back, made once, and its answer found again where it got lost.

The intent is in the status (I1) and the previous value in the journal (I2) before the call. After a crash, or a call
whose answer did not come, the provider is asked where it stands; a start is never repeated blindly (I5).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from keyturn.api.conditions import ConditionType
from keyturn.api.observed import Journal
from keyturn.api.rotation import Phase, Result, RotationSpec
from keyturn.api.semantics import Effect, Failure, Outcome, Standing, Verdict
from keyturn.rotation.common import (
    CANCELLED_BY_DELETION,
    SECRET_LOST,
    capabilities,
    changed_since_start,
    go_back,
    granted_overlap,
    lost_journal,
    move,
    previous_ends,
    wait_after,
    wait_for,
    withdrawn,
    written_in_this_rotation,
)
from keyturn.rotation.idle import nothing_pending, rehearse, secret_unwritable
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    Enter,
    Finish,
    KeepPending,
    OpenJournal,
    SetFinalizer,
    Step,
    Verify,
    Wait,
)
from keyturn.rotation.world import Operation, World

LOST_POLL: Final = timedelta(seconds=10)
CLIENT_POLL: Final = timedelta(minutes=5)
# An intent that is older than this, or of a clock that was set back since, is written anew before the call: the end of
# the old value is counted from it.
START_FRESHNESS: Final = timedelta(minutes=1)


def decide(world: World, spec: RotationSpec) -> Step:
    """Name the next step on the way to a new value, exactly one, in the journal."""
    if not world.finalizer:
        # An object that is being deleted takes no new finalizer, and without it nothing may be started.
        return go_back(world, CANCELLED_BY_DELETION) if world.deleting else SetFinalizer(present=True)
    journal = world.see_journal()
    if journal is None:
        secret = world.see_secret()
        if written_in_this_rotation(world, secret) and changed_since_start(world, secret):
            return lost_journal(world)
        return secret_unwritable(world) or OpenJournal(previous=secret.value if secret else None)
    if journal.rotation_id != world.record.id:
        message = f"Secret {journal.name} holds the values of rotation {journal.rotation_id}: delete it to lose them"
        return Wait("JournalConflict", message, stalled=True)
    if journal.pending is not None:
        promise = world.see_provider().capabilities
        # Without the account it gets here only when the old value is dead, and there is nothing to wait for.
        early = promise is not None and promise.verify_before_distributing
        return Advance(move(world, Phase.VERIFYING if early else Phase.DISTRIBUTING))
    if world.call is not None and world.call.outcome.failure is not None:
        return _after_failed_call(world, spec, journal)
    return _start_or_recover(world, spec, journal)


def _start_or_recover(world: World, spec: RotationSpec, journal: Journal) -> Step:
    """Nothing of ours is in the journal: call, unless the provider shows that an earlier call got through (I5)."""
    inspection = world.see_inspection()
    if not inspection.outcome.ok:
        return _unless_corrected(world, spec, "inspect", inspection.outcome)
    if inspection.standing is Standing.UNROTATED:
        return _start(world, spec)
    if inspection.standing is Standing.UNTOLD and (world.armed or not world.record.start_sent):
        return _start(world, spec)
    if not world.record.start_sent:
        # Nothing of this rotation was sent, so this is not its answer.
        return nothing_pending(world, spec) or CallProvider(Operation.CANCEL)
    # Preparing saw nothing pending, so what is there now is the answer that this rotation lost.
    if inspection.recovered is not None:
        return KeepPending(inspection.recovered)
    if inspection.standing is Standing.PENDING_UNKNOWN and capabilities(world).cancel:
        return CallProvider(Operation.CANCEL)
    return _answer_lost(world, journal, inspection.standing)


def _start(world: World, spec: RotationSpec) -> Step:
    if withdrawn(world):
        return Finish(Result.CANCELLED, f"{CANCELLED_BY_DELETION} before anything was changed")
    told = _told_lately(world)
    if told is not None:
        return told
    if not capabilities(world).cancel and not world.rehearsed:
        return rehearse(world)
    fresh = timedelta() <= world.now - world.record.phase_started_time <= START_FRESHNESS
    if not fresh or not world.record.start_sent:
        # The end of the old value is counted from before the call, and the call from an intent that says so (I1).
        changes = {"start_sent": True, "previous_valid_until": previous_ends(world, spec)}
        return Enter(move(world, Phase.STARTING, **changes))
    return CallProvider(Operation.START, overlap=granted_overlap(spec))


def _told_lately(world: World) -> Wait | None:
    """That the client does not exist: whatever wakes us, each further try would write twice (I12)."""
    age, reason = world.now - world.record.phase_started_time, Failure.CLIENT_NOT_FOUND
    stalled = next((one for one in world.status.conditions if one.type == ConditionType.STALLED), None)
    if stalled is None or (stalled.reason, stalled.observed_generation) != (reason, world.generation):
        return None
    if world.record.start_sent or not timedelta() <= age < CLIENT_POLL:
        return None
    return Wait(reason, stalled.message, stalled=True, after=CLIENT_POLL - age)


def _answer_lost(world: World, journal: Journal, standing: Standing | None) -> Step:
    """Only a person can find the new value; what they put into the Secret is taken up when the provider accepts it."""
    secret, ref = world.see_secret(), world.subject.secret_ref
    by_hand = secret.value if secret is not None and secret.value != journal.previous else None
    tried = world.verification if by_hand is not None else None
    if by_hand is not None and tried is None:
        return Verify(by_hand)
    if by_hand is not None and tried is not None and tried.verdict is Verdict.ACCEPTED:
        return KeepPending(by_hand)
    remedy = f"{capabilities(world).lost_remedy}; then put the new value into Secret {ref.name}, key {ref.key}"
    if standing is Standing.LOST:
        reason, message = SECRET_LOST, "the provider has replaced the value, and its answer with the new one was lost"
    else:
        reason, message = "AnswerLost", "the provider may have replaced the value, and its answer was lost"
    if tried is not None and tried.verdict is Verdict.REJECTED:
        message += ", and it refuses the one that the Secret holds now"
    if world.deleting:
        return Finish(Result.FAILED, f"{message}: {remedy}")
    return Wait(reason, f"{message}: {remedy}", stalled=True, blocked=True, after=LOST_POLL)


def _after_failed_call(world: World, spec: RotationSpec, journal: Journal) -> Step:
    assert world.call is not None
    operation, outcome = world.call.operation, world.call.outcome
    if operation is Operation.START and outcome.effect is Effect.NOT_APPLIED:
        if outcome.failure is Failure.REJECTED:
            if capabilities(world).needs_current and world.see_inspection().standing is not Standing.UNROTATED:
                # Refused because the value is dead: an earlier call got through after all, or somebody else's.
                return _start_or_recover(world, spec, journal)
            return Finish(Result.FAILED, f"the provider refused to start: {outcome.message}")
        if world.record.start_sent:
            return Advance(world.record.model_copy(update={"start_sent": False}))
        return _unless_corrected(world, spec, operation, outcome)
    # Looked at again after a pause, by asking the provider where it stands: never repeated blindly (I5).
    return wait_after(operation, outcome)


def _unless_corrected(world: World, spec: RotationSpec, operation: str, outcome: Outcome) -> Step:
    """Wait; but where the client does not exist and the spec names another one, go on with that one."""
    if outcome.failure is not Failure.CLIENT_NOT_FOUND:
        return wait_after(operation, outcome)
    if spec.client_id == world.subject.client_id:
        # A corrected spec is seen at once.
        return wait_after(operation, replace(outcome, retry_after=CLIENT_POLL))
    subject = world.subject.model_copy(update={"client_id": spec.client_id})
    changes = {"subject": subject, "start_sent": False}
    return wait_for(world.conflict) if world.conflict else Enter(move(world, Phase.STARTING, **changes))
