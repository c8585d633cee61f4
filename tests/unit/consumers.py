"""Makers of what is observed, with times in seconds since ZERO."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import Phase, RolloutSpec, RotationRecord
from keyturn.rotation.consumers import RolloutView
from tests.model.scenarios import make_spec

ZERO = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS, CANCELLED, OTHER = "r1", "r1-cancelled", "r0"
WEB = ("Deployment", "web")


def at(second: float | None) -> datetime | None:
    return None if second is None else ZERO + timedelta(seconds=second)


def record(
    distributed: float | None = 10, restored: float | None = None, *, cancelling: bool = False, **more: Any
) -> RotationRecord:
    spec = make_spec()
    return RotationRecord.model_validate(
        {
            "id": OURS,
            "phase": Phase.CANCELLING if cancelling else Phase.ROLLING_OUT,
            "reason": "RotationRequest",
            "subject": {"providerRef": spec.provider_ref, "clientId": spec.client_id, "secretRef": spec.secret_ref},
            "startedTime": ZERO,
            "phaseStartedTime": ZERO,
            "distributedTime": at(distributed),
            "restoredTime": at(restored),
            **more,
        }
    )


def pod(created: float, stamp: str | None = None, started: float | None = None, **how: Any) -> Pod:
    ended = how.pop("terminating", False)
    whole = {"name": "p", "owner": WEB, "ready": not ended, **how}
    return Pod(stamp=stamp, created=ZERO + timedelta(seconds=created), started=at(started), terminating=ended, **whole)


def web(stamp: str | None = None, **how: Any) -> Workload:
    return Workload(**{"kind": "Deployment", "name": "web", "restartable": True, "desired": 1, "stamp": stamp, **how})


def view(
    workloads: Sequence[Workload], pods: Sequence[Pod], of: RotationRecord, *, now: float = 60, **spec: Any
) -> RolloutView:
    """`spec`: fields of spec.rollout that differ from their defaults."""
    rollout = RolloutSpec.model_validate(spec)
    return RolloutView(Consumers(tuple(workloads), tuple(pods)), of, rollout, ZERO + timedelta(seconds=now))
