"""The life of a rotation, top to bottom: which step comes next.

    Idle → Preparing → Starting → Verifying → Distributing → RollingOut → Soaking → Finalizing → Completed
                       any of these up to Soaking, if the provider can → Cancelling → Cancelled

`decide` looks at the world and names one step. It never assumes that the step before this one happened in the same
process: every phase begins by looking at what is there, so a crash at any point leads to the same steps (I9).
What providers differ in is asked of their capabilities; there are no branches on a provider.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from keyturn.api.observed import Journal
from keyturn.api.rotation import CreationPolicy, FailurePolicy, Phase, Result, RotationSpec, VerifyMode
from keyturn.api.semantics import Effect, Failure, Recovery, Standing, Verdict
from keyturn.rotation import cancelling, idle
from keyturn.rotation.common import (
    CANCELLED_BY_DELETION,
    LASTING_FAILURES,
    cancellable,
    capabilities,
    changed_since_start,
    go_back,
    move,
    overdue,
    provider_blocks,
    wait_after,
    wait_for,
    withdrawn,
    written_in_this_rotation,
)
from keyturn.rotation.consumers import rollout_failure, rollout_gate, targets, to_restart
from keyturn.rotation.idle import secret_unwritable
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    Enter,
    Finish,
    Observe,
    OpenJournal,
    Publish,
    Restart,
    SetFinalizer,
    Step,
    Verify,
    Wait,
)
from keyturn.rotation.world import LookFirst, Operation, Problem, World

# A rollout is watched; this is only how long a missed event can go unnoticed.
ROLLOUT_POLL: Final = timedelta(seconds=5)
VERIFY_POLL: Final = timedelta(seconds=1)


def decide(world: World) -> Step:
    """Name the next step for one resource. Pure: the same world gives the same step."""
    try:
        if world.status.rotation is None:
            return idle.decide(world)
        return _within_rotation(world, world.record.phase)
    except LookFirst as missing:
        return Observe(missing.aspect)


def _within_rotation(world: World, phase: Phase) -> Step:
    if phase is Phase.CANCELLING:
        return cancelling.decide(world)
    if phase is Phase.FINALIZING:
        return provider_blocks(world) or _finalizing(world)
    if withdrawn(world) and cancellable(world):
        return go_back(world, CANCELLED_BY_DELETION)
    if isinstance(world.spec, Problem):
        return wait_for(world.spec)
    return provider_blocks(world) or _PHASES[phase](world, world.spec)


def _starting(world: World, spec: RotationSpec) -> Step:
    """Get a new value from the provider, exactly one, and have it in the journal."""
    if not world.finalizer:
        # An object that is being deleted takes no new finalizer, and without it nothing may be started.
        return go_back(world, CANCELLED_BY_DELETION) if world.deleting else SetFinalizer(present=True)
    journal = world.see_journal()
    if journal is None:
        secret = world.see_secret()
        if written_in_this_rotation(world, secret) and changed_since_start(world, secret):
            return _lost_journal(world)
        return secret_unwritable(world) or OpenJournal(previous=secret.value if secret else None)
    if journal.rotation_id != world.record.id:
        message = f"Secret {journal.name} holds the values of rotation {journal.rotation_id}: delete it to lose them"
        return Wait("JournalConflict", message, stalled=True)
    if journal.pending is not None:
        return Advance(move(world, Phase.VERIFYING))
    if world.call is not None and world.call.outcome.failure is not None:
        return _after_failed_call(world)
    return _start_or_recover(world)


def _start_or_recover(world: World) -> Step:
    """Nothing of ours is in the journal: call, unless the provider shows that an earlier call got through (I5)."""
    inspection = world.see_inspection()
    if not inspection.outcome.ok:
        return wait_after("inspect", inspection.outcome)
    if inspection.standing is Standing.UNROTATED:
        return CallProvider(Operation.START)
    # Preparing saw nothing pending, so what is pending now is the answer that this rotation lost.
    assert capabilities(world).recovery is Recovery.CANCEL_AND_RESTART
    return CallProvider(Operation.CANCEL)


def _after_failed_call(world: World) -> Step:
    assert world.call is not None
    operation, outcome = world.call.operation, world.call.outcome
    if outcome.effect is Effect.NOT_APPLIED and outcome.failure is Failure.REJECTED and operation is Operation.START:
        return Finish(Result.FAILED, f"the provider refused to start: {outcome.message}")
    # Looked at again after a pause, by asking the provider where it stands: never repeated blindly (I5).
    return wait_after(operation, outcome)


def _verifying(world: World, spec: RotationSpec) -> Step:
    """Let the provider prove the new value before any consumer gets it."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return _lost_journal(world)
    if spec.verify.mode is VerifyMode.SKIP:
        return Advance(move(world, Phase.DISTRIBUTING))
    if world.verification is None:
        return Verify(journal.pending)
    if world.verification.verdict is Verdict.ACCEPTED:
        return Advance(move(world, Phase.DISTRIBUTING))
    outcome = world.verification.outcome
    if world.verification.verdict is Verdict.INCONCLUSIVE and outcome.failure not in LASTING_FAILURES:
        return wait_after("verify", outcome)
    message = outcome.message
    if overdue(world, spec.verify.timeout):
        return _fail(world, spec, "VerificationFailed", f"the provider did not accept the new value in time: {message}")
    return Wait("VerificationPending", f"the provider does not accept the new value yet: {message}", after=VERIFY_POLL)


def _distributing(world: World, spec: RotationSpec) -> Step:
    """Write the new value where the workloads read it."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return _lost_journal(world)
    secret = world.see_secret()
    value = secret.value if secret else None
    if secret is not None and value == journal.pending:
        changes = {"distributed_time": secret.written_time or world.now.replace(microsecond=0)}
        return Advance(move(world, Phase.ROLLING_OUT, **changes))
    if value != journal.previous:
        name, key = world.subject.secret_ref.name, world.subject.secret_ref.key
        message = f"Secret {name}, key {key} was changed by somebody else; their value was left in place"
        return _fail(world, spec, "SecretChanged", message)
    return Publish(value=journal.pending, previous=journal.previous)


def _rolling_out(world: World, spec: RotationSpec) -> Step:
    """Restart every workload that reads the Secret, once, and wait until nothing runs on the old value."""
    reverted = _reverted(world)
    if reverted is not None:
        return _taken_back(world, spec, reverted)
    consumers = world.see_consumers()
    restart = to_restart(consumers, world.record, spec.rollout.restart, cancelling=False)
    if restart:
        return Restart(restart, world.record.id)
    gave_up = rollout_failure(consumers, world.record)
    if gave_up is not None:
        return _fail(world, spec, gave_up.reason, gave_up.message)
    gate = _rollout_gate(world)
    if gate is None:
        if spec.soak:
            return Enter(move(world, Phase.SOAKING))
        return Enter(move(world, Phase.FINALIZING))
    if overdue(world, spec.rollout.timeout):
        return _fail(world, spec, "RolloutTimeout", f"the rollout took too long: {gate.message}")
    return wait_for(gate, after=ROLLOUT_POLL)


def _soaking(world: World, spec: RotationSpec) -> Step:
    """Give the new value time to show that it works, with nothing becoming unready meanwhile."""
    reverted = _reverted(world)
    if reverted is not None:
        return _taken_back(world, spec, reverted)
    gate = _rollout_gate(world)
    if gate is not None:
        return Enter(move(world, Phase.ROLLING_OUT))
    if overdue(world, spec.soak):
        return Enter(move(world, Phase.FINALIZING))
    rest = world.record.phase_started_time + spec.soak - world.now
    return Wait("Soaking", "everything runs on the new value; the old one is kept a while longer", after=rest)


def _finalizing(world: World) -> Step:
    """Let the old value die, last of all (I4), then clean the Secret."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return _lost_journal(world)
    if world.call is not None and world.call.outcome.failure is not None:
        return wait_after(world.call.operation, world.call.outcome)
    inspection = world.see_inspection()
    if not inspection.outcome.ok:
        return wait_after("inspect", inspection.outcome)
    if inspection.standing is Standing.FINISHED or world.record.previous_valid_until is not None:
        return _finished(world, journal)
    if inspection.standing is not Standing.PENDING_OURS:
        message = "the provider no longer holds the new value as pending: somebody cancelled or restarted its rotation"
        return go_back(world, message)
    gate = _reverted(world) or _rollout_gate(world)
    if gate is not None:
        return Enter(move(world, Phase.ROLLING_OUT))
    return CallProvider(Operation.FINALIZE)


def _finished(world: World, journal: Journal) -> Step:
    """The old value is dead: nothing may be left that names it, and the new one must not be lost with the journal."""
    secret, ref = world.see_secret(), world.subject.secret_ref
    value = secret.value if secret else None
    if secret is not None and value == journal.pending and not secret.has_previous:
        return Finish(Result.COMPLETED, _completed_message(world))
    if value not in (None, journal.previous, journal.pending):
        trouble = f"Secret {ref.name}, key {ref.key} was changed by somebody else: remove the key"
    elif secret is None and ref.creation_policy is CreationPolicy.MERGE:
        trouble = f"Secret {ref.name} was deleted: create it"
    else:
        return Publish(value=journal.pending, previous=None)
    if world.deleting:
        return Finish(Result.COMPLETED, f"the old value is dropped; {trouble.split(':')[0]}")
    message = f"{trouble}, and the new value is written to it; it is the only one that the provider accepts"
    return Wait("SecretChanged", message, stalled=True, after=ROLLOUT_POLL)


def _completed_message(world: World) -> str:
    count = len(world.record.targets)
    workloads = "1 workload" if count == 1 else f"{count} workloads"
    return f"Secret {world.subject.secret_ref.name} holds the new value, {workloads} run on it, the old one is dropped"


def _rollout_gate(world: World) -> Problem | None:
    """What keeps the old value from being dropped, or None when nothing does (I4)."""
    return rollout_gate(targets(world.see_consumers(), world.record, cancelling=False, policy=world.restart_policy))


def _reverted(world: World) -> Problem | None:
    """Whether another tool took the new value out of the Secret, now or earlier in this rotation."""
    journal, secret = world.see_journal(), world.see_secret()
    if journal is None or journal.pending is None:
        return None
    if secret is not None and secret.value == journal.pending and world.record.restored_time is None:
        return None
    ref = world.subject.secret_ref
    state = "does not exist" if secret is None else f"key {ref.key} did not keep the new value"
    return Problem("SecretReverted", f"Secret {ref.name} {state}: another tool took it back")


def _taken_back(world: World, spec: RotationSpec, problem: Problem) -> Step:
    """Said, not fought. Pods may have started on the old value since, which no stamp tells: no way leads on (I4)."""
    step = _fail(world, spec, problem.reason, problem.message)
    if isinstance(step, Wait) and step.blocked and world.record.restored_time is None:
        return Enter(world.record.model_copy(update={"restored_time": world.now.replace(microsecond=0)}))
    return step


def _lost_journal(world: World) -> Step:
    """Without the journal the values are unknown: withdraw the pending one rather than guess."""
    return go_back(world, "the journal of this rotation was deleted")


def _fail(world: World, spec: RotationSpec, reason: str, message: str) -> Step:
    """The new value or the rollout failed: go back, or hold, as the user chose; where no way leads back, go on."""
    if not cancellable(world) or world.record.previous_valid_until is not None:
        return Wait(reason, f"{message}; the provider cannot take the new value back", stalled=True, after=ROLLOUT_POLL)
    if spec.on_failure is FailurePolicy.HOLD and not world.deleting:
        remedy = "both values stay valid; raise the timeout to go on, or set spec.onFailure to Cancel to go back"
        return Wait(reason, f"{message}; {remedy}", stalled=True, blocked=True, after=ROLLOUT_POLL)
    return go_back(world, message)


_PHASES: Final[dict[Phase, Callable[[World, RotationSpec], Step]]] = {
    Phase.STARTING: _starting,
    Phase.VERIFYING: _verifying,
    Phase.DISTRIBUTING: _distributing,
    Phase.ROLLING_OUT: _rolling_out,
    Phase.SOAKING: _soaking,
}
