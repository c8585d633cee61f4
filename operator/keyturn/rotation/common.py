"""Small steps that several phases share."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr

from keyturn.api.observed import SecretView
from keyturn.api.rotation import DeletionPolicy, Phase, Result, RotationRecord, RotationSpec
from keyturn.api.semantics import Capabilities, Failure, Outcome, Overlap
from keyturn.rotation.steps import Enter, Finish, Publish, Step, Wait
from keyturn.rotation.world import Operation, Problem, World

OVERLAP_MARGIN: Final = timedelta(minutes=5)
SECRET_LOST = "SecretLost"
HELD_BACK: Final = "RateLimited"
PROVIDER_LIMITS: Final = "ProviderRateLimited"
CANCELLED_BY_USER = "cancelled by annotation keyturn.dev/cancel"
CANCELLED_BY_DELETION = "the ClientSecretRotation was deleted"

_REASONS = {
    Failure.UNREACHABLE: "ProviderUnreachable",
    Failure.ADDRESS_NOT_PERMITTED: "ProviderAddressNotPermitted",
    Failure.RATE_LIMITED: PROVIDER_LIMITS,
    Failure.HELD_BACK: HELD_BACK,
    Failure.UNAUTHORIZED: "ProviderUnauthorized",
    Failure.CLIENT_NOT_FOUND: "ClientNotFound",
    Failure.REJECTED: "ProviderRejected",
}
LASTING_FAILURES = frozenset(
    {Failure.ADDRESS_NOT_PERMITTED, Failure.UNAUTHORIZED, Failure.CLIENT_NOT_FOUND, Failure.REJECTED}
)


def go_back(world: World, reason: str) -> Enter:
    """Withdraw the new value, from wherever the rotation stands."""
    return Enter(turned(move(world, Phase.CANCELLING, cancel_reason=reason, restored_time=None)))


def turned(record: RotationRecord) -> RotationRecord:
    """The record of a rotation that changes its direction: no workload was restarted in the new one."""
    kept = [target.model_copy(update={"restarted": False}) for target in record.targets]
    return record.model_copy(update={"targets": kept, "wave": None, "wave_ready_time": None})


def move(world: World, phase: Phase, **changes: Any) -> RotationRecord:
    """The record as it enters a phase: the phase's clock starts now."""
    entered = {"phase": phase, "phase_started_time": world.now, "held_since": None}
    return world.record.model_copy(update={**entered, **changes})


def overdue(world: World, limit: timedelta) -> bool:
    """Whether the phase has lasted longer than the limit that the spec sets now."""
    return world.now >= world.record.phase_started_time + limit


def written_in_this_rotation(world: World, secret: SecretView | None) -> bool:
    """Whether Keyturn wrote the Secret since this rotation began, whatever the record remembers of it.

    Also True when the last rotation ended within the same second.
    """
    if secret is None or secret.written_time is None:
        return False
    return secret.written_time >= world.record.started_time.replace(microsecond=0)


def changed_since_start(world: World, secret: SecretView | None) -> bool:
    """Whether the Secret holds another value than when Starting was written down; only for decisions of Starting."""
    if secret is None or secret.value is None:
        return False
    return fingerprint(world.uid, secret.value) != world.status.secret_fingerprint


def fingerprint(salt: str, value: SecretStr) -> str:
    """Twelve hex digits that tell values of one object apart; the salt keeps equal values of two objects unlinkable."""
    return hmac.new(salt.encode(), value.get_secret_value().encode(), hashlib.sha256).hexdigest()[:12]


def abandoned(world: World) -> Step | None:
    """Whether the user deleted both the rotation and the account: then nobody can be asked any more (I11)."""
    if not (world.deleting and world.see_provider().gone):
        return None
    journal = world.see_journal()
    if journal is not None and journal.pending is not None and not cancellable(world):
        secret = world.see_secret()
        # It is in force, or will be the only one that is, and the journal ends with the rotation (I2).
        if secret is not None and secret.value in (None, journal.previous):
            return Publish(value=journal.pending, previous=None)
    client = world.subject.client_id
    return Finish(Result.FAILED, f"abandoned: the provider object is gone; client {client} may keep a pending secret")


def provider_blocks(world: World) -> Step | None:
    """What to do when the provider account cannot be used, or None when it can."""
    problem = world.see_provider().problem
    return None if problem is None else abandoned(world) or wait_for(problem)


def cancellable(world: World) -> bool:
    """Whether the provider can take the new value back; while the account cannot be looked at, the record tells."""
    if world.record.previous_valid_until is not None:
        return False
    promise = world.see_provider().capabilities
    return promise is None or promise.cancel


def capabilities(world: World) -> Capabilities:
    """The provider's promise; only after `provider_blocks` said None."""
    found = world.see_provider().capabilities
    assert found is not None
    return found


def default_policy(world: World) -> RotationSpec:
    """The running rotation's subject and rollout, the rest with defaults, for when the spec can no longer be read."""
    subject = world.subject
    return RotationSpec(
        provider_ref=subject.provider_ref,
        client_id=subject.client_id,
        secret_ref=subject.secret_ref,
        rollout=world.rollout_spec,
    )


def previous_ends(world: World, spec: RotationSpec) -> datetime | None:
    """When the old value dies if the start call is sent from now on, at the earliest; None where that is up to us."""
    promise = capabilities(world)
    if promise.overlap is Overlap.UNTIL_FINALIZED:
        return None
    return world.now + granted_overlap(spec) if promise.overlap is Overlap.UNTIL_TIME else world.now


def needed_overlap(spec: RotationSpec) -> timedelta:
    """How long the old value must live on for a rotation that refuses no call."""
    return spec.verify.timeout + spec.rollout.timeout + OVERLAP_MARGIN


def hurried(spec: RotationSpec) -> RotationSpec:
    """The spec as an urgent rotation follows it: no soak, and the shortest overlap that its user has consented to."""
    shortest = timedelta(0) if spec.accept_downtime else needed_overlap(spec)
    return spec.model_copy(update={"soak": timedelta(0), "overlap": min(spec.overlap, shortest)})


def granted_overlap(spec: RotationSpec) -> timedelta:
    """The overlap as providers count it: in full hours, rounded up."""
    return -(-spec.overlap // timedelta(hours=1)) * timedelta(hours=1)


def lost_journal(world: World) -> Step:
    """Without the journal the values are unknown: withdraw the pending one rather than guess."""
    message = "the journal of this rotation was deleted"
    if cancellable(world):
        return go_back(world, message)
    if world.record.distributed_time is not None:
        return Finish(Result.FAILED, f"{message}; Secret {world.subject.secret_ref.name} holds the new value")
    return Finish(Result.FAILED, f"{message}: {capabilities(world).lost_remedy}")


def wait_for(problem: Problem, *, after: timedelta | None = None) -> Wait:
    return Wait(problem.reason, problem.message, stalled=problem.lasting, after=after)


def wait_after(operation: Operation | str, outcome: Outcome) -> Wait:
    """How a call that did not succeed is waited out."""
    assert outcome.failure is not None
    return Wait(
        _REASONS[outcome.failure],
        f"{operation}: {outcome.message}",
        stalled=outcome.failure in LASTING_FAILURES,
        after=outcome.retry_after,
    )


def withdrawn(world: World) -> bool:
    """Whether the user deleted the object and wants the rotation withdrawn for it, or left no account to finish it."""
    if not world.deleting:
        return False
    if world.see_provider().gone:
        return True
    return not isinstance(world.spec, RotationSpec) or world.spec.deletion_policy is DeletionPolicy.CANCEL
