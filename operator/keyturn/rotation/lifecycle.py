"""The life of a rotation, top to bottom: which step comes next.

    Idle → Preparing → Starting → Verifying → Distributing → RollingOut → Soaking → Finalizing → Completed
         any of these until the old value is dropped, if the provider can → Cancelling → Cancelled

`decide` looks at the world and names one step. It never assumes that the step before this one happened in the same
process: every phase begins by looking at what is there, so a crash at any point leads to the same steps (I9).
What providers differ in is asked of their capabilities; there are no branches on a provider.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.observed import Journal
from keyturn.api.rotation import CreationPolicy, FailurePolicy, Phase, Result, RotationSpec, VerifyMode
from keyturn.api.semantics import Failure, Overlap, Standing, Verdict
from keyturn.rotation import cancelling, idle, starting
from keyturn.rotation.common import (
    CANCELLED_BY_DELETION,
    CANCELLED_BY_USER,
    LASTING_FAILURES,
    cancellable,
    capabilities,
    default_policy,
    go_back,
    granted_overlap,
    hurried,
    lost_journal,
    move,
    overdue,
    provider_blocks,
    wait_after,
    wait_for,
    withdrawn,
    written_in_this_rotation,
)
from keyturn.rotation.due import URGENT, urgent_word
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    Enter,
    Finish,
    Observe,
    Publish,
    Restart,
    Step,
    Verify,
    Wait,
)
from keyturn.rotation.targets import HELD, HOLDS, rollout_failure, rollout_gate, targets
from keyturn.rotation.waves import next_turn
from keyturn.rotation.world import UNOBSERVED, Aspect, LookFirst, Operation, Problem, World

ROLLOUT_POLL: Final = timedelta(seconds=5)  # it is watched; so long a missed event can go unnoticed
VERIFY_POLL: Final = timedelta(seconds=1)
SOAK_POLL: Final = timedelta(minutes=1)  # Secrets are not watched: so long it can go unnoticed that one was changed


def decide(world: World) -> Step:
    """Name the next step for one resource. Pure: the same world gives the same step."""
    try:
        if world.status.rotation is None:
            return idle.decide(world)
        return _within_rotation(world, world.record.phase)
    except LookFirst as missing:
        return Observe(missing.aspects)


def _within_rotation(world: World, phase: Phase) -> Step:
    # A clock that was set back: the phase counts anew, and lasts no hour longer for it. An intent keeps its time.
    if world.now < world.record.phase_started_time and phase is not Phase.STARTING:
        return Advance(move(world, phase))
    if phase is Phase.CANCELLING:
        return cancelling.decide(world)
    if phase is Phase.FINALIZING:
        return provider_blocks(world) or _finalizing(world)
    reason = _called_off(world)
    if reason is not None and cancellable(world):
        return go_back(world, reason)
    if isinstance(world.spec, Problem) and cancellable(world):
        return wait_for(world.spec)
    # Where no way leads back, a spec that has become invalid must not stop the way forward.
    spec = default_policy(world) if isinstance(world.spec, Problem) else world.spec
    if world.record.reason == URGENT:
        spec = hurried(spec)
    return _unheard(world, _pressed(world, spec, _blocked(world, phase) or _PHASES[phase](world, spec)))


def _blocked(world: World, phase: Phase) -> Step | None:
    step = provider_blocks(world)
    return None if isinstance(step, Wait) and _goes_on_alone(world, phase) else step


def _goes_on_alone(world: World, phase: Phase) -> bool:
    """Whether the new value must get to the consumers without the account, as the old one dies anyway (I3)."""
    if cancellable(world):
        return False
    if phase is not Phase.STARTING:
        return phase in (Phase.DISTRIBUTING, Phase.ROLLING_OUT)
    journal, dies = world.see_journal(), world.record.previous_valid_until
    return journal is not None and journal.pending is not None and dies is not None and dies <= world.now


def _unheard(world: World, step: Step) -> Step:
    """Say that a cancellation was asked for in vain. The word for an earlier rotation is not meant for this one."""
    word, known = world.cancel_request, {past.id for past in world.status.history}
    if word is None or word in known or not isinstance(step, Wait):
        return step
    why = "the provider cannot take the new value back"
    if word != world.record.id:
        why = f"to cancel this rotation, set it to {world.record.id}"
    return replace(step, message=f"annotation keyturn.dev/cancel: {why}; {step.message}")


def _pressed(world: World, spec: RotationSpec, step: Step) -> Step:
    """That the old value dies while it may be in use matters more than what is waited for (Timed)."""
    end, overlap = world.record.previous_valid_until, granted_overlap(spec)
    if not isinstance(step, Wait) or world.record.phase not in _ON_OLD_VALUE or end is None or not overlap:
        return step
    promise = world.see_provider().capabilities
    if promise is None or promise.overlap is not Overlap.UNTIL_TIME or world.now < end - overlap / 4:
        return step
    ended = world.now >= end
    when = f"since {format_time(end)}" if ended else f"from {format_time(end)} on"
    message = f"the provider refuses the old value {when}; {step.message}"
    return replace(step, reason="OverlapEnded" if ended else "OverlapEnding", message=message, stalled=True)


def _verifying(world: World, spec: RotationSpec) -> Step:
    """Let the provider prove the new value, before any consumer gets it where the old one lives on meanwhile."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return lost_journal(world)
    if spec.verify.mode is VerifyMode.REQUIRED and world.verification is None:
        return Verify(journal.pending)
    if world.verification is None or world.verification.verdict is Verdict.ACCEPTED:
        early = capabilities(world).verify_before_distributing
        return Advance(move(world, Phase.DISTRIBUTING)) if early else _last_step(world)
    outcome = world.verification.outcome
    unasked = outcome.failure is Failure.ADDRESS_NOT_PERMITTED
    if world.verification.verdict is Verdict.INCONCLUSIVE and (unasked or outcome.failure not in LASTING_FAILURES):
        return wait_after("verify", outcome)
    message = outcome.message
    if overdue(world, spec.verify.timeout):
        return _fail(world, spec, "VerificationFailed", f"the provider did not accept the new value in time: {message}")
    return Wait("VerificationPending", f"the provider does not accept the new value yet: {message}", after=VERIFY_POLL)


def _distributing(world: World, spec: RotationSpec) -> Step:
    """Write the new value where the workloads read it."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return lost_journal(world)
    secret = world.see_secret()
    value = secret.value if secret else None
    if secret is not None and value == journal.pending:
        # Who put the value in by hand did so after our last write, which may be that of an earlier rotation.
        ours = secret.written_time if written_in_this_rotation(world, secret) else None
        changes = {"distributed_time": ours or world.now.replace(microsecond=0)}
        return Advance(move(world, Phase.ROLLING_OUT, **changes))
    if value != journal.previous:
        name, key = world.subject.secret_ref.name, world.subject.secret_ref.key
        left = f"Secret {name}, key {key} was changed by somebody else; their value was left in place"
        problem = Problem("SecretChanged", f"Secret {name} was deleted" if secret is None else left)
        way_back = cancellable(world)
        return _fail(world, spec, problem.reason, problem.message) if way_back else _kept_out(world, spec, problem)
    return Publish(value=journal.pending, previous=journal.previous)


def _rolling_out(world: World, spec: RotationSpec) -> Step:
    """Restart every workload that reads the Secret, once, and wait until nothing runs on the old value."""
    reverted = _reverted(world)
    if reverted is not None:
        return _taken_back(world, spec, reverted)
    rollout, record = world.see_rollout(), world.record
    dies = record.previous_valid_until
    turn = next_turn(rollout, at_once=dies is not None and dies <= world.now)
    gate = rollout_gate(rollout)
    held_since = _held_since(world, gate)
    if held_since is not None:
        return held_since
    gave_up = rollout_failure(rollout) or _too_slow(world, spec, gate)
    # Where a way leads back nothing more is restarted, which would have to go back as well, or to wait for a person.
    if gave_up is not None and (cancellable(world) or not turn.restart):
        return _fail(world, spec, gave_up.reason, gave_up.message)
    if turn.restart:
        assert record.distributed_time is not None
        return Restart(turn.restart, rollout.stamp, record.distributed_time)
    if (turn.wave, turn.ready_time) != (record.wave, record.wave_ready_time):
        return Advance(record.model_copy(update={"wave": turn.wave, "wave_ready_time": turn.ready_time}))
    if gate is not None:
        message = f"{turn.waiting_for}; {gate.message}" if turn.waiting_for else gate.message
        lasting = gate.lasting or (gate.reason == HELD and overdue(world, spec.rollout.timeout))
        return wait_for(Problem(gate.reason, message, lasting), after=ROLLOUT_POLL)
    return provider_blocks(world) or _rolled_out(world, spec)


def _rolled_out(world: World, spec: RotationSpec) -> Step:
    if not capabilities(world).verify_before_distributing:
        return Advance(move(world, Phase.VERIFYING))
    return Enter(move(world, Phase.SOAKING)) if spec.soak else _last_step(world)


def _held_since(world: World, gate: Problem | None) -> Advance | None:
    """Note since when the rollout waits only for what others must end: that time does not count."""
    record, held = world.record, gate is not None and gate.reason in HOLDS
    if held and record.held_since is None:
        return Advance(record.model_copy(update={"held_since": world.now}))
    if not held and record.held_since is not None:
        begun = record.phase_started_time + (world.now - record.held_since)
        return Advance(record.model_copy(update={"held_since": None, "phase_started_time": begun}))
    return None


def _too_slow(world: World, spec: RotationSpec, gate: Problem | None) -> Problem | None:
    if gate is None or gate.reason in HOLDS or not overdue(world, spec.rollout.timeout):
        return None
    reason = gate.reason if gate.lasting else "RolloutTimeout"
    return Problem(reason, f"the rollout took too long: {gate.message}")


def _soaking(world: World, spec: RotationSpec) -> Step:
    """Give the new value time to show that it works, with nothing becoming unready meanwhile."""
    reverted = _reverted(world)
    if reverted is not None:
        return _taken_back(world, spec, reverted)
    if rollout_gate(world.see_rollout()) is not None:
        return Enter(move(world, Phase.ROLLING_OUT))
    if overdue(world, spec.soak) or urgent_word(world) is not None:
        return _last_step(world)
    rest = world.record.phase_started_time + spec.soak - world.now
    message = "everything runs on the new value; the old one is kept a while longer"
    return Wait("Soaking", message, after=min(rest, SOAK_POLL))


def _last_step(world: World) -> Step:
    """Everything runs on the new value: drop the old one, or clean up where it dies by itself."""
    if capabilities(world).finalize:
        return Enter(move(world, Phase.FINALIZING))
    journal = world.see_journal()
    return lost_journal(world) if journal is None else _finished(world, journal)


def _finalizing(world: World) -> Step:
    """Let the old value die, last of all (I4), then clean the Secret."""
    journal = world.see_journal()
    if journal is None or journal.pending is None:
        return lost_journal(world)
    if world.call is not None and world.call.outcome.failure is not None:
        return wait_after(world.call.operation, world.call.outcome)
    inspection = world.see_inspection()
    if not inspection.outcome.ok:
        return wait_after("inspect", inspection.outcome)
    if inspection.standing is Standing.FINISHED or world.record.previous_valid_until is not None:
        return _finished(world, journal)
    pending = inspection.standing in (Standing.PENDING_OURS, Standing.PENDING_UNPROVEN)
    reason = _called_off(world)
    if pending and reason is not None and cancellable(world):
        return go_back(world, reason)
    if inspection.standing is Standing.PENDING_UNPROVEN:
        message = "the provider does not accept the new value at the moment: the old one is kept until it does"
        return Wait("VerificationPending", message)
    if inspection.standing is not Standing.PENDING_OURS:
        message = "the provider no longer holds the new value as pending: somebody cancelled or restarted its rotation"
        return go_back(world, message)
    gate = _reverted(world) or rollout_gate(world.see_rollout())
    if gate is not None:
        return Enter(move(world, Phase.ROLLING_OUT))
    return CallProvider(Operation.FINALIZE)


def _called_off(world: World) -> str | None:
    """Why the rotation is to be withdrawn by the user's wish, or None."""
    if withdrawn(world):
        return CANCELLED_BY_DELETION
    return CANCELLED_BY_USER if world.cancel_request == world.record.id else None


def _finished(world: World, journal: Journal) -> Step:
    """The old value is dead: nothing may be left that names it, and the new one must not be lost with the journal."""
    secret, ref = world.see_secret(), world.subject.secret_ref
    value = secret.value if secret else None
    if secret is not None and value == journal.pending and not secret.has_previous:
        return _disproved(world, journal)
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


def _disproved(world: World, journal: Journal) -> Step:
    """See the provider refuse the old value, where it should by now: that is what the rotation was for."""
    spec = world.spec if isinstance(world.spec, RotationSpec) else default_policy(world)
    end, asked = world.record.previous_valid_until, spec.verify.mode is VerifyMode.REQUIRED and not world.deleting
    if journal.previous is None or not asked or (end is not None and end > world.now):
        return Finish(Result.COMPLETED, _completed_message(world))
    if world.disproof is None:
        return Verify(journal.previous, dropped=True)
    if world.disproof.outcome.failure is Failure.HELD_BACK:
        return wait_after("verify", world.disproof.outcome)
    if world.disproof.verdict is not Verdict.ACCEPTED:
        refused = True if world.disproof.verdict is Verdict.REJECTED else None
        return Finish(Result.COMPLETED, _completed_message(world), refused)
    if not overdue(world, spec.verify.timeout):
        message = "the provider still accepts the old value, which it has dropped"
        return Wait("PreviousAccepted", message, after=VERIFY_POLL)
    message = f"{_completed_message(world)}, but the provider still accepts it: look into it there"
    return Finish(Result.COMPLETED, message, previous_refused=False)


def _completed_message(world: World) -> str:
    # A rollout that was complete at the first look is not in the record yet.
    count = len(world.record.targets if world.consumers is UNOBSERVED else targets(world.see_rollout()))
    workloads = "1 workload runs" if count == 1 else f"{count} workloads run"
    end = world.record.previous_valid_until
    old = f"is refused from {format_time(end)} on" if end is not None and end > world.now else "is dropped"
    return f"Secret {world.subject.secret_ref.name} holds the new value, {workloads} on it, the old one {old}"


def _reverted(world: World) -> Problem | None:
    """Whether another tool took the new value out of the Secret, now or earlier in this rotation."""
    world.look_at(Aspect.JOURNAL, Aspect.SECRET, Aspect.CONSUMERS)  # who asks this looks at the consumers next
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
    if not cancellable(world):
        return _kept_out(world, spec, problem)
    step = _fail(world, spec, problem.reason, problem.message, resumable=False)
    if isinstance(step, Wait) and step.blocked and world.record.restored_time is None:
        return Enter(world.record.model_copy(update={"restored_time": world.now.replace(microsecond=0)}))
    return step


def _kept_out(world: World, spec: RotationSpec, problem: Problem) -> Step:
    """The new value is not in the Secret, and no way leads back: it is written as soon as there is room for it."""
    journal, secret = world.see_journal(), world.see_secret()
    if journal is None:
        return lost_journal(world)
    # In a namespace that is being deleted nothing can be created, and waiting for it would never end.
    for_good = secret is None and world.deleting
    if not for_good and (secret is None or secret.value is None):
        return Publish(value=journal.pending, previous=journal.previous)
    if world.deleting:
        return Finish(Result.FAILED, f"{problem.message}; the new value was in the journal only, which goes with this")
    remedy = "remove the key to have the new value written, and restart the pods that have started in between"
    return _fail(world, spec, problem.reason, f"{problem.message}: {remedy}")


def _fail(world: World, spec: RotationSpec, reason: str, message: str, *, resumable: bool = True) -> Step:
    """The new value or the rollout failed: go back, or hold, as the user chose; where no way leads back, go on."""
    if not cancellable(world):
        end = world.record.previous_valid_until
        until = f", and refuses the old one from {format_time(end)} on" if end is not None else ""
        forward = f"{message}; the provider cannot take the new value back{until}: mend it, and the rotation goes on"
        return Wait(reason, forward, stalled=True, after=ROLLOUT_POLL)
    if spec.on_failure is FailurePolicy.HOLD and not world.deleting:
        if resumable and _resumed(world):
            return Enter(move(world, world.record.phase, resumed=world.resume_request))
        rotation = world.record.id
        remedy = f"to go on, set annotation keyturn.dev/resume to {rotation}; " if resumable else ""
        remedy += f"to go back, set annotation keyturn.dev/cancel to {rotation}, or spec.onFailure to Cancel"
        message = f"{message}; both values stay valid; {remedy}"
        return Wait(reason, message, stalled=True, blocked=True, after=ROLLOUT_POLL)
    return go_back(world, f"{message} ({reason})")


def _resumed(world: World) -> bool:
    """Whether the user has said that this rotation is to go on: each word of theirs is followed once."""
    word = world.resume_request
    return word is not None and word.startswith(world.record.id) and word != world.record.resumed


_ON_OLD_VALUE: Final = frozenset({Phase.VERIFYING, Phase.DISTRIBUTING, Phase.ROLLING_OUT})
_PHASES: Final[dict[Phase, Callable[[World, RotationSpec], Step]]] = {
    Phase.STARTING: starting.decide,
    Phase.VERIFYING: _verifying,
    Phase.DISTRIBUTING: _distributing,
    Phase.ROLLING_OUT: _rolling_out,
    Phase.SOAKING: _soaking,
}
