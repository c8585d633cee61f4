"""What a Rollout's controller wants: how many pods of which template, and which pods are to be restarted. Pure.

The facts are argoproj/argo-rollouts'; the functions name the file that has them.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

GROUP_VERSION: Final = "argoproj.io/v1alpha1"
HASH: Final = "rollouts-pod-template-hash"
"""Label of ReplicaSets and their pods (pkg/apis/rollouts/v1alpha1/types.go, DefaultRolloutUniqueLabelKey)."""

Obj = dict[str, Any]


class InvalidSpec(Exception):
    """The Rollout can't be carried out; the message says why."""


@dataclass(frozen=True)
class Limits:
    """How many pods there may be too many, and too few, during an update or a restart."""

    surge: int
    unavailable: int


def template_hash(template: Obj) -> str:
    """A label value that is the same for equal templates. Upstream's hash has other digits (utils/hash/hash.go)."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def limits(spec: Obj) -> Limits:
    """spec.strategy.canary's maxSurge and maxUnavailable, 25% each by default (utils/defaults/defaults.go).

    As for Deployments, the first is rounded up and the second down, and both can't be 0.
    """
    canary = spec["strategy"]["canary"] or {}
    surge = _count(canary.get("maxSurge", "25%"), spec["replicas"], math.ceil)
    unavailable = _count(canary.get("maxUnavailable", "25%"), spec["replicas"], math.floor)
    return Limits(surge, unavailable if surge or unavailable else 1)


def check(spec: Obj) -> None:
    """Raises InvalidSpec for what can't be carried out, here or anywhere."""
    canary = (spec.get("strategy") or {}).get("canary", "missing")
    if canary == "missing" or any((canary or {}).get(field) for field in ("steps", "trafficRouting", "analysis")):
        raise InvalidSpec("the sandbox's stand-in knows only spec.strategy.canary without steps")
    for field, found in (
        ("selector", (spec.get("selector") or {}).get("matchLabels")),
        ("template", spec.get("template")),
    ):
        if not found:
            raise InvalidSpec(f"Rollout has missing field '.spec.{field}'")


def replicaset(rollout: Obj, current: str) -> Obj:
    """The ReplicaSet of the template with the hash `current`, with no pods yet (rollout/sync.go)."""
    meta, spec = rollout["metadata"], rollout["spec"]
    template_meta = spec["template"].get("metadata") or {}
    labels = {**(template_meta.get("labels") or {}), HASH: current}
    owner = {"apiVersion": GROUP_VERSION, "kind": "Rollout", "name": meta["name"], "uid": meta["uid"]}
    return {
        "metadata": {
            "name": f"{meta['name']}-{current}",
            "labels": labels,
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": {"matchLabels": {**spec["selector"]["matchLabels"], HASH: current}},
            "template": {**spec["template"], "metadata": {**template_meta, "labels": labels}},
        },
    }


def scales(spec: Obj, new: Obj, old: Iterable[Obj]) -> list[tuple[Obj, int]]:
    """The replicas that each ReplicaSet should have now, within the limits: of `new` up, of `old` down.

    This is a canary update without steps (utils/replicaset/canary.go, CalculateReplicaCountsForBasicCanary).
    """
    old, replicas, limit = list(old), spec["replicas"], limits(spec)
    free = replicas + limit.surge - sum(_wanted(each) for each in (new, *old))
    new_replicas = min(replicas, _wanted(new) + max(0, free))
    spare = sum(_available(each) for each in (new, *old)) - (replicas - limit.unavailable)
    result = []
    for each in old:
        ends = min(_available(each), max(0, spare))
        spare -= ends
        result.append((each, _available(each) - ends))  # those that are not available go at once
    return [*result, (new, new_replicas)]


def needs_restart(spec: Obj, restarted_at: str | None, now: datetime) -> bool:
    """spec.restartAt has come and was not yet carried out (utils/replicaset/replicaset.go, NeedsRestart)."""
    wished = spec.get("restartAt")
    if not wished or same_time(wished, restarted_at):
        return False
    return now > datetime.fromisoformat(wished)


def to_restart(spec: Obj, owned: Iterable[Obj], pods: list[Obj], now: datetime) -> tuple[list[Obj], int]:
    """The pods that may be evicted now, and how many pods are older than spec.restartAt, those being deleted included.

    As many at a time as leave maxUnavailable fewer than desired available, and one in any case; a pod created in the
    very second of restartAt is new enough (rollout/restart.go, RolloutPodRestarter.Reconcile).
    """
    desired = max(spec["replicas"], sum(_wanted(each) for each in owned))
    available = sum(_is_available(pod, spec.get("minReadySeconds") or 0, now) for pod in pods)
    allowed = available - (desired - max(limits(spec).unavailable, 1))
    wished = datetime.fromisoformat(spec["restartAt"])
    due = [pod for pod in pods if datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) < wished]
    free = [pod for pod in due if not pod["metadata"].get("deletionTimestamp")]
    return free[: max(0, allowed)], len(due)


def same_time(one: str | None, other: str | None) -> bool:
    """Whether two times, as the API writes them, are the same moment; None is none."""
    if one is None or other is None:
        return one is other
    return datetime.fromisoformat(one) == datetime.fromisoformat(other)


def _count(value: int | str, replicas: int, rounded: Any) -> int:
    if isinstance(value, int):
        return value
    # Percent, also where the sign is missing: upstream's own default is "25".
    return int(rounded(int(value.removesuffix("%")) * replicas / 100))


def _wanted(replicaset: Obj) -> int:
    return int(replicaset["spec"]["replicas"])


def _available(replicaset: Obj) -> int:
    """Those that are to go already don't count."""
    return min(_wanted(replicaset), int(replicaset.get("status", {}).get("availableReplicas", 0)))


def _is_available(pod: Obj, min_ready_seconds: int, now: datetime) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    ready = next((c for c in pod.get("status", {}).get("conditions") or [] if c["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return False
    return datetime.fromisoformat(ready["lastTransitionTime"]) + timedelta(seconds=min_ready_seconds) <= now
