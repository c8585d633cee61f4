"""What must hold across the fields of `spec.schedule`, as far as it can be said without a calendar."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from keyturn.api.base import parse_duration
from keyturn.api.rotation import RotationSpec
from keyturn.api.rule import Rule
from keyturn.api.schedule import ScheduleSpec, WindowKind


def _within_schedule(
    field: str, demand: str, cel: str, holds: Callable[[ScheduleSpec, RotationSpec], bool]
) -> Rule[RotationSpec]:
    """A rule about a schedule, for where there is one. `schedule` in the CEL expression is that of the spec."""
    return Rule(
        f"schedule.{field}",
        demand,
        f"!has(self.schedule) || {cel.replace('schedule.', 'self.schedule.')}",
        lambda spec: spec.schedule is None or holds(spec.schedule, spec),
    )


LONGEST_INTERVAL: Final = "87600h"
LONGEST_WINDOW: Final = "8760h"

SCHEDULE: Final[tuple[Rule[RotationSpec], ...]] = (
    _within_schedule(
        "cron",
        "must be left out with spec.schedule.interval: a schedule has one or the other",
        "!has(schedule.cron) || !has(schedule.interval)",
        lambda schedule, _: schedule.cron is None or schedule.interval is None,
    ),
    _within_schedule(
        "interval",
        f"must be between 1m and {LONGEST_INTERVAL}",
        "!has(schedule.interval) || (duration(schedule.interval) >= duration('1m')"
        f" && duration(schedule.interval) <= duration('{LONGEST_INTERVAL}'))",
        lambda schedule, _: (
            schedule.interval is None or timedelta(minutes=1) <= schedule.interval <= parse_duration(LONGEST_INTERVAL)
        ),
    ),
    _within_schedule(
        "stagger",
        "must be at most 168h, and not longer than half of spec.schedule.interval",
        "!has(schedule.stagger) || (duration(schedule.stagger) <= duration('168h') && (!has(schedule.interval)"
        " || duration(schedule.stagger) + duration(schedule.stagger) <= duration(schedule.interval)))",
        lambda schedule, _: (
            schedule.stagger is None
            or (
                schedule.stagger <= timedelta(hours=168)
                and (schedule.interval is None or 2 * schedule.stagger <= schedule.interval)
            )
        ),
    ),
    _within_schedule(
        "windows",
        f"must last between 1m and {LONGEST_WINDOW} each",
        "schedule.windows.all(one, duration(one.duration) >= duration('1m')"
        f" && duration(one.duration) <= duration('{LONGEST_WINDOW}'))",
        lambda schedule, _: all(
            timedelta(minutes=1) <= one.duration <= parse_duration(LONGEST_WINDOW) for one in schedule.windows
        ),
    ),
    _within_schedule(
        "windows",
        "must not be shorter than spec.rollout.timeout where they allow: no rotation would fit into them",
        "schedule.windows.all(one, one.kind != 'allow' || duration(one.duration) >= duration(self.rollout.timeout))",
        lambda schedule, spec: all(
            one.kind is not WindowKind.ALLOW or one.duration >= spec.rollout.timeout for one in schedule.windows
        ),
    ),
)
