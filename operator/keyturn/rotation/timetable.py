"""What the user is told about the next rotation: when it is due, what it waits for, and that it is overdue."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.conditions import ConditionStatus, ConditionType
from keyturn.api.rotation import RotationSpec
from keyturn.rotation.due import (
    REQUESTED,
    Next,
    cron_in_force,
    next_rotation,
    overdue_from,
    secret_since,
    urgent_word,
)
from keyturn.rotation.steps import Step, Wait
from keyturn.rotation.world import UNOBSERVED, LookFirst, Problem, World

Draft = tuple[ConditionType, ConditionStatus, str, str]
SUSPENDED: Final = "Suspended"
OUTSIDE: Final = "OutsideWindow"


def known_next(world: World) -> Next | Problem | None:
    """The next rotation, as far as it is known without looking."""
    if not isinstance(world.spec, RotationSpec):
        return None
    try:
        return next_rotation(world, world.spec)
    except LookFirst:
        return None


def timetable(world: World, spec: RotationSpec) -> dict[str, object]:
    """The fields of the status about time. `world` is as it is after the step, that is with the new status."""
    schedule = spec.schedule
    return {
        "next_rotation_time": _next_time(world, spec),
        "cron_in_force": cron_in_force(world, schedule) if schedule is not None and schedule.cron else None,
        "secret_since": _since(world) if schedule is not None else None,
    }


def _next_time(world: World, spec: RotationSpec) -> datetime | None:
    if world.status.rotation is not None or spec.suspend or world.deleting:
        return None
    found = known_next(world)
    if not isinstance(found, Next):
        return None
    return found.begins if found.begins > world.now else found.due


def _since(world: World) -> datetime | None:
    """From when the age of a Secret counts that was never rotated; once seen it is kept, so that nobody looks again."""
    if world.status.last_rotation_time is not None:
        return None
    if world.secret is UNOBSERVED:
        return world.status.secret_since
    found = secret_since(world)
    return found if isinstance(found, datetime) else None


def overdue(world: World, step: Step) -> Draft | None:
    """That a rotation should have begun by now, and what it waits for. `world` is as it is after the step."""
    found = known_next(world)
    late = overdue_from(found)
    if late is None or world.now < late or world.status.rotation is not None:
        return None
    assert isinstance(found, Next)
    assert found.due is not None
    reason, message = _held_by(world, step, found)
    return ConditionType.OVERDUE, ConditionStatus.TRUE, reason, f"due since {format_time(found.due)}: {message}"


def _held_by(world: World, step: Step, found: Next) -> tuple[str, str]:
    suspended = waits_for_the_user(world)
    if suspended is not None:
        return suspended
    if isinstance(step, Wait):
        return step.reason, step.message
    if found.begins <= world.now:
        return "RotationDue", "it is about to begin"
    last, failures, when = world.status.last_rotation, world.status.failures, format_time(found.begins)
    if failures and last is not None:
        return f"Rotation{last.result}", f"{failures} in a row were not completed; the next one begins at {when}"
    return OUTSIDE, f"no window of spec.schedule.windows is open before {when}"


def waits_for_the_user(world: World) -> tuple[str, str] | None:
    """Why nothing begins before the user says so."""
    if not isinstance(world.spec, RotationSpec) or not world.spec.suspend:
        return None
    urgent = ", not even the one that annotation keyturn.dev/urgent asks for" if urgent_word(world) else ""
    return SUSPENDED, f"spec.suspend is set: no rotation is started{urgent}"


def waits_for_a_window(world: World) -> tuple[str, str] | None:
    """Why a rotation that was asked for does not begin yet."""
    found = known_next(world)
    if not isinstance(found, Next) or found.reason != REQUESTED or found.begins <= world.now:
        return None
    return OUTSIDE, f"the request waits until {format_time(found.begins)}, when a window of spec.schedule.windows opens"
