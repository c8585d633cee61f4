"""Between rotations: tidy up after the last one, notice when the next is due, and prepare it.

Preparing is every check that can fail before anything is changed anywhere (I10). It writes nothing but status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr

from keyturn.api.base import format_duration
from keyturn.api.conditions import ConditionStatus, ConditionType
from keyturn.api.rotation import CreationPolicy, Phase, RotationRecord, RotationSpec, VerifyMode
from keyturn.api.semantics import Overlap, Recovery, Standing, Verdict
from keyturn.rotation.common import (
    capabilities,
    granted_overlap,
    hurried,
    needed_overlap,
    previous_ends,
    provider_blocks,
    wait_after,
    wait_for,
)
from keyturn.rotation.consumers import key_of
from keyturn.rotation.due import (
    CALENDAR_POLL,
    INVALID_SCHEDULE,
    URGENT,
    Next,
    due_now,
    next_rotation,
    overdue_from,
    requested,
    urgent_word,
)
from keyturn.rotation.gap import expected_targets, too_soon
from keyturn.rotation.steps import DropJournal, Enter, Rehearse, Rest, SetFinalizer, Step, Verify, Wait
from keyturn.rotation.targets import PAUSED
from keyturn.rotation.world import Aspect, Problem, World

RECOVERED: Final = "Recovered"
BUDGET_POLL: Final = timedelta(minutes=10)
"""Who waits for room is woken when there is."""


def decide(world: World) -> Step:
    """Name the next step of a resource whose status shows no running rotation."""
    if world.finalizer:
        return _clean_up(world)
    if world.deleting:
        return Rest()
    if isinstance(world.spec, Problem):
        return wait_for(world.spec)
    found = next_rotation(world, world.spec)
    if isinstance(found, Problem):
        # Looking at a calendar again changes nothing, and an edit is seen at once.
        return wait_for(found, after=CALENDAR_POLL if found.reason == INVALID_SCHEDULE else None)
    begins = found.begins if found is not None else None
    if found is not None and due_now(world, found) and not world.spec.suspend:
        hold = too_soon(world, world.spec, found)
        if hold is None:
            return _prepare(world, hurried(world.spec) if found.reason == URGENT else world.spec, found)
        begins = hold.until
    step = _assess(world, world.spec)
    return Rest(_wake(world, world.spec, found, begins)) if isinstance(step, Rest) else step


def _wake(world: World, spec: RotationSpec, found: Next | None, begins: datetime | None) -> datetime | None:
    """When there is something to do or to say, if nothing changes until then."""
    hold = world.ruling.hold
    times = [overdue_from(found), None if spec.suspend else begins, hold.until if hold is not None else None]
    return min((time for time in times if time is not None and time > world.now), default=None)


def _clean_up(world: World) -> Step:
    """The last rotation has ended, or its record was lost: the journal tells which."""
    journal = world.see_journal()
    if journal is None:
        return SetFinalizer(present=False)
    last = world.status.last_rotation
    if last is not None and last.id == journal.rotation_id:
        return DropJournal()
    if isinstance(world.spec, Problem):
        return wait_for(world.spec)
    if world.deleting and world.see_provider().gone:
        return DropJournal()
    request = world.spec.rotation_request
    step = provider_blocks(world) or _permitted(world, world.spec)
    return step or Enter(_begin(world, world.spec, journal.rotation_id, RECOVERED, request))


def _prepare(world: World, spec: RotationSpec, found: Next) -> Step:
    for policy in _POLICIES:
        step = policy(world, spec)
        if step is not None:
            return step
    request = spec.rotation_request if requested(world, spec) else None
    record = _begin(world, spec, world.fresh_id, found.reason, request)
    ahead = expected_targets(world, spec, world.see_consumers())
    return Enter(record.model_copy(update={"urgent": urgent_word(world), "targets": ahead}))


def _begin(world: World, spec: RotationSpec, rotation_id: str, reason: str, request: str | None) -> RotationRecord:
    return RotationRecord(
        id=rotation_id,
        phase=Phase.STARTING,
        reason=reason,
        request=request,
        subject=world.subject,
        account=world.see_provider().account,
        started_time=world.now,
        phase_started_time=world.now,
        # Where the provider may not tell whether it was called, that it will be is written last, right before the call.
        start_sent=capabilities(world).recovery is not Recovery.READ_BACK,
        previous_valid_until=previous_ends(world, spec),
    )


def _no_conflict(world: World, spec: RotationSpec) -> Step | None:
    return None if world.conflict is None else wait_for(world.conflict)


def _within_budget(world: World, spec: RotationSpec) -> Step | None:
    """Where there is no room for one more, nothing is looked into before there is."""
    return None if world.budget is None else wait_for(world.budget, after=BUDGET_POLL)


def _permitted(world: World, spec: RotationSpec) -> Step | None:
    """Last of all, for it is written down for all to see."""
    problem = world.see_permit()
    return None if problem is None else wait_for(problem, after=BUDGET_POLL)


def _looked_around(world: World, spec: RotationSpec) -> Step | None:
    world.look_at(Aspect.PROVIDER, Aspect.SECRET, Aspect.JOURNAL, Aspect.CONSUMERS)
    return None


def _provider_usable(world: World, spec: RotationSpec) -> Step | None:
    return provider_blocks(world)


def _secret_writable(world: World, spec: RotationSpec) -> Step | None:
    return secret_unwritable(world)


def secret_unwritable(world: World) -> Wait | None:
    """Why the new value could not be put where it belongs, or None."""
    ref, secret = world.subject.secret_ref, world.see_secret()
    if secret is None:
        if ref.creation_policy is CreationPolicy.OWNER:
            return None
        remedy = "create it, or set spec.secretRef.creationPolicy to Owner"
        return Wait("SecretNotFound", f"Secret {ref.name} does not exist: {remedy}", stalled=True)
    if secret.problem is not None:
        return Wait("SecretNotWritable", f"Secret {ref.name}: {secret.problem}", stalled=True)
    if secret.value is None and ref.creation_policy is CreationPolicy.MERGE:
        remedy = "add it with the value that is current at the provider, or correct spec.secretRef.key"
        return Wait("SecretKeyNotFound", f"Secret {ref.name} has no key {ref.key}: {remedy}", stalled=True)
    return None


def _no_journal_left(world: World, spec: RotationSpec) -> Step | None:
    """A journal without a finalizer: somebody cut a rotation short by hand, and it must be settled first."""
    return None if world.see_journal() is None else _clean_up(world)


def _workloads_named_well(world: World, spec: RotationSpec) -> Step | None:
    consumers = world.see_consumers()
    if consumers.missing:
        kind, name = consumers.missing[0]
        message = f"spec.rollout.targets names {kind}/{name}, which does not exist: create it, or take it out"
        return Wait("TargetNotFound", message, stalled=True)
    for workload in consumers.workloads:
        if workload.restartable and workload.wave is None:
            number = "a whole number of up to nine digits"
            message = f"{workload.kind}/{workload.name}: annotation keyturn.dev/wave must be {number}: correct it"
            return Wait("InvalidWave", message, stalled=True)
    return None


def _none_paused(world: World, spec: RotationSpec) -> Step | None:
    """Where the old value dies whatever happens, nothing begins that a paused workload could not follow (I3)."""
    if capabilities(world).cancel:
        return None
    consumers = world.see_consumers()
    for workload in consumers.workloads:
        if workload.paused is not None and any(pod.owner == key_of(workload) for pod in consumers.pods):
            message = f"{workload.kind}/{workload.name}: {workload.paused}; nothing has begun"
            return Wait(PAUSED, message, stalled=True)
    return None


def nothing_pending(world: World, spec: RotationSpec) -> Step | None:
    """Why a rotation that has sent nothing must not begin: somebody else's is under way, or nobody can tell."""
    inspection = world.see_inspection()
    if not inspection.outcome.ok:
        return wait_after("inspect", inspection.outcome)
    if inspection.standing in (Standing.UNROTATED, Standing.UNTOLD):
        return None
    if spec.take_over and capabilities(world).cancel:
        return None
    remedy = "complete or cancel it at the provider, or set spec.takeOver to have it withdrawn"
    message = f"somebody else has started a rotation of client {spec.client_id} at the provider: {remedy}"
    return Wait("ForeignRotation", message, stalled=True, blocked=True)


def _downtime_accepted(world: World, spec: RotationSpec) -> Step | None:
    """What the provider cannot promise needs the user's consent, before anything is changed."""
    promise = capabilities(world)
    if promise.overlap is Overlap.UNTIL_FINALIZED or spec.accept_downtime:
        return None
    consent = "set spec.acceptDowntime to true to rotate all the same"
    if promise.overlap is Overlap.NONE:
        message = (
            f"the provider drops the old value at once, so calls are refused until the pods have restarted: {consent}"
        )
        return Wait("DowntimeNotAccepted", message, stalled=True)
    needed = needed_overlap(spec)
    if granted_overlap(spec) >= needed:
        return None
    message = (
        f"spec.overlap, {format_duration(granted_overlap(spec))} in full hours, is shorter than the rotation may take:"
        f" raise it to {format_duration(needed)} (verify.timeout, rollout.timeout and a margin), or {consent}"
    )
    return Wait("OverlapTooShort", message, stalled=True)


def _current_proven(world: World, spec: RotationSpec) -> Step | None:
    """Where the value itself authorises its replacement, it must be known to work (PROVIDERS.md A2)."""
    if not capabilities(world).needs_current:
        return None
    ref, secret = spec.secret_ref, world.see_secret()
    if secret is None or secret.value is None:
        message = (
            f"Secret {ref.name} has no key {ref.key}: the provider replaces a value only for who has it; put it in"
        )
        return Wait("SecretKeyNotFound", message, stalled=True)
    return _accepted(world, spec, secret.value)


def _rehearsed(world: World, spec: RotationSpec) -> Step | None:
    return None if world.rehearsed else rehearse(world)


def rehearse(world: World) -> Rehearse:
    """Try the writes that lie ahead, with one workload for all of its kind; the Secret is written as it was seen."""
    world.see_secret()
    by_kind = {workload.kind: workload for workload in world.see_consumers().workloads if workload.restartable}
    return Rehearse(tuple(by_kind.values()))


_POLICIES: Final[tuple[Callable[[World, RotationSpec], Step | None], ...]] = (
    _no_conflict,
    _within_budget,
    _looked_around,
    _provider_usable,
    _downtime_accepted,
    _secret_writable,
    _no_journal_left,
    _workloads_named_well,
    _none_paused,
    _current_proven,
    _rehearsed,
    nothing_pending,
    _permitted,
)


def _assess(world: World, spec: RotationSpec) -> Step:
    """Say once for every spec whether its Secret holds a usable value; then an idle object costs nothing (I12)."""
    if _settled(world):
        return Rest()
    step = _no_conflict(world, spec) or provider_blocks(world) or _secret_writable(world, spec)
    if step is not None:
        return step
    secret = world.see_secret()
    if secret is None or secret.value is None or spec.verify.mode is VerifyMode.SKIP:
        return Rest()
    return _accepted(world, spec, secret.value) or Rest()


def _accepted(world: World, spec: RotationSpec, value: SecretStr) -> Step | None:
    """Why the value in the Secret cannot be called good, or None when the provider accepts it."""
    if world.verification is None:
        return Verify(value)
    ref, verdict = spec.secret_ref, world.verification.verdict
    if verdict is Verdict.ACCEPTED:
        return None
    if verdict is Verdict.REJECTED:
        remedy = "put the current value in"
        remedy += "" if capabilities(world).needs_current else ", or request a rotation"
        odd = value.get_secret_value() != value.get_secret_value().strip()
        remedy += " (it begins or ends with a blank or a line break, which is part of the value)" if odd else ""
        message = f"the provider refuses the value in Secret {ref.name}, key {ref.key}: {remedy}"
        return Wait("CredentialRejected", message, stalled=True)
    return wait_after("verify", world.verification.outcome)


def _settled(world: World) -> bool:
    """Whether the status already speaks of this spec, with nothing left to look into."""
    if world.status.observed_generation != world.generation or world.conflict is not None:
        return False
    states = {condition.type: condition.status for condition in world.status.conditions}
    troubled = ConditionType.STALLED in states or ConditionType.RECONCILING in states
    return states.get(ConditionType.READY) is ConditionStatus.TRUE and not troubled
