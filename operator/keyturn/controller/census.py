"""What the statuses of all rotations say together. Single objects are not told: there may be ten thousand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyturn.api.conditions import ConditionType
from keyturn.api.rotation import Phase
from keyturn.controller.metrics import AGE, NEXT, OBJECTS, OVERDUE, STALLED, Samples


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts of one rotation's status. rotated, due: the times as they are written there."""

    phase: str
    stalled: bool
    overdue: bool
    rotated: str | None
    due: str | None


def facts_of(rotation: dict[str, Any]) -> Facts:
    """What its status says."""
    status = rotation.get("status") or {}
    true = {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}
    return Facts(
        phase=sys.intern(status.get("phase") or "Idle"),
        stalled=ConditionType.STALLED in true,
        overdue=ConditionType.OVERDUE in true,
        rotated=status.get("lastRotationTime"),
        due=status.get("nextRotationTime"),
    )


def census(rotations: Iterable[Facts], now: datetime) -> Samples:
    """The metrics about objects, from their statuses as they were written; nothing is asked for.

    Times are compared as text, which sorts as they do, and only the extremes are read.
    """
    all_facts = list(rotations)
    phases = Counter(facts.phase for facts in all_facts)
    rotated = [facts.rotated for facts in all_facts if facts.rotated]
    due = [facts.due for facts in all_facts if facts.due]
    for phase in Phase:
        yield OBJECTS, (phase,), phases[phase]
    yield STALLED, (), sum(facts.stalled for facts in all_facts)
    yield OVERDUE, (), sum(facts.overdue for facts in all_facts)
    if rotated:
        yield AGE, (), (now - datetime.fromisoformat(min(rotated))).total_seconds()
    if due:
        yield NEXT, (), (datetime.fromisoformat(min(due)) - now).total_seconds()
