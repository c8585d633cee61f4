"""Why and when the next rotation begins: for the user's urgent word, for a request, or by the schedule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from keyturn.api.observed import Journal
from keyturn.api.rotation import URGENT_LENGTH, CronInForce, RotationSpec
from keyturn.api.schedule import InitialPolicy, ScheduleSpec
from keyturn.rotation.cron import BadSchedule
from keyturn.rotation.policy import NO_POLICY
from keyturn.rotation.schedule import Calendar, calendar_of, share_of
from keyturn.rotation.world import UNOBSERVED, Problem, World

URGENT: Final = "Urgent"
REQUESTED: Final = "RotationRequest"
SCHEDULED: Final = "Schedule"
AGED: Final = "MaxAge"

INVALID_SCHEDULE: Final = "InvalidSchedule"
CALENDAR_POLL: Final = timedelta(hours=1)

OVERDUE_GRACE: Final = timedelta(minutes=10)
"""So long after it was due a rotation that has not begun is called overdue."""
_FIRST_PAUSE: Final = timedelta(minutes=10)
_LONGEST_PAUSE: Final = timedelta(hours=12)
_CLOCKS_DIFFER: Final = timedelta(days=1)
_FIRST_TIME: Final = datetime(1970, 1, 2, tzinfo=UTC)
_DIGEST: Final = 16


# Asked several times in each pass over an object, about the same moment.
_placed = lru_cache(maxsize=64)(Calendar.placed)
_begins = lru_cache(maxsize=64)(Calendar.begins)
_due_by_age_in = lru_cache(maxsize=64)(Calendar.due_by_age)


@dataclass(frozen=True, slots=True)
class Next:
    """The rotation that comes next.

    reason: why it is to begin. begins: when it can begin, not before now; None where that is for somebody to say.
    due: since when, or from when on, it is due by the schedule; None where there is none with times of its own.
    """

    reason: str
    begins: datetime | None
    due: datetime | None = None


def next_rotation(world: World, spec: RotationSpec, earliest: datetime | None = None) -> Next | Problem | None:
    """The rotation that is to begin next, if no check fails; a Problem where the schedule makes no sense.

    earliest: before that time nothing begins, for another reason than the schedule's; what is urgent does. Raises
    LookFirst where the age of the Secret is not known yet.
    """
    if urgent_word(world) is not None:
        return Next(URGENT, world.now)
    asked = requested(world, spec)
    schedule, ruling = spec.schedule, world.ruling
    if schedule is None and ruling == NO_POLICY:
        return Next(REQUESTED, world.now) if asked else None
    schedule, age = schedule or ScheduleSpec(), ruling.max_age.age if ruling.max_age is not None else None
    try:
        calendar = calendar_of(schedule, spec.rollout.timeout, world.now, ruling.windows, age)
        return _by_schedule(world, schedule, calendar, earliest or world.now, asked=asked)
    except BadSchedule as error:
        return Problem(INVALID_SCHEDULE, str(error))


def _by_schedule(
    world: World, schedule: ScheduleSpec, calendar: Calendar, earliest: datetime, *, asked: bool
) -> Next | Problem | None:
    share = share_of(world.namespace, world.name)
    base, aged = _due(world, schedule, calendar, share), _due_by_age(world, schedule, calendar, share)
    if isinstance(base, Problem):
        return base
    if isinstance(aged, Problem):
        return aged
    due, reason = _placed(calendar, base, share) if base is not None else None, SCHEDULED
    if aged is not None and (due is None or aged < due):
        due, reason = aged, AGED
    hold = world.ruling.hold
    frozen, endless = (hold.until, hold.until is None) if hold is not None else (None, False)
    if asked:
        return Next(REQUESTED, None if endless else calendar.opening(earliest, frozen).begin, due)
    if due is None:
        return None
    begins = _begins(calendar, max(due, _rested(world) or due), share, earliest, frozen)
    return Next(reason, None if endless else begins, due)


def _due_by_age(world: World, schedule: ScheduleSpec, calendar: Calendar, share: float) -> datetime | Problem | None:
    """When the secret is to be rotated that must not become older than policies allow."""
    limit, last = world.ruling.max_age, rotated_last(world)
    if limit is None:
        return None
    at_once = last is None and schedule.initial is InitialPolicy.IMMEDIATELY
    since = world.created if at_once else last if last is not None else secret_since(world)
    if isinstance(since, Problem):
        return since
    # What is too old already when it comes under the policy is spread from that moment on.
    under_it = max(limit.since, world.created) if last is None else limit.since
    spread = min(calendar.stagger(under_it), limit.age / 2)
    soonest = (under_it + spread * share).replace(microsecond=0)
    if at_once or since is None:
        due = world.created if under_it == world.created else calendar.placed(soonest, share)
        return due if at_once or has_no_times(schedule) else None
    aged, deadline = _due_by_age_in(calendar, since, max(since, under_it), share), since + limit.age
    if aged >= soonest:
        return aged
    placed = calendar.placed(soonest if deadline <= under_it else min(soonest, deadline), share)
    return aged if under_it <= aged <= deadline < placed else placed


def has_no_times(schedule: ScheduleSpec | None) -> bool:
    """Whether a schedule does not say by itself when to rotate."""
    return schedule is None or (schedule.interval is None and schedule.cron is None)


def _due(world: World, schedule: ScheduleSpec, calendar: Calendar, share: float) -> datetime | Problem | None:
    """When the next rotation is due, before windows are looked at."""
    last, created = rotated_last(world), world.created
    if has_no_times(schedule):
        return None
    if last is None and schedule.initial is InitialPolicy.IMMEDIATELY:
        return created
    if schedule.cron is not None:
        last, seen = world.status.last_rotation_time, cron_in_force(world, schedule).since
        return calendar.due_after(max(last, seen) if last is not None else seen, share)
    if last is not None:
        return calendar.due_after(last, share)
    since = secret_since(world)
    if isinstance(since, Problem):
        return since
    # What was old already when it came under Keyturn's care is spread from that moment on.
    soonest = created + calendar.stagger(created) * share
    old = calendar.due_after(since, share) if since is not None else None
    return max(old, soonest).replace(microsecond=0) if old is not None else created


def rotated_last(world: World) -> datetime | None:
    """When what the spec names was rotated last. Another provider object may well speak of the same account."""
    before, spec = world.status.last_rotation_subject, world.spec
    if before is not None and isinstance(spec, RotationSpec):
        then, now = ((one.client_id, one.secret_ref.name, one.secret_ref.key) for one in (before, spec))
        if then != now:
            return None
    return world.status.last_rotation_time


def secret_since(world: World) -> datetime | Problem | None:
    """Since when the value counts as being in use; None where there is no Secret yet. May raise LookFirst."""
    if world.secret is UNOBSERVED and world.status.secret_since is not None:
        return world.status.secret_since
    secret = world.see_secret()
    if secret is None or secret.rotated_at is None:
        return secret.created if secret is not None else None
    try:
        since = datetime.fromisoformat(secret.rotated_at)
    except ValueError:
        since = None
    if since is None or since.tzinfo is None:
        wanted = "must be a time such as 2026-11-01T00:00:00Z"
    elif since > world.now + _CLOCKS_DIFFER or since < _FIRST_TIME:
        wanted = "must be a time in the past, and not before 1970"
    else:
        return since
    return Problem("InvalidAge", f"Secret {secret.name}: annotation keyturn.dev/rotated-at {wanted}: correct it")


def cron_in_force(world: World, schedule: ScheduleSpec) -> CronInForce:
    """The expression that is followed, and since when: the times that it had before are nobody's loss."""
    assert schedule.cron is not None
    known = world.status.cron_in_force
    if known is not None and (known.cron, known.time_zone) == (schedule.cron, schedule.time_zone):
        return known
    return CronInForce(cron=schedule.cron, time_zone=schedule.time_zone, since=world.now.replace(microsecond=0))


def _rested(world: World) -> datetime | None:
    """Until when the provider is left alone after rotations that have failed: longer with each."""
    failures, last = world.status.failures, world.status.last_rotation
    if not failures or last is None:
        return None
    pause: timedelta = min(_FIRST_PAUSE * 2 ** min(failures - 1, 16), _LONGEST_PAUSE)
    return (last.finished_time + pause).replace(microsecond=0)


def requested(world: World, spec: RotationSpec) -> bool:
    """Whether spec.rotationRequest holds a value that was not handled before."""
    request = spec.rotation_request
    handled = {world.status.last_handled_rotation_request, *(past.request for past in world.status.history)}
    return bool(request) and request not in handled


def urgent_word(world: World) -> str | None:
    """The text of annotation keyturn.dev/urgent, if it was not handled before."""
    word = urgent_text(world)
    return word if word != world.status.last_handled_urgent else None


def must_begin(world: World) -> bool:
    """Whether a rotation that begins now waits for no other: it is urgent, or goes on with what is in the middle."""
    return urgent_word(world) is not None or world.finalizer or isinstance(world.journal, Journal)


def urgent_text(world: World) -> str | None:
    """The text of annotation keyturn.dev/urgent as it is kept, or None without the annotation."""
    if world.urgent_request is None:
        return None
    text = world.urgent_request.strip()
    if len(text) > URGENT_LENGTH:
        # What is kept of two long texts must not be the same.
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
        text = f"{text[: URGENT_LENGTH - _DIGEST - 2]}… {digest}"
    return text or "no reason given"


def due_now(world: World, found: Next | Problem | None) -> bool:
    """Whether that rotation is to begin now, if no check fails."""
    return isinstance(found, Next) and found.begins is not None and found.begins <= world.now


def overdue_from(found: Next | Problem | None) -> datetime | None:
    """From when on that rotation is called overdue, if it has not begun."""
    return found.due + OVERDUE_GRACE if isinstance(found, Next) and found.due is not None else None
