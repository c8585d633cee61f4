"""What the user is told: the status that follows from a world and the step that was chosen in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from keyturn.api.conditions import MESSAGE_LIMIT, Condition, ConditionStatus, ConditionType, merge_conditions
from keyturn.api.rotation import (
    HISTORY_LIMIT,
    Phase,
    Result,
    RotationRecord,
    RotationSpec,
    RotationStatus,
    RotationSummary,
    Target,
    VerifyMode,
)
from keyturn.api.semantics import Verdict
from keyturn.rotation.common import SECRET_LOST, fingerprint
from keyturn.rotation.consumers import RolloutView
from keyturn.rotation.due import due_now
from keyturn.rotation.policy import BUDGET_EXHAUSTED
from keyturn.rotation.steps import Advance, Enter, Finish, Rest, Wait
from keyturn.rotation.targets import behind_message, targets
from keyturn.rotation.timetable import (
    Draft,
    known_next,
    not_due,
    overdue,
    overridden,
    timetable,
    waits_for_a_policy,
    waits_for_a_window,
    waits_for_the_user,
)
from keyturn.rotation.world import UNOBSERVED, World

Reportable = Enter | Advance | Finish | Wait | Rest
_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_NAMED: Final = 10
_ENDED: Final = {Result.COMPLETED: Phase.COMPLETED, Result.CANCELLED: Phase.CANCELLED, Result.FAILED: Phase.FAILED}


def report(world: World, step: Reportable) -> RotationStatus:
    """Build the whole status. The same world and step give the same status, so that an unchanged one is not written."""
    old = world.status
    record = _record(world, step)
    summary = _summary(world, step) if isinstance(step, Finish) else None
    changes: dict[str, object] = {
        "phase": _phase(world, step),
        "observed_generation": world.generation,
        "rotation": record,
    }
    if isinstance(step, Enter) and record is not None and record.request is not None:
        changes["last_handled_rotation_request"] = record.request
    changes["last_handled_urgent"] = _handled_urgent(world, record)
    if summary is not None:
        changes["last_rotation"] = summary
        changes["history"] = [summary, *old.history][:HISTORY_LIMIT]
        done = summary.result is Result.COMPLETED
        changes["failures"] = None if done else (old.failures or 0) + 1
        if done:
            changes["last_rotation_time"] = summary.finished_time
            changes["last_rotation_subject"] = world.record.subject
    if world.secret is not UNOBSERVED:
        value = world.secret.value if world.secret is not None else None
        changes["secret_fingerprint"] = None if value is None else fingerprint(world.uid, value)
    after = replace(world, status=old.model_copy(update=changes))
    if isinstance(world.spec, RotationSpec):
        changes |= timetable(after, world.spec)
    drafts = _conditions(world, step, record, overdue(after, step), _overridden(after))
    changes["conditions"] = merge_conditions(old.conditions, drafts, world.generation, world.now)
    return old.model_copy(update=changes)


def _handled_urgent(world: World, record: RotationRecord | None) -> str | None:
    """Kept while the annotation is there, so that nothing is done twice; whoever sets it again means it."""
    if record is not None and record.urgent is not None:
        return record.urgent
    return None if world.urgent_request is None else world.status.last_handled_urgent


def _phase(world: World, step: Reportable) -> Phase:
    if isinstance(step, Finish):
        return _ENDED[step.result]
    if isinstance(step, Enter | Advance):
        return step.record.phase
    if isinstance(step, Wait) and step.blocked:
        return Phase.BLOCKED
    if world.status.rotation is not None:
        return world.status.rotation.phase
    spec = world.spec
    preparing = isinstance(step, Wait) and isinstance(spec, RotationSpec) and not spec.suspend and not world.finalizer
    if preparing and due_now(world, known_next(world)):
        return Phase.PREPARING
    last = world.status.last_rotation
    return _ENDED[last.result] if last is not None else Phase.IDLE


def _record(world: World, step: Reportable) -> RotationRecord | None:
    if isinstance(step, Finish):
        return None
    record = step.record if isinstance(step, Enter | Advance) else world.status.rotation
    if record is None:
        return None
    changes: dict[str, object] = {"deadline": _deadline(world, record), "rollout": world.rollout_spec}
    if world.consumers is not UNOBSERVED and record.distributed_time is not None:
        changes["targets"] = targets(RolloutView(world.consumers, record, world.rollout_spec, world.now))
    return record.model_copy(update=changes)


def _deadline(world: World, record: RotationRecord) -> datetime | None:
    if not isinstance(world.spec, RotationSpec):
        return record.deadline
    limits = {
        Phase.VERIFYING: world.spec.verify.timeout,
        Phase.ROLLING_OUT: world.spec.rollout.timeout,
        Phase.SOAKING: world.spec.soak,
    }
    limit = limits.get(record.phase)
    return None if limit is None else record.phase_started_time + limit


def _summary(world: World, step: Finish) -> RotationSummary:
    record = world.record
    return RotationSummary(
        id=record.id,
        reason=record.reason,
        request=record.request,
        urgent=record.urgent,
        result=step.result,
        started_time=record.started_time,
        finished_time=world.now,
        previous_refused=step.previous_refused,
        previous_valid_until=record.previous_valid_until,
        message=step.message,
    )


def _overridden(after: World) -> Draft | None:
    """While a rotation runs the next one is not known."""
    return overridden(after) if after.status.rotation is None else _known(after, ConditionType.SCHEDULE_OVERRIDDEN)


def _conditions(
    world: World, step: Reportable, record: RotationRecord | None, late: Draft | None, sooner: Draft | None
) -> Iterator[Draft]:
    """What wants attention comes first: the REASON column shows the first condition's."""
    stalls = isinstance(step, Wait) and step.stalled
    if isinstance(step, Wait) and stalls:
        yield ConditionType.STALLED, _TRUE, step.reason, step.message
    if world.contested is not None:
        yield ConditionType.CONTESTED, _TRUE, world.contested.reason, world.contested.message
    if isinstance(step, Wait) and not stalls:
        yield ConditionType.RECONCILING, _TRUE, step.reason, step.message
    elif record is not None and not stalls:
        yield ConditionType.RECONCILING, _TRUE, record.phase, f"rotation {record.id} is in phase {record.phase}"
    if late is not None:
        yield late
    yield _ready(world, step)
    yield _rotating(world, step, record)
    for draft in (_rollout_complete(world, step, record), _credential_verified(world, step), sooner):
        if draft is not None:
            yield draft


def _known(world: World, kind: ConditionType) -> Draft | None:
    for condition in world.status.conditions:
        if condition.type == kind:
            return kind, condition.status, condition.reason, condition.message
    return None


def _ready(world: World, step: Reportable) -> Draft:
    """Whether the Secret holds a usable value, by the newest evidence; a running rotation alone changes nothing."""
    ready = ConditionType.READY
    seen = _evidence(world, step)
    if seen is not None:
        return (ready, *seen)
    known = _known(world, ready)
    if known is not None and known[1] is not _UNKNOWN:
        return known
    if isinstance(step, Wait):
        return ready, _UNKNOWN, step.reason, step.message
    return ready, _UNKNOWN, "NotVerified", "the value in the Secret was not tried at the provider yet"


def _evidence(world: World, step: Reportable) -> tuple[ConditionStatus, str, str] | None:
    """What this pass learned about the value in the Secret, or None."""
    running = world.status.rotation
    if running is None:
        return _idle_evidence(world, step, world.spec) if isinstance(world.spec, RotationSpec) else None
    name = running.subject.secret_ref.name
    if isinstance(step, Finish) and world.edited:
        return _UNKNOWN, "NotVerified", "the spec was changed during the rotation: what it names now was not tried yet"
    if isinstance(step, Finish) and step.result is Result.COMPLETED:
        return _TRUE, "SecretRotated", f"Secret {name} holds the value of rotation {running.id}"
    if isinstance(step, Wait) and step.reason == SECRET_LOST:
        return _FALSE, step.reason, step.message
    if world.secret is None:
        return _FALSE, "SecretNotFound", f"Secret {name} does not exist"
    accepted = world.verification is not None and world.verification.verdict is Verdict.ACCEPTED
    if accepted and running.distributed_time is not None:
        return _TRUE, "CredentialVerified", f"the provider accepts the value in Secret {name}"
    return None


def _idle_evidence(world: World, step: Reportable, spec: RotationSpec) -> tuple[ConditionStatus, str, str] | None:
    ref = spec.secret_ref
    if world.secret is UNOBSERVED:
        return None
    if world.secret is None:
        return _FALSE, "SecretNotFound", f"Secret {ref.name} does not exist"
    if world.secret.value is None:
        return _FALSE, "SecretKeyNotFound", f"Secret {ref.name} has no usable key {ref.key}"
    verdict = world.verification.verdict if world.verification is not None else None
    if verdict is Verdict.ACCEPTED:
        return _TRUE, "CredentialVerified", f"the provider accepts the value in Secret {ref.name}"
    if verdict is Verdict.REJECTED:
        return _FALSE, "CredentialRejected", f"the provider refuses the value in Secret {ref.name}"
    if isinstance(step, Rest) and spec.verify.mode is VerifyMode.SKIP:
        return _TRUE, "SecretAvailable", f"Secret {ref.name} holds a value; spec.verify.mode is Skip"
    return None


def _rotating(world: World, step: Reportable, record: RotationRecord | None) -> Draft:
    if record is not None:
        message = step.message if isinstance(step, Wait) else f"rotation {record.id} runs"
        return ConditionType.ROTATING, _TRUE, record.phase, message
    if isinstance(step, Finish):
        return ConditionType.ROTATING, _FALSE, f"Rotation{step.result}", step.message
    if isinstance(step, Wait) and step.reason == BUDGET_EXHAUSTED:
        return ConditionType.ROTATING, _FALSE, step.reason, step.message
    waits = waits_for_the_user(world) or waits_for_a_policy(world) or waits_for_a_window(world)
    if waits is not None:
        return ConditionType.ROTATING, _FALSE, *waits
    known = _known(world, ConditionType.ROTATING)
    if known is not None and known[2] in {f"Rotation{result}" for result in Result}:
        return known
    return ConditionType.ROTATING, _FALSE, "NotDue", not_due(world)


def _rollout_complete(world: World, step: Reportable, record: RotationRecord | None) -> Draft | None:
    kind = ConditionType.ROLLOUT_COMPLETE
    if record is None and isinstance(step, Finish):
        done = step.result is Result.COMPLETED
        return (kind, _TRUE, "RolledOut", "every workload runs on the new value") if done else None
    if record is None:
        return _known(world, kind)
    if record.phase in (Phase.SOAKING, Phase.FINALIZING):
        return kind, _TRUE, "RolledOut", "every workload runs on the new value"
    behind = behind_message(record.targets) if record.distributed_time is not None else None
    return kind, _FALSE, "RolloutInProgress", behind or "the rollout has not begun"


def _credential_verified(world: World, step: Reportable) -> Draft | None:
    kind = ConditionType.CREDENTIAL_VERIFIED
    if isinstance(step, Finish) and step.result is not Result.COMPLETED:
        return None  # it spoke of the value that was withdrawn
    if world.verification is None:
        return _known(world, kind)
    which = "new value" if world.status.rotation is not None else "value in the Secret"
    if world.verification.verdict is Verdict.ACCEPTED:
        return kind, _TRUE, "Accepted", f"the provider accepts the {which}"
    status = _FALSE if world.verification.verdict is Verdict.REJECTED else _UNKNOWN
    return kind, status, world.verification.verdict, world.verification.outcome.message


@dataclass(frozen=True, slots=True)
class Announcement:
    """A Kubernetes Event to be written. `warning` gives its type."""

    reason: str
    message: str
    warning: bool = False


def announcements(before: RotationStatus, after: RotationStatus, step: Reportable) -> list[Announcement]:
    """The Events for a status that was just written: for an end, a phase entered, the way back, a reason to stall."""
    said: list[Announcement] = []
    ended, record = after.last_rotation, after.rotation
    if ended is not None and (before.last_rotation is None or before.last_rotation.id != ended.id):
        said.append(_announce(_ENDED[ended.result], ended.message))
    if record is not None and (before.rotation is None or before.rotation.phase is not record.phase):
        said.append(_announce(record.phase, _entered_message(record)))
    if _phase_of(before) is Phase.SOAKING and _phase_of(after) is Phase.ROLLING_OUT:
        said = [one for one in said if one.reason != _EVENTS[Phase.ROLLING_OUT][0]]
        behind = behind_message(after.rotation.targets) if after.rotation is not None else None
        message = behind or "a workload is not ready any more, or a pod may hold the old value"
        said.append(Announcement("SoakInterrupted", message[:MESSAGE_LIMIT], warning=True))
    if _restored(after) and not _restored(before):
        said.append(Announcement("PreviousValueRestored", _restored_message(after)))
    late = _condition(after, ConditionType.OVERDUE)
    if late is not None and _condition(before, ConditionType.OVERDUE) is None:
        said.append(Announcement("RotationOverdue", late.message, warning=True))
    contested = _condition(after, ConditionType.CONTESTED)
    stalls = isinstance(step, Wait) and step.stalled
    if contested is not None and not stalls and _condition(before, ConditionType.CONTESTED) is None:
        said.append(Announcement(contested.reason, contested.message, warning=True))
    known = {condition.reason for condition in before.conditions if condition.type == ConditionType.STALLED}
    if isinstance(step, Wait) and step.stalled and step.reason not in known:
        said.append(Announcement(step.reason, step.message[:MESSAGE_LIMIT], warning=True))
    return said


def _condition(status: RotationStatus, kind: ConditionType) -> Condition | None:
    return next((one for one in status.conditions if one.type == kind), None)


def _phase_of(status: RotationStatus) -> Phase | None:
    return status.rotation.phase if status.rotation is not None else None


def _restored(status: RotationStatus) -> bool:
    """Whether the Secret holds the previous value again, on the way back."""
    record = status.rotation
    return record is not None and record.phase is Phase.CANCELLING and record.restored_time is not None


def _restored_message(status: RotationStatus) -> str:
    record = status.rotation
    assert record is not None
    names = _listed([target for target in record.targets if target.restarted])
    name = record.subject.secret_ref.name
    return f"the previous value is in Secret {name} again; rolling back: {names or 'no workload'}"


def _announce(phase: Phase, message: str) -> Announcement:
    reason, warning = _EVENTS[phase]
    return Announcement(reason, message[:MESSAGE_LIMIT], warning)


def _listed(listed: list[Target]) -> str:
    """The workloads by their names, not too many for a message."""
    names = [f"{target.kind}/{target.name}" for target in listed]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _entered_message(record: RotationRecord) -> str:
    names = _listed(record.targets) or "no workload reads it"
    ref = record.subject.secret_ref
    why = record.reason if record.urgent is None else f"{record.reason}: {record.urgent}"
    return {
        Phase.STARTING: f"rotation {record.id} of client {record.subject.client_id} begins ({why})",
        Phase.VERIFYING: "the provider is asked whether it accepts the new value",
        Phase.DISTRIBUTING: f"writing the new value to Secret {ref.name}",
        Phase.ROLLING_OUT: f"the new value is in Secret {ref.name}; rolling out: {names}",
        Phase.SOAKING: "everything runs on the new value; the old one is kept a while longer",
        Phase.FINALIZING: "telling the provider to drop the old value",
        Phase.CANCELLING: f"going back to the previous value: {record.cancel_reason}",
    }[record.phase]


_EVENTS: Final[dict[Phase, tuple[str, bool]]] = {
    Phase.STARTING: ("RotationStarted", False),
    Phase.VERIFYING: ("Verifying", False),
    Phase.DISTRIBUTING: ("Distributing", False),
    Phase.ROLLING_OUT: ("RolloutRestartTriggered", False),
    Phase.SOAKING: ("Soaking", False),
    Phase.FINALIZING: ("Finalizing", False),
    Phase.COMPLETED: ("SecretRotated", False),
    Phase.CANCELLING: ("RotationCancelling", True),
    Phase.CANCELLED: ("RotationCancelled", True),
    Phase.FAILED: ("RotationFailed", True),
}
