"""`spec.schedule` of a ClientSecretRotation: when to rotate without being asked, and at which times at all."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from keyturn.api.base import GROUP, Duration, KubeModel

ROTATED_AT_ANNOTATION = f"{GROUP}/rotated-at"
"""On a Secret: when its value was made, where that was not when the Secret was created."""

# Five fields. What may be in each is judged by the operator, which has a library for it.
CRON_PATTERN = r"^[-0-9A-Za-z*,/#]+( +[-0-9A-Za-z*,/#]+){4}$"
TIME_ZONE_PATTERN = r"^[A-Za-z][-+_A-Za-z0-9]*(/[A-Za-z][-+_A-Za-z0-9]*){0,2}$"

Cron = Annotated[str, Field(max_length=100, pattern=CRON_PATTERN)]
TimeZone = Annotated[str, Field(max_length=64, pattern=TIME_ZONE_PATTERN)]


class WindowKind(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class InitialPolicy(StrEnum):
    ON_SCHEDULE = "OnSchedule"
    IMMEDIATELY = "Immediately"


class Window(KubeModel):
    """A time, again and again, in which rotations may begin or must not run."""

    kind: WindowKind
    """allow: rotations run only in windows of this kind, if there is one. deny: none in this window."""
    schedule: Cron
    """When it begins: a cron expression of five fields, such as `0 2 * * *`."""
    duration: Duration
    """How long it lasts."""
    time_zone: TimeZone | None = None
    """Time zone of `schedule`, as the IANA database names it; that of the whole schedule without it."""


class ScheduleSpec(KubeModel):
    """When to rotate without being asked, and at which times at all."""

    interval: Duration | None = None
    """Rotate so long after the last rotation was completed."""
    cron: Cron | None = None
    """Rotate at these times: five fields, such as `0 3 * * 1` for Mondays at three; `L`, `LW` and `5#2` are known.
    Times that were missed are made up for by one rotation."""
    time_zone: TimeZone = "UTC"
    """Time zone of `cron` and of windows that name none, as the IANA database names it, such as Europe/Berlin."""
    windows: Annotated[list[Window], Field(max_length=10)] = []
    """When rotations may run: one begins only where `rollout.timeout` fits in. An urgent one does not heed them."""
    stagger: Duration | None = None
    """Over how long rotations of one schedule are spread, each at its own time: before the end of `interval`, after the
    times of `cron`, and after a window has opened. Without it, a tenth of the time between two, at most 1h."""
    initial: InitialPolicy = InitialPolicy.ON_SCHEDULE
    """Before Keyturn has ever rotated the Secret. OnSchedule: `interval` counts from its annotation
    keyturn.dev/rotated-at, or from its creation. Immediate: rotate at once."""
