"""What the user is told about the next rotation: when it is due, what it waits for, and that it is overdue."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from keyturn.api.base import format_duration, format_time
from keyturn.api.conditions import ConditionStatus, ConditionType
from keyturn.api.rotation import RotationSpec
from keyturn.rotation.due import (
    AGED,
    REQUESTED,
    URGENT,
    Next,
    cron_in_force,
    has_no_times,
    next_rotation,
    overdue_from,
    rotated_last,
    secret_since,
    urgent_word,
)
from keyturn.rotation.gap import known_to_be_too_soon
from keyturn.rotation.policy import Hold
from keyturn.rotation.steps import Step, Wait
from keyturn.rotation.world import UNOBSERVED, LookFirst, Problem, World

Draft = tuple[ConditionType, ConditionStatus, str, str]
SUSPENDED: Final = "Suspended"
OUTSIDE: Final = "OutsideWindow"
STAGGERED: Final = "Staggered"


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
        "secret_since": _since(world) if schedule is not None or world.ruling.max_age is not None else None,
    }


def _next_time(world: World, spec: RotationSpec) -> datetime | None:
    if world.status.rotation is not None or spec.suspend or world.deleting:
        return None
    found = known_next(world)
    if not isinstance(found, Next) or found.begins is None:
        return None
    gap = known_to_be_too_soon(world, spec, found)
    if gap is not None:
        later = next_rotation(world, spec, gap.until)
        return later.begins if isinstance(later, Next) else None
    return found.begins if found.begins > world.now else found.due


def _since(world: World) -> datetime | None:
    """From when the age of a Secret counts that was never rotated; once seen it is kept, so that nobody looks again."""
    if rotated_last(world) is not None:
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
    hold = _hold(world, found)
    if hold is not None or found.begins is None:
        return _said(hold)
    if found.begins <= world.now:
        return "RotationDue", "it is about to begin"
    last, failures, when = world.status.last_rotation, world.status.failures, format_time(found.begins)
    if failures and last is not None:
        return f"Rotation{last.result}", f"{failures} in a row were not completed; the next one begins at {when}"
    if not _windows(world):
        return STAGGERED, f"it waits for its turn among those that were held up together, at {when}"
    return OUTSIDE, f"no window of {_windows(world)} is open before {when}"


def waits_for_the_user(world: World) -> tuple[str, str] | None:
    """Why nothing begins before the user says so."""
    if not isinstance(world.spec, RotationSpec) or not world.spec.suspend:
        return None
    urgent = ", not even the one that annotation keyturn.dev/urgent asks for" if urgent_word(world) else ""
    return SUSPENDED, f"spec.suspend is set: no rotation is started{urgent}"


def waits_for_a_policy(world: World) -> tuple[str, str] | None:
    """Why policies do not let a rotation begin that would."""
    found = known_next(world)
    hold = _hold(world, found) if isinstance(found, Next) else None
    return _said(hold) if hold is not None else None


def _hold(world: World, found: Next) -> Hold | None:
    """What keeps that rotation from beginning, beside windows."""
    if found.reason == URGENT or not isinstance(world.spec, RotationSpec):
        return None
    hold = world.ruling.hold
    if hold is not None and (hold.until is None or world.now < hold.until > (found.due or world.now)):
        return hold
    return known_to_be_too_soon(world, world.spec, found)


def _said(hold: Hold | None) -> tuple[str, str]:
    assert hold is not None  # nothing else is without an end
    return hold.reason, hold.message


def waits_for_a_window(world: World) -> tuple[str, str] | None:
    """Why a rotation that was asked for does not begin yet."""
    found = known_next(world)
    if not isinstance(found, Next) or found.reason != REQUESTED or found.begins is None or found.begins <= world.now:
        return None
    return OUTSIDE, f"the request waits until {format_time(found.begins)}, when a window of {_windows(world)} opens"


def _windows(world: World) -> str:
    """The fields whose windows count."""
    schedule = world.spec.schedule if isinstance(world.spec, RotationSpec) else None
    if schedule is not None and schedule.windows:
        return "spec.schedule.windows"
    return " and ".join(f"RotationPolicy {one.policy}, spec.windows" for one in world.ruling.windows)


def not_due(world: World) -> str:
    """That no rotation is due; and who says when one is, where that is not the schedule."""
    found, limit = known_next(world), world.ruling.max_age
    if not isinstance(found, Next) or found.reason != AGED or limit is None:
        return "no rotation is due"
    return (
        f"no rotation is due; RotationPolicy {limit.policy}, spec.maxAge {format_duration(limit.age)}, says when one is"
    )


def overridden(world: World) -> Draft | None:
    """That a policy has the secret rotated before its own schedule would. `world` is as it is after the step."""
    found, limit = known_next(world), world.ruling.max_age
    if not isinstance(found, Next) or found.reason != AGED or limit is None or not isinstance(world.spec, RotationSpec):
        return None
    if has_no_times(world.spec.schedule):
        return None
    message = (
        f"RotationPolicy {limit.policy}: spec.maxAge {format_duration(limit.age)} is reached before the next time of"
        " spec.schedule, and the secret is rotated then"
    )
    return ConditionType.SCHEDULE_OVERRIDDEN, ConditionStatus.TRUE, AGED, message
