"""The way back: previous value into the Secret, workloads rolled back, then the provider drops the new value.

The order mirrors the way forward: a value is withdrawn only when nothing may hold it any more (I3, I4).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from keyturn.api.observed import Journal, SecretView
from keyturn.api.rotation import CreationPolicy, Phase, Result, RotationSpec, VerifyMode
from keyturn.api.semantics import Failure, Standing, Verdict
from keyturn.rotation.common import abandoned, move, overdue, turned, wait_after, wait_for, written_in_this_rotation
from keyturn.rotation.consumers import stuck_pods
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    DeletePods,
    Enter,
    Finish,
    Publish,
    Restart,
    Step,
    Verify,
    Wait,
)
from keyturn.rotation.targets import rollout_gate
from keyturn.rotation.waves import next_turn
from keyturn.rotation.world import Operation, Problem, World

POLL: Final = timedelta(seconds=5)


def decide(world: World) -> Step:
    """Name the next step of a rotation that is being withdrawn."""
    problem = world.see_provider().problem
    if problem is None:
        step = _forward_after_all(world)
        if step is not None:
            return step
    step = _restore(world, world.see_journal()) or _roll_back(world)
    if step is not None:
        return step
    if problem is not None:
        return abandoned(world) or wait_for(problem)
    return _withdraw(world)


def _forward_after_all(world: World) -> Step | None:
    """When the new value is the only one left, withdrawing it would leave consumers with nothing (I3)."""
    if world.call is not None and world.call.outcome.failure is not None:
        return wait_after(world.call.operation, world.call.outcome)
    inspection = world.see_inspection()
    if inspection.outcome.failure is Failure.CLIENT_NOT_FOUND:
        return None
    if not inspection.outcome.ok:
        return wait_after("inspect", inspection.outcome)
    if inspection.standing is not Standing.FINISHED:
        journal = world.see_journal()
        if inspection.standing is not Standing.PENDING_UNKNOWN or journal is None or journal.pending is None:
            return None
        # Somebody started anew: after their cancelling of ours, or after our finalizing. Only the value itself tells.
        if world.verification is None:
            return Verify(journal.pending)
        if world.verification.verdict is Verdict.INCONCLUSIVE:
            return wait_after("verify", world.verification.outcome)
        if world.verification.verdict is Verdict.REJECTED:
            return None
    phase = Phase.FINALIZING if world.deleting else Phase.DISTRIBUTING
    changes = {"cancel_reason": None, "restored_time": None, "distributed_time": None}
    return Enter(turned(move(world, phase, previous_valid_until=world.now, **changes)))


def _restore(world: World, journal: Journal | None) -> Step | None:
    """Put the previous value back, unless the Secret never held the new one, or holds somebody else's by now."""
    record, secret = world.record, world.see_secret()
    gone = _gone(world, journal)
    if gone is not None:
        return gone
    pending = journal.pending if journal is not None else None
    holds_new = pending is not None and secret is not None and secret.value == pending
    if record.distributed_time is None:
        if not (holds_new or written_in_this_rotation(world, secret)):
            return None
        # Written down first: once the Secret is restored, nothing else tells that pods may hold the new value.
        written = secret.written_time if secret is not None else None
        return Enter(record.model_copy(update={"distributed_time": written or world.now.replace(microsecond=0)}))
    if journal is None:
        return _without_journal(world)
    if holds_new and record.restored_time is not None:
        # Somebody has put it in once more, and pods may have started on it since. Written down first, as above.
        return Enter(record.model_copy(update={"restored_time": None}))
    if holds_new:
        return Publish(value=journal.previous, previous=None)
    if record.restored_time is None:
        return Advance(record.model_copy(update={"restored_time": _restored_time(world, journal, secret)}))
    return None


def _gone(world: World, journal: Journal | None) -> Step | None:
    """The value in force exists only in the journal, which ends with the rotation: it goes back first."""
    secret, ref = world.see_secret(), world.subject.secret_ref
    if (
        journal is None
        or journal.previous is None
        or world.deleting
        or (secret is not None and secret.value is not None)
    ):
        return None
    if secret is None and ref.creation_policy is CreationPolicy.MERGE:
        message = f"Secret {ref.name} was deleted: create it, and the previous value is written to it"
        return Wait("SecretNotFound", message, stalled=True, after=POLL)
    return Publish(value=journal.previous, previous=None)


def _restored_time(world: World, journal: Journal, secret: SecretView | None) -> datetime:
    """When the Secret ceased to hold the new value: our own write, or, where others put it back, now at the latest."""
    written = secret.written_time if secret is not None and secret.value == journal.previous else None
    distributed = world.record.distributed_time
    if written is not None and distributed is not None and written > distributed:
        return written
    return world.now.replace(microsecond=0)


def _without_journal(world: World) -> Step | None:
    """The previous value is not known any more. Both are alive, so nothing breaks until a person has decided."""
    settled = world.see_provider().problem is None and world.see_inspection().standing is Standing.UNROTATED
    if settled:
        return Finish(Result.FAILED, "the journal was deleted; the rotation was settled at the provider by hand")
    if world.see_secret() is None and not world.see_rollout().unsafe_pods:
        return None
    message = (
        "the journal was deleted, so the previous value is not known any more; the provider accepts both: "
        "complete the rotation at the provider, or put the previous value into the Secret and cancel it there"
    )
    return Wait("JournalLost", message, stalled=True, blocked=True, after=POLL)


def _roll_back(world: World) -> Step | None:
    """Restart what was restarted, once more, and wait until nothing may hold the new value."""
    record = world.record
    # Without a time of restoring there is no value to go back to: the journal is lost, and nothing holds the new one.
    if record.distributed_time is None or record.restored_time is None:
        return None
    rollout = world.see_rollout()
    late = overdue(world, world.rollout_spec.timeout)
    turn = next_turn(rollout, at_once=late)
    if turn.restart:
        return _unusable(world) or Restart(turn.restart, rollout.stamp, record.restored_time)
    stuck = stuck_pods(rollout)
    if stuck:
        return DeletePods(stuck)
    gate = rollout_gate(rollout)
    if gate is None:
        return None
    # What is not available for another reason must not keep the way back open for ever; what holds the value must.
    if late and not rollout.unsafe_pods:
        return None
    message = f"{turn.waiting_for}; {gate.message}" if turn.waiting_for else gate.message
    return wait_for(Problem(gate.reason, message, lasting=gate.lasting or late), after=POLL)


def _unusable(world: World) -> Step | None:
    """Pods are not restarted on to a value of somebody else's making which the provider refuses (I3)."""
    journal, secret = world.see_journal(), world.see_secret()
    if world.deleting or journal is None or secret is None or secret.value in (None, journal.previous):
        return None
    if isinstance(world.spec, RotationSpec) and world.spec.verify.mode is VerifyMode.SKIP:
        return None
    problem = world.see_provider().problem
    if problem is not None:
        return wait_for(problem)
    if world.disproof is None:
        assert secret.value is not None
        return Verify(secret.value, dropped=True)
    if world.disproof.verdict is Verdict.INCONCLUSIVE:
        return wait_after("verify", world.disproof.outcome)
    if world.disproof.verdict is Verdict.ACCEPTED:
        return None
    key = world.subject.secret_ref.key
    message = (
        f"Secret {secret.name}, key {key} was changed by somebody else, and the provider refuses the value, so nothing "
        "is restarted: remove the key, and the previous value is written to it; both values stay valid until then"
    )
    return Wait("SecretChanged", message, stalled=True, after=POLL)


def _withdraw(world: World) -> Step:
    """Nothing holds the new value: let the provider drop it."""
    reason = world.record.cancel_reason or "cancelled"
    inspection, journal = world.see_inspection(), world.see_journal()
    if inspection.outcome.failure is Failure.CLIENT_NOT_FOUND:
        return Finish(Result.CANCELLED, f"{reason}; the client does not exist at the provider any more")
    ours_unknown = inspection.standing is Standing.PENDING_UNKNOWN and (journal is None or journal.pending is None)
    ours_unknown = ours_unknown and world.finalizer
    if inspection.standing in (Standing.PENDING_OURS, Standing.PENDING_UNPROVEN) or ours_unknown:
        return CallProvider(Operation.CANCEL)
    secret = world.see_secret()
    theirs = journal is not None and secret is not None and secret.value not in (None, journal.previous)
    kept = f"; Secret {secret.name} keeps the value that somebody else put in" if theirs and secret is not None else ""
    message = f"{reason}; the previous value is in force, nothing runs on the new one, and the provider has dropped it"
    return Finish(Result.CANCELLED, f"{message}{kept}")
