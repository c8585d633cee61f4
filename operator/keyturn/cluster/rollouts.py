"""Rollouts of Argo Rollouts, which have their own way to be restarted.

Its controller evicts every pod that was created before `spec.restartAt`, whatever ReplicaSet it is of, also in the
middle of a canary update; no more at a time than may be unavailable. Then it copies that time to `status.restartedAt`.
The pod template stays as it is. Sources: argo-rollouts, docs/features/restart.md and rollout/restart.go; for
`status.phase` and `status.observedGeneration`, which is text, utils/rollout/rolloututil.go; for `spec.workloadRef`,
docs/migrating.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keyturn.api.base import format_time
from keyturn.cluster.client import Kube
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import STAMP, Raw, name_of
from keyturn.cluster.resources import DEPLOYMENTS, REPLICASETS, ROLLOUTS

_AT_REST: Final = ("Healthy", "Paused")
_SOON: Final = timedelta(minutes=1)


async def restart(kube: Kube, namespace: str, name: str, stamp: str, written: datetime, *, dry_run: bool) -> None:
    """Have all pods replaced that were created up to the second of `written`, and say for which rotation.

    A restart for a later time, that of another rotation, covers this one and stays. One that was planned for the future
    does not, and gives way. Raises Conflict when the Rollout is being changed at the same time.
    """
    found = await kube.get(ROLLOUTS, namespace, name)
    wanted, asked = written + timedelta(seconds=1), asked_restart(found)
    body: dict[str, Any] = {
        "metadata": {"annotations": {STAMP: stamp}, "resourceVersion": found["metadata"]["resourceVersion"]}
    }
    if asked is None or asked < wanted:
        body["spec"] = {"restartAt": format_time(wanted)}
    await kube.merge(ROLLOUTS, namespace, name, body, dry_run=dry_run)


def asked_restart(item: Raw) -> datetime | None:
    """The time before which no pod may have been created, if its controller goes by one already or will soon."""
    asked = _time(item["spec"].get("restartAt"))
    return asked if asked is not None and asked <= datetime.now(UTC) + _SOON else None


def pod_spec(item: Raw, namespace: Namespace) -> Raw:
    """What its pods are made from: its own template, or that of the Deployment or ReplicaSet that it refers to."""
    reference, source = item["spec"].get("workloadRef"), item
    if reference is not None:
        items = {DEPLOYMENTS.kind: namespace.deployments, REPLICASETS.kind: namespace.replicasets}
        there = [found for found in items.get(reference["kind"], []) if name_of(found) == reference["name"]]
        source = there[0] if there else {}
    spec: Raw = ((source.get("spec") or {}).get("template") or {}).get("spec") or {}
    return spec


def observed(item: Raw) -> bool:
    """Whether its controller has seen the newest spec."""
    seen = str((item.get("status") or {}).get("observedGeneration", ""))
    return seen.isdigit() and int(seen) >= item["metadata"]["generation"]


def settled(item: Raw) -> bool:
    """Whether it has come to rest with all its pods available. A canary that waits at a step is at rest."""
    status = item.get("status") or {}
    restarted = asked_restart(item) in (None, _time(status.get("restartedAt")))
    available = status.get("availableReplicas", 0) >= item["spec"].get("replicas", 1)
    return observed(item) and restarted and available and status.get("phase") in _AT_REST


def failure(item: Raw) -> str | None:
    """Why its controller gave up, if it did."""
    status = item.get("status") or {}
    if not observed(item) or not (status.get("phase") == "Degraded" or status.get("abort")):
        return None
    return str(status.get("message") or "it is degraded")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
