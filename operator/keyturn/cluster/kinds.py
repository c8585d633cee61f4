"""What each kind of workload tells of itself: how far its controller is, and who can replace its pods.

Sources: Kubernetes API reference for apps/v1 and batch/v1; pkg/controller/statefulset/stateful_set_control.go and
pkg/controller/daemon/update.go for what their status counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keyturn.api.base import GROUP
from keyturn.api.observed import Workload
from keyturn.cluster import history, rollouts
from keyturn.cluster.family import Family
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import (
    STAMP,
    Key,
    Raw,
    annotation_of,
    controller_of,
    created,
    is_ready,
    name_of,
    observed,
    uid_of,
)
from keyturn.cluster.resources import CRONJOBS, DAEMONSETS, DEPLOYMENTS, JOBS, REPLICASETS, ROLLOUTS, STATEFULSETS

_WAVE: Final = f"{GROUP}/wave"
_ON_DELETE: Final = "OnDelete"
_BY_DELETING: Final = "spec.updateStrategy is OnDelete: delete them"


@dataclass(frozen=True, slots=True)
class Found:
    """A workload of any kind, with the spec of the pods that it makes."""

    kind: str
    item: Raw
    pod_spec: Raw

    @property
    def key(self) -> Key:
        return self.kind, name_of(self.item)


def all_workloads(namespace: Namespace) -> Iterator[Found]:
    """All that make pods of their own accord. Jobs and ReplicaSets of others, and Jobs that have ended, do not."""
    for kind, items in (
        (DEPLOYMENTS.kind, namespace.deployments),
        (STATEFULSETS.kind, namespace.statefulsets),
        (DAEMONSETS.kind, namespace.daemonsets),
        (REPLICASETS.kind, [item for item in namespace.replicasets if controller_of(item) is None]),
        (JOBS.kind, [item for item in namespace.jobs if controller_of(item) is None and not _job_has_ended(item)]),
    ):
        for item in items:
            yield Found(kind, item, item["spec"]["template"]["spec"])
    for item in namespace.cronjobs:
        yield Found(CRONJOBS.kind, item, item["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    for item in namespace.rollouts:
        yield Found(ROLLOUTS.kind, item, rollouts.pod_spec(item, namespace))


def moves(kind: str, item: Raw) -> bool:
    """Whether its controller still replaces pods, as far as its own status tells: cheaper than `describe`."""
    if kind == ROLLOUTS.kind:
        return not rollouts.settled(item)
    spec, status = item["spec"], item.get("status") or {}
    if kind == DAEMONSETS.kind:
        counts = [
            status.get(name, 0) for name in ("currentNumberScheduled", "numberAvailable", "updatedNumberScheduled")
        ]
        return not observed(item) or counts != [status.get("desiredNumberScheduled", 0)] * 3
    counts = [status.get("replicas", 0), _available(spec, status), status.get("updatedReplicas", 0)]
    return not observed(item) or counts != [spec.get("replicas", 1)] * 3


def describe(found: Found, family: Family) -> Workload:
    """The workload as the core sees it."""
    return _DESCRIBE[found.kind](found, family)


def _deployment(found: Found, family: Family) -> Workload:
    item = found.item
    spec, status = item["spec"], item.get("status") or {}
    desired = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    exact = status.get("replicas", 0) == updated == desired and available == desired
    failures = [
        condition.get("message", "").rstrip(".")
        for condition in status.get("conditions") or []
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
    ]
    replicasets = family.made_by(item)
    newest = annotation_of(item, history.DEPLOYMENT_REVISION)
    times = [
        created(one)
        for one in replicasets
        if newest is not None and annotation_of(one, history.DEPLOYMENT_REVISION) == newest
    ]
    templates = map(history.template_of_replicaset, replicasets)
    return Workload(
        *found.key,
        restartable=True,
        stamp=annotation_of(spec["template"], STAMP),
        desired=desired,
        observed=observed(item),
        template_time=times[0] if times else None,
        templates=tuple(template for template in templates if template is not None),
        settled=observed(item) and exact,
        failure=failures[0] if failures and observed(item) else None,
        paused=_paused(item),
        wave=_wave(item),
    )


def _statefulset(found: Found, family: Family) -> Workload:
    item = found.item
    spec, status = item["spec"], item.get("status") or {}
    strategy, desired = spec.get("updateStrategy") or {}, spec.get("replicas", 1)
    revisions = family.made_by(item)
    newest = next((one for one in revisions if name_of(one) == status.get("updateRevision")), None)
    seen = observed(item) and newest is not None
    available = _available(spec, status)
    exact = seen and status.get("replicas", 0) == available == desired
    updated = status.get("updatedReplicas", 0)
    on_delete, kept = strategy.get("type") == _ON_DELETE, _below_partition(spec, desired)
    manual: str | None = None
    if on_delete:
        rolled, manual = True, _BY_DELETING
    elif kept:
        rolled = updated >= desired - kept
        partition = "spec.updateStrategy.rollingUpdate.partition"
        manual = f"{partition} keeps pods from being replaced: lower it to 0" if exact and rolled else None
    else:
        rolled = updated == desired and status.get("currentRevision") == status.get("updateRevision")
    return Workload(
        *found.key,
        restartable=True,
        stamp=annotation_of(spec["template"], STAMP),
        desired=desired,
        observed=seen,
        template_time=created(newest) if newest is not None else None,
        templates=tuple(map(history.template_of_revision, revisions)),
        settled=exact and rolled,
        manual=manual,
        ordered=not on_delete and spec.get("podManagementPolicy") != "Parallel",
        wave=_wave(item),
    )


def _daemonset(found: Found, family: Family) -> Workload:
    item = found.item
    spec, status = item["spec"], item.get("status") or {}
    desired = status.get("desiredNumberScheduled", 0)
    revisions = family.made_by(item)
    newest = _newest_of_daemonset(item, revisions)
    seen = observed(item) and newest is not None
    on_delete = (spec.get("updateStrategy") or {}).get("type") == _ON_DELETE
    counted = [status.get(field, 0) for field in ("currentNumberScheduled", "numberAvailable")]
    exact = counted == [desired, desired] and not status.get("numberUnavailable")
    rolled = status.get("updatedNumberScheduled", 0) == desired and not _outdated(found, family, newest)
    return Workload(
        *found.key,
        restartable=True,
        stamp=annotation_of(spec["template"], STAMP),
        desired=desired,
        observed=seen,
        template_time=created(newest) if newest is not None else None,
        templates=tuple(map(history.template_of_revision, revisions)),
        settled=seen and exact and (on_delete or rolled),
        manual=_BY_DELETING if on_delete else None,
        wave=_wave(item),
    )


def _rollout(found: Found, family: Family) -> Workload:
    item = found.item
    return Workload(
        *found.key,
        restartable=True,
        # The annotation restarts nothing by itself: somebody may have taken the time away beside it.
        stamp=annotation_of(item, STAMP) if rollouts.asked_restart(item) is not None else None,
        desired=item["spec"].get("replicas", 1),
        observed=rollouts.observed(item),
        template_time=rollouts.asked_restart(item),
        settled=rollouts.settled(item),
        failure=rollouts.failure(item),
        paused=_paused(item),
        ordered=True,
        wave=_wave(item),
    )


def _replicaset(found: Found, family: Family) -> Workload:
    """Nobody watches its status: its pods tell as much."""
    item, pods = found.item, family.pods_of(found.key)
    desired = item["spec"].get("replicas", 1)
    ready = [pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
    return Workload(
        *found.key,
        restartable=False,
        desired=desired,
        settled=len(ready) == len(pods) == desired,
        manual="a ReplicaSet does not replace its pods: delete them",
        wave=_wave(item),
    )


def _job(found: Found, family: Family) -> Workload:
    """A Job, or all that a CronJob has started. What it starts from now on reads the new value."""
    return Workload(
        *found.key,
        restartable=False,
        desired=len(family.pods_of(found.key)),
        manual="it must end, or be deleted" if found.kind == JOBS.kind else "its jobs must end, or be deleted",
        wave=_wave(found.item),
    )


_DESCRIBE: Final = {
    DEPLOYMENTS.kind: _deployment,
    STATEFULSETS.kind: _statefulset,
    DAEMONSETS.kind: _daemonset,
    ROLLOUTS.kind: _rollout,
    REPLICASETS.kind: _replicaset,
    JOBS.kind: _job,
    CRONJOBS.kind: _job,
}


def _paused(item: Raw) -> str | None:
    return "spec.paused is set: resume the rollout" if item["spec"].get("paused") else None


def _wave(item: Raw) -> int | None:
    text = annotation_of(item, _WAVE)
    if text is None:
        return 0
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else None


def _job_has_ended(job: Raw) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)


def _available(spec: Raw, status: Raw) -> int:
    """Before 1.22, a StatefulSet's status does not tell it, and ready is as good: there is no minReadySeconds."""
    ready: int = 0 if spec.get("minReadySeconds") else status.get("readyReplicas", 0)
    available: int = status.get("availableReplicas", ready)
    return available


def _below_partition(spec: Raw, desired: int) -> int:
    """How many pods the partition of a StatefulSet keeps on their template."""
    partition: int = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition") or 0
    first: int = (spec.get("ordinals") or {}).get("start", 0)
    return max(0, min(desired, partition - first))


def _newest_of_daemonset(item: Raw, revisions: list[Raw]) -> Raw | None:
    """The ControllerRevision of the template; None where it was not listed yet."""
    newest = max(revisions, key=lambda one: int(one["revision"]), default=None)
    if newest is None:
        return None
    wanted, kept = (
        (template.get("metadata") or {}).get("annotations") or {}
        for template in (item["spec"]["template"], history.pod_template(newest))
    )
    return newest if wanted == kept else None


def _outdated(found: Found, family: Family, newest: Raw | None) -> list[str]:
    """Pods that were not made from the newest template."""
    made = [(pod, history.revision_of_pod(pod, family.made_by(found.item))) for pod in family.pods_of(found.key)]
    return sorted(name_of(pod) for pod, one in made if one is None or newest is None or uid_of(one) != uid_of(newest))
