"""What the statuses of all rotations say together. Single objects are not told: there may be ten thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from keyturn.api.conditions import ConditionType
from keyturn.api.rotation import Phase
from keyturn.controller.metrics import AGE, NEXT, OBJECTS, OVERDUE, STALLED, Samples

_OVERDUE = "Overdue"


def census(rotations: Iterable[dict[str, Any]], now: datetime) -> Samples:
    """The metrics about objects, from their statuses as they were written; nothing is asked for.

    Times are compared as text, which sorts as they do, and only the extremes are read.
    """
    phases: Counter[str] = Counter()
    counted = {str(ConditionType.STALLED): 0, _OVERDUE: 0}
    rotated, due = [], []
    for raw in rotations:
        status = raw.get("status") or {}
        phases[status.get("phase") or "Idle"] += 1
        for one in status.get("conditions") or ():
            if one["type"] in counted and one["status"] == "True":
                counted[one["type"]] += 1
        if status.get("lastRotationTime"):
            rotated.append(status["lastRotationTime"])
        if status.get("nextRotationTime"):
            due.append(status["nextRotationTime"])
    for phase in Phase:
        yield OBJECTS, (phase,), phases[phase]
    yield STALLED, (), counted[ConditionType.STALLED]
    yield OVERDUE, (), counted[_OVERDUE]
    if rotated:
        yield AGE, (), (now - datetime.fromisoformat(min(rotated))).total_seconds()
    if due:
        yield NEXT, (), (datetime.fromisoformat(min(due)) - now).total_seconds()
