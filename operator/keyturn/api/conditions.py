"""Conditions as metav1.Condition, read by kubectl wait, Flux and Argo CD (kstatus)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from keyturn.api.base import KubeModel, Time

MESSAGE_LIMIT = 1024


class ConditionType(StrEnum):
    """Polarity: Ready, CredentialVerified and RolloutComplete are good when True; the others when False or absent."""

    READY = "Ready"
    ROTATING = "Rotating"
    ROLLOUT_COMPLETE = "RolloutComplete"
    CREDENTIAL_VERIFIED = "CredentialVerified"
    OVERDUE = "Overdue"
    CONTESTED = "Contested"
    SCHEDULE_OVERRIDDEN = "ScheduleOverridden"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(KubeModel):
    """One aspect of the state, with the reason for it."""

    type: Annotated[str, Field(max_length=316)]
    """Name of the aspect."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The generation of the spec that this condition speaks of."""
    last_transition_time: Time
    """When `status` changed last."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """A word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people: what is at fault, and what to do."""


def merge_conditions(
    old: Iterable[Condition],
    new: Iterable[tuple[ConditionType, ConditionStatus, str, str]],
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Build the new list from (type, status, reason, message); the transition time moves only when the status does.

    A condition of `old` that `new` does not name is dropped.
    """
    before = {condition.type: condition for condition in old}
    merged = []
    for kind, status, reason, message in new:
        known = before.get(kind)
        changed = known is None or known.status is not status
        merged.append(
            Condition(
                type=kind,
                status=status,
                observed_generation=generation,
                last_transition_time=now.replace(microsecond=0)
                if changed or known is None
                else known.last_transition_time,
                reason=reason,
                # Kubernetes 1.20 refuses empty strings in custom resources when it was built with Go 1.18 or newer.
                message=message[:MESSAGE_LIMIT] or reason,
            )
        )
    return merged
