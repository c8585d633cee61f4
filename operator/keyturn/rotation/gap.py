"""The time between two rotations that restart the same workload, as a RotationPolicy wants it.

When the last one began is read from the workload itself: its stamp is the id of the rotation that has restarted it, and
an id begins with the time at which its rotation did. One that runs and has not come to its restarts yet has written
down what they will be when it began.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from keyturn.api.base import format_duration, format_time
from keyturn.api.observed import Consumers, Workload
from keyturn.api.rotation import Phase, RotationRecord, RotationSpec, Target, TargetState
from keyturn.rotation.consumers import Key, RolloutView, key_of
from keyturn.rotation.due import URGENT, Next
from keyturn.rotation.policy import Hold
from keyturn.rotation.targets import targets
from keyturn.rotation.world import UNOBSERVED, World

MIN_GAP: Final = "MinGap"
_RESOLUTION: Final = timedelta(seconds=1)
"""Of the time in an id."""
_ID: Final = re.compile(r"([0-9]{8}-[0-9]{6})-")


def too_soon(world: World, spec: RotationSpec, found: Next) -> Hold | None:
    """Until when a rotation that is due must wait because of earlier ones, or None. May raise LookFirst."""
    wanted = world.ruling.min_gap
    if wanted is None or found.reason == URGENT:
        return None
    consumers = world.see_consumers()
    ahead = restarts_ahead(world, spec, consumers)
    workloads = [workload for workload in consumers.workloads if key_of(workload) in ahead]
    ended, begun, name = max(
        (
            (time + _RESOLUTION + wanted.gap, time, f"{one.kind}/{one.name}")
            for one in workloads
            for time in _begun(world, one)
        ),
        default=(world.now, world.now, ""),
    )
    if ended <= world.now:
        return None
    gap = f"RotationPolicy {wanted.policy}, spec.minGap {format_duration(wanted.gap)}"
    message = f"a rotation that restarts {name} has begun at {format_time(begun)}; this one may at {format_time(ended)}"
    return Hold(MIN_GAP, f"{message} ({gap})", ended)


def known_to_be_too_soon(world: World, spec: RotationSpec, found: Next) -> Hold | None:
    """As `too_soon`, for a rotation that is due, as far as the workloads were looked at."""
    due = found.begins is not None and found.begins <= world.now
    return too_soon(world, spec, found) if due and world.consumers is not UNOBSERVED else None


def restarts_ahead(world: World, spec: RotationSpec, consumers: Consumers) -> frozenset[Key]:
    """The workloads that a rotation restarts which begins now."""
    listed = expected_targets(world, spec, consumers)
    return frozenset((one.kind, one.name) for one in listed if one.state is TargetState.PENDING)


def expected_targets(world: World, spec: RotationSpec, consumers: Consumers) -> list[Target]:
    """What a rotation that begins now will have to do with each workload."""
    record = RotationRecord(
        id=world.fresh_id,
        phase=Phase.STARTING,
        reason="",
        subject=world.subject,
        started_time=world.now,
        phase_started_time=world.now,
    )
    return targets(RolloutView(consumers, record, spec.rollout, world.now))


def restarts_of(running: Mapping[str, object]) -> Iterator[Key]:
    """The workloads that a running rotation restarts, by its `status.rotation` as it was written."""
    listed = running.get("targets")
    for target in listed if isinstance(listed, list) else []:
        if target.get("restarted") or target["state"] == TargetState.PENDING:
            yield target["kind"], target["name"]


def begun_at(rotation_id: str) -> datetime | None:
    """When a rotation began, by its id or a stamp that is made of it; None for what Keyturn has not written."""
    found = _ID.match(rotation_id)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _begun(world: World, workload: Workload) -> Iterator[datetime]:
    """When rotations that restart the workload have begun."""
    stamps = {workload.stamp, *(template.stamp for template in workload.templates)}
    for stamp in stamps - {None}:
        time = begun_at(str(stamp))
        if time is not None:
            yield time
    if key_of(workload) in world.restarting:
        yield world.restarting[key_of(workload)]
