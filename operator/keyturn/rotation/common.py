"""Small steps that several phases share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from keyturn.api.rotation import DeletionPolicy, Phase, Result, RotationRecord, RotationSpec
from keyturn.api.semantics import Capabilities, Failure, Outcome
from keyturn.rotation.steps import Finish, Step, Wait
from keyturn.rotation.world import Operation, Problem, World

CANCELLED_BY_DELETION = "the ClientSecretRotation was deleted"

_REASONS = {
    Failure.UNREACHABLE: "ProviderUnreachable",
    Failure.RATE_LIMITED: "ProviderRateLimited",
    Failure.UNAUTHORIZED: "ProviderUnauthorized",
    Failure.CLIENT_NOT_FOUND: "ClientNotFound",
    Failure.REJECTED: "ProviderRejected",
}
LASTING_FAILURES = frozenset({Failure.UNAUTHORIZED, Failure.CLIENT_NOT_FOUND, Failure.REJECTED})


def move(world: World, phase: Phase, **changes: Any) -> RotationRecord:
    """The record as it enters a phase: the phase's clock starts now."""
    return world.record.model_copy(update={"phase": phase, "phase_started_time": world.now, **changes})


def overdue(world: World, limit: timedelta) -> bool:
    """Whether the phase has lasted longer than the limit that the spec sets now."""
    return world.now >= world.record.phase_started_time + limit


def abandoned(world: World) -> Finish | None:
    """Whether the user deleted both the rotation and the account: then nobody can be asked any more (I11)."""
    if not (world.deleting and world.see_provider().gone):
        return None
    client = world.subject.client_id
    return Finish(Result.FAILED, f"abandoned: the provider object is gone; client {client} may keep a pending secret")


def provider_blocks(world: World) -> Step | None:
    """What to do when the provider account cannot be used, or None when it can."""
    problem = world.see_provider().problem
    return None if problem is None else abandoned(world) or wait_for(problem)


def cancellable(world: World) -> bool:
    """Whether the provider can take the new value back; assumed while the account cannot be looked at."""
    promise = world.see_provider().capabilities
    return promise is None or promise.cancel


def capabilities(world: World) -> Capabilities:
    """The provider's promise; only after `provider_blocks` said None."""
    found = world.see_provider().capabilities
    assert found is not None
    return found


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
    """Whether the user deleted the object and wants the rotation withdrawn for it."""
    if not world.deleting:
        return False
    return not isinstance(world.spec, RotationSpec) or world.spec.deletion_policy is DeletionPolicy.CANCEL
