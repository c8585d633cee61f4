"""The workloads and pods of one namespace: read, and restarted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from keyturn.api.base import GROUP
from keyturn.api.observed import Consumers, Pod, Template, Workload
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import NotFound
from keyturn.cluster.references import reads_secret
from keyturn.cluster.resources import DEPLOYMENTS

STAMP: Final = f"{GROUP}/rotation"
_REVISION: Final = "deployment.kubernetes.io/revision"
_EARLIER_REVISIONS: Final = "deployment.kubernetes.io/revision-history"
_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Namespace:
    """All pods, ReplicaSets and Deployments of a namespace, as the API server returned them."""

    deployments: list[dict[str, Any]]
    replicasets: list[dict[str, Any]]
    pods: list[dict[str, Any]]


async def restart(kube: Kube, namespace: str, workload: Workload, stamp: str, *, dry_run: bool = False) -> None:
    """Stamp the pod template, by server-side apply of that one annotation: its controller replaces the pods.

    Applying the same stamp again changes nothing (I7). GitOps tools that do not name the annotation see no drift.
    """
    metadata = {"name": workload.name, "namespace": namespace}
    body = {"metadata": metadata, "spec": {"template": {"metadata": {"annotations": {STAMP: stamp}}}}}
    await kube.apply(DEPLOYMENTS, namespace, workload.name, body, dry_run=dry_run)


async def exists(kube: Kube, namespace: str, workload: Workload) -> bool:
    """Whether the workload is still there."""
    try:
        await kube.get(DEPLOYMENTS, namespace, workload.name)
    except NotFound:
        return False
    return True


def consumers_of(namespace: Namespace, secret: str) -> Consumers:
    """Everything in the namespace that reads the Secret: by its template, or because one of its pods does."""
    replicasets = {_name(item): item for item in namespace.replicasets if _controller(item) is not None}
    pods = tuple(
        _pod(item, replicasets)
        for item in namespace.pods
        if reads_secret(item["spec"], secret) and (item.get("status") or {}).get("phase") not in _ENDED
    )
    owners = {pod.owner for pod in pods}
    owned = defaultdict(list)
    for item in replicasets.values():
        owned[_controller(item)].append(item)
    workloads = tuple(
        _deployment(item, owned[DEPLOYMENTS.kind, _name(item)])
        for item in namespace.deployments
        if reads_secret(item["spec"]["template"]["spec"], secret) or (DEPLOYMENTS.kind, _name(item)) in owners
    )
    return Consumers(workloads=workloads, pods=pods)


def _deployment(item: dict[str, Any], replicasets: list[dict[str, Any]]) -> Workload:
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    desired = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    observed = status.get("observedGeneration", 0) >= meta["generation"]
    exact = status.get("replicas", 0) == updated == desired and available == desired
    failures = [
        condition.get("message", "")
        for condition in status.get("conditions") or []
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
    ]
    newest = _annotation(item, _REVISION)
    times = [_time(owned) for owned in replicasets if newest is not None and _annotation(owned, _REVISION) == newest]
    return Workload(
        kind=DEPLOYMENTS.kind,
        name=_name(item),
        restartable=True,
        stamp=_annotation(spec["template"], STAMP),
        desired=desired,
        observed=observed,
        template_time=times[0] if times else None,
        templates=tuple(template for owned in replicasets if (template := _template(owned)) is not None),
        settled=observed and exact,
        failure=failures[0] if failures and observed else None,
        paused="spec.paused is set: resume the rollout" if spec.get("paused") else None,
    )


def _template(replicaset: dict[str, Any]) -> Template | None:
    """What this ReplicaSet tells of its Deployment's past. One that is taken into use again gets a new revision."""
    revisions = [_annotation(replicaset, _REVISION), *(_annotation(replicaset, _EARLIER_REVISIONS) or "").split(",")]
    known = [int(revision) for revision in revisions if revision]
    stamp = _annotation(replicaset["spec"]["template"], STAMP)
    return Template(min(known), stamp, _time(replicaset)) if known else None


def _pod(item: dict[str, Any], replicasets: dict[str, dict[str, Any]]) -> Pod:
    meta, status = item["metadata"], item.get("status") or {}
    owner = _controller(item) or ("Pod", meta["name"])
    replicaset = replicasets.get(owner[1]) if owner[0] == "ReplicaSet" else None
    template = _template(replicaset) if replicaset is not None else None
    starts = [
        started
        for group in ("initContainerStatuses", "containerStatuses")
        for container in status.get(group) or []
        if (started := (container.get("state", {}).get("running") or {}).get("startedAt"))
    ]
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or []}
    return Pod(
        name=meta["name"],
        owner=(replicaset is not None and _controller(replicaset)) or owner,
        stamp=_annotation(item, STAMP),
        created=_time(item),
        started=max(map(datetime.fromisoformat, starts), default=None),
        ready=conditions.get("Ready") == "True",
        terminating="deletionTimestamp" in meta,
        revision=template.revision if template is not None else None,
    )


def _controller(item: dict[str, Any]) -> tuple[str, str] | None:
    for owner in item["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return None


def _annotation(item: dict[str, Any], key: str) -> str | None:
    """An annotation of an object, or of a pod template, which need not have metadata."""
    found: str | None = ((item.get("metadata") or {}).get("annotations") or {}).get(key)
    return found


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _time(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["metadata"]["creationTimestamp"])
