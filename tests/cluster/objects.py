"""Objects as the API server returns them, made by hand, and what Keyturn sees in a namespace that holds them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.family import Family
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import STAMP
from keyturn.cluster.workloads import consumers_of

READER = {"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "app"}}]}]}
STRANGER = {"containers": [{"name": "app"}]}
CREATED = "2026-03-01T12:00:00Z"
LATER = "2026-03-01T12:05:00Z"
_GROUPS = {"Job": "batch/v1", "CronJob": "batch/v1", "Rollout": "argoproj.io/v1alpha1"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def owned(kind: str, name: str, *, controller: bool = True, group: str | None = None) -> list[dict[str, Any]]:
    """The owner references of what this object controls. Objects made here have their names as uid."""
    version = group or _GROUPS.get(kind, "apps/v1")
    return [{"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": controller}]


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uid": name, "namespace": "ns", "creationTimestamp": CREATED, "generation": 1, **more}


def template(spec: dict[str, Any] = READER, stamp: str | None = None) -> dict[str, Any]:
    return {"metadata": {"annotations": {STAMP: stamp}} if stamp else {}, "spec": spec}


def deployment(
    spec: dict[str, Any] = READER,
    *,
    stamp: str | None = None,
    desired: int | None = 3,
    revision: str = "1",
    paused: bool = False,
    **status: Any,
) -> dict[str, Any]:
    """`web`, rolled out completely unless told otherwise."""
    whole = {
        "template": template(spec, stamp),
        "paused": paused,
        **({"replicas": desired} if desired is not None else {}),
    }
    count = 1 if desired is None else desired
    rolled_out = {"observedGeneration": 1, "replicas": count, "updatedReplicas": count, "availableReplicas": count}
    annotations = {"deployment.kubernetes.io/revision": revision}
    return {"metadata": meta("web", annotations=annotations), "spec": whole, "status": {**rolled_out, **status}}


def replicaset(
    name: str = "web-1", revision: str = "1", created: str = CREATED, owner: str = "web", **annotations: str
) -> dict[str, Any]:
    """Of a Deployment."""
    known = {"deployment.kubernetes.io/revision": revision, **annotations}
    metadata = meta(name, creationTimestamp=created, annotations=known, ownerReferences=owned("Deployment", owner))
    return {"metadata": metadata, "spec": {"template": {"metadata": {}}}}


def workload_of(
    spec: dict[str, Any], status: dict[str, Any] | None = None, name: str = "web", **more: Any
) -> dict[str, Any]:
    """Any workload, whose template reads the Secret unless `spec` has another."""
    return {"metadata": meta(name, **more), "spec": {"template": template(), **spec}, "status": status or {}}


def revision(
    name: str,
    number: int,
    *,
    stamp: str | None = None,
    created: str = CREATED,
    owner: str = "web",
    kind: str = "StatefulSet",
) -> dict[str, Any]:
    """A ControllerRevision."""
    metadata = meta(name, creationTimestamp=created, ownerReferences=owned(kind, owner))
    return {"metadata": metadata, "revision": number, "data": {"spec": {"template": template(stamp=stamp)}}}


def pod(
    name: str = "web-1-a", spec: dict[str, Any] = READER, *, owner: tuple[str, str] | None = None, **parts: Any
) -> dict[str, Any]:
    """A pod that runs."""
    references = {"ownerReferences": owned(*owner)} if owner else {}
    status = parts.pop("status", {"phase": "Running"})
    return {"metadata": meta(name, **references, **parts), "spec": spec, "status": status}


def ready(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


def seen(rollout: RolloutSpec | None = None, /, **objects: list[dict[str, Any]]) -> Consumers:
    """Who uses the Secret `app` in a namespace that holds these objects."""
    return consumers_of(Family(Namespace(**objects, versions={})), "app", rollout or RolloutSpec())


def only_workload(**objects: list[dict[str, Any]]) -> Workload:
    (found,) = seen(**objects).workloads
    return found


def only_pod(item: dict[str, Any], **objects: list[dict[str, Any]]) -> Pod:
    (found,) = seen(pods=[item], **objects).pods
    return found
