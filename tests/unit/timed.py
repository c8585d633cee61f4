"""Labs under a clock that jumps, whose rotations begin by schedule."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from keyturn.api.conditions import Condition
from keyturn.api.rotation import RotationStatus
from keyturn.api.schedule import ScheduleSpec
from keyturn.rotation.steps import Rest, Wait
from tests.model.fakecluster import SECOND
from tests.model.lab import EPOCH, Lab
from tests.model.scenarios import make_lab, make_spec

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MONTHLY: dict[str, Any] = {"interval": "720h", "stagger": "0s"}
AT_NIGHT = [{"kind": "allow", "schedule": "0 2 * * *", "duration": "4h"}]


def scheduled(*, age: timedelta = timedelta(), **schedule: Any) -> Lab:
    """A lab without a request; the Secret is as old as told, and the resource was made at EPOCH, at noon."""
    lab = make_lab(make_spec(rotation_request=None, schedule=ScheduleSpec.model_validate(schedule)))
    assert lab.namespace.secret is not None
    lab.namespace.secret.created = (EPOCH - age).replace(microsecond=0)
    return lab


def reschedule(lab: Lab, **schedule: Any) -> Wait | Rest | None:
    lab.edit_spec(schedule=ScheduleSpec.model_validate(schedule))
    return lab.run()


def skip_to(lab: Lab, moment: datetime) -> Wait | Rest | None:
    """Nothing happens until then; and the operator looks, as its timer makes it."""
    lab.now = max(lab.now, moment)
    lab.elapse(SECOND)
    return lab.run()


def status(lab: Lab) -> RotationStatus:
    return lab.resource.parsed()


def condition(lab: Lab, kind: str) -> Condition | None:
    return next((one for one in status(lab).conditions if one.type == kind), None)


def reasons(lab: Lab) -> list[str]:
    return [past.reason for past in reversed(status(lab).history)]


def rest_of(step: Wait | Rest | None) -> datetime | None:
    assert isinstance(step, Rest)
    return step.until


def next_time(lab: Lab) -> datetime:
    found = status(lab).next_rotation_time
    assert found is not None
    return found
