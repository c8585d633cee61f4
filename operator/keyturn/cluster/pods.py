"""What a pod tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from keyturn.api.observed import Pod
from keyturn.cluster.family import Member
from keyturn.cluster.objects import STAMP, Raw, annotation_of, created, is_ready, name_of, uid_of

_CRASHES: Final = 3
"""A container may fail once or twice while something that it needs is not there yet."""


def pod_of(member: Member, *, live: bool, volume: bool) -> Pod:
    """The pod as the core sees it. live, volume: as in `Pod`."""
    item = member.item
    status = item.get("status") or {}
    starts = [
        started
        for container in _containers(status)
        if (started := ((container.get("state") or {}).get("running") or {}).get("startedAt"))
    ]
    return Pod(
        name=name_of(item),
        owner=member.owner,
        stamp=annotation_of(item, STAMP),
        created=created(item),
        started=max(map(datetime.fromisoformat, starts), default=None),
        ready=is_ready(item),
        terminating="deletionTimestamp" in item["metadata"],
        revision=member.revision,
        live=live,
        volume=volume,
        failing=_failing(status),
        uid=uid_of(item),
    )


def _containers(status: Raw) -> Iterator[Raw]:
    for group in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(group) or []


def _failing(status: Raw) -> str | None:
    """The container that crashes again and again. What it printed is left out: it may hold the value."""
    for container in _containers(status):
        reason = ((container.get("state") or {}).get("waiting") or {}).get("reason")
        restarts = container.get("restartCount", 0)
        if reason == "CrashLoopBackOff" and restarts >= _CRASHES:
            return f"container {container['name']} is in CrashLoopBackOff after {restarts} restarts"
    return None
