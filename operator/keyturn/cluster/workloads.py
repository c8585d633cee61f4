"""The workloads and pods of one namespace: read, and restarted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from keyturn.api.base import GROUP
from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.cluster.client import Kube
from keyturn.cluster.references import reads_secret
from keyturn.cluster.resources import DEPLOYMENTS

STAMP: Final = f"{GROUP}/rotation"
_REVISION: Final = "deployment.kubernetes.io/revision"
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


def consumers_of(namespace: Namespace, secret: str) -> Consumers:
    """Everything in the namespace that reads the Secret: by its template, or because one of its pods does."""
    parents = {
        ("ReplicaSet", _name(item)): owner for item in namespace.replicasets if (owner := _controller(item)) is not None
    }
    pods = tuple(
        _pod(item, parents)
        for item in namespace.pods
        if reads_secret(item["spec"], secret) and (item.get("status") or {}).get("phase") not in _ENDED
    )
    owners = {pod.owner for pod in pods}
    templates = {
        (owner[1], (item["metadata"].get("annotations") or {}).get(_REVISION)): _time(item)
        for item in namespace.replicasets
        if (owner := _controller(item)) is not None
    }
    workloads = tuple(
        _deployment(item, templates)
        for item in namespace.deployments
        if reads_secret(item["spec"]["template"]["spec"], secret) or (DEPLOYMENTS.kind, _name(item)) in owners
    )
    return Consumers(workloads=workloads, pods=pods)


def _deployment(item: dict[str, Any], templates: dict[tuple[str, str | None], datetime]) -> Workload:
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
    template_meta = spec["template"].get("metadata") or {}
    return Workload(
        kind=DEPLOYMENTS.kind,
        name=_name(item),
        restartable=True,
        stamp=(template_meta.get("annotations") or {}).get(STAMP),
        desired=desired,
        observed=observed,
        template_time=templates.get((_name(item), (meta.get("annotations") or {}).get(_REVISION))),
        settled=observed and exact,
        failure=failures[0] if failures and observed else None,
        paused=bool(spec.get("paused")),
    )


def _pod(item: dict[str, Any], parents: dict[tuple[str, str], tuple[str, str]]) -> Pod:
    meta, status = item["metadata"], item.get("status") or {}
    owner = _controller(item) or ("Pod", meta["name"])
    starts = [
        started
        for group in ("initContainerStatuses", "containerStatuses")
        for container in status.get(group) or []
        if (started := (container.get("state", {}).get("running") or {}).get("startedAt"))
    ]
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or []}
    return Pod(
        name=meta["name"],
        owner=parents.get(owner, owner),
        stamp=(meta.get("annotations") or {}).get(STAMP),
        created=_time(item),
        started=max(map(datetime.fromisoformat, starts), default=None),
        ready=conditions.get("Ready") == "True",
        terminating="deletionTimestamp" in meta,
    )


def _controller(item: dict[str, Any]) -> tuple[str, str] | None:
    for owner in item["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return None


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _time(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["metadata"]["creationTimestamp"])
