"""The status of a Rollout. Pure; the facts are argoproj/argo-rollouts', the functions name the file that has them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sandbox.argo.desired import HASH, Obj, same_time

TIMED_OUT = "ProgressDeadlineExceeded"


@dataclass(frozen=True)
class Seen:
    """What the controller has found and done in one pass.

    rollout: as it was read, with `template` and `selector` resolved. current: the hash of its template. owned: its
    ReplicaSets. restarted_at: what status.restartedAt is to be. workload_generation: of the workload that it refers to.
    """

    rollout: Obj
    current: str
    owned: list[Obj]
    restarted_at: str | None
    workload_generation: str | None
    now: datetime


def of(seen: Seen) -> Obj:
    """A complete status; None where a field is to be absent, as Go leaves out what is 0 (rollout/sync.go)."""
    spec, before = seen.rollout["spec"], seen.rollout.get("status") or {}
    new = [each for each in seen.owned if _hash(each) == seen.current]
    counts = {
        "replicas": _sum(seen.owned, "replicas"),
        "HPAReplicas": _sum(seen.owned, "replicas"),
        "updatedReplicas": _sum(new, "replicas"),
        "readyReplicas": _sum(seen.owned, "readyReplicas"),
        "availableReplicas": _sum(seen.owned, "availableReplicas"),
    }
    stable = before.get("stableRS")
    promoted = _sum(new, "availableReplicas") == spec["replicas"]
    if promoted or all(_hash(each) != stable for each in seen.owned):
        stable = seen.current
    after: Obj = {
        **counts,
        "currentPodHash": seen.current,
        "stableRS": stable,
        "restartedAt": seen.restarted_at,
        "selector": ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items()),
        "workloadObservedGeneration": seen.workload_generation,
        "blueGreen": {},
        "canary": {},
    }
    after["conditions"] = _conditions(seen, after)
    return {key: None if value == 0 else value for key, value in _finished(seen.rollout, after).items()}


def invalid(rollout: Obj, why: str, now: datetime) -> Obj:
    """The status of a Rollout that can't be carried out (rollout/controller.go, createInvalidRolloutCondition)."""
    message = f'The Rollout "{rollout["metadata"]["name"]}" is invalid: {why}'
    before = rollout.get("status") or {}
    others = [condition for condition in before.get("conditions") or [] if condition["type"] != "InvalidSpec"]
    condition = _condition(before, "InvalidSpec", "True", "InvalidSpec", message, now)
    return _finished(rollout, {**before, "conditions": [*others, {**condition, "message": message}]})


def deadline(rollout: Obj, after: Obj, now: datetime) -> float | None:
    """In how many seconds the lack of progress will have lasted too long; None when progress is not expected."""
    progressing = _find(after, "Progressing")
    if progressing is None or progressing["reason"] in ("NewReplicaSetAvailable", "RolloutPaused", TIMED_OUT):
        return None
    return (_due(rollout, progressing) - now).total_seconds()


def _finished(rollout: Obj, after: Obj) -> Obj:
    phase, message = _phase(rollout["spec"], after)
    generation = str(rollout["metadata"]["generation"])
    return {**after, "observedGeneration": generation, "phase": phase, "message": message or None}


def _phase(spec: Obj, after: Obj) -> tuple[str, str]:
    """utils/rollout/rolloututil.go, CalculateRolloutPhase."""
    for condition in after["conditions"]:
        if condition["type"] == "InvalidSpec" or condition["reason"] == TIMED_OUT:
            return "Degraded", f"{condition['reason']}: {condition['message']}"
    if spec.get("paused"):
        return "Paused", "manually paused"
    if spec.get("restartAt") and not same_time(spec["restartAt"], after["restartedAt"]):
        return "Progressing", "rollout is restarting"
    if after["updatedReplicas"] < spec["replicas"]:
        return "Progressing", "more replicas need to be updated"
    if after["availableReplicas"] < after["updatedReplicas"]:
        return "Progressing", "updated replicas are still becoming available"
    if after["replicas"] > after["updatedReplicas"]:
        return "Progressing", "old replicas are pending termination"
    if after["stableRS"] != after["currentPodHash"]:
        return "Progressing", "waiting for all steps to complete"
    return "Healthy", ""


def _conditions(seen: Seen, after: Obj) -> list[Obj]:
    """rollout/sync.go, checkPausedConditions and calculateRolloutConditions; messages: utils/conditions."""
    spec, before = seen.rollout["spec"], seen.rollout.get("status") or {}
    replicas, paused = spec["replicas"], bool(spec.get("paused"))
    counted = after["updatedReplicas"] == after["availableReplicas"] == after["replicas"] == replicas
    complete = after["stableRS"] == after["currentPodHash"]
    healthy = counted and complete and not paused
    available = after["availableReplicas"] >= replicas

    def condition(kind: str, true: bool, reason: str, message: str) -> Obj:
        return _condition(before, kind, "True" if true else "False", reason, message, seen.now)

    has = "has" if available else "does not have"
    result = [
        condition("Available", available, "AvailableReason", f"Rollout {has} minimum availability"),
        condition("Completed", complete, "RolloutCompleted", "RolloutCompleted"),
        _progressing(seen, after, healthy=healthy),
    ]
    if healthy or _find(before, "Healthy"):
        message = "Rollout is healthy" if healthy else "Rollout is not healthy"
        result.append(condition("Healthy", healthy, "RolloutHealthy", message))
    if paused or _find(before, "Paused"):
        result.append(condition("Paused", paused, "RolloutPaused", "Rollout is paused"))
    return result


def _progressing(seen: Seen, after: Obj, *, healthy: bool) -> Obj:
    before = seen.rollout.get("status") or {}
    old = _find(before, "Progressing")
    name = f'ReplicaSet "{seen.rollout["metadata"]["name"]}-{seen.current}"'

    def condition(status: str, reason: str, message: str) -> Obj:
        return _condition(before, "Progressing", status, reason, message, seen.now)

    if seen.rollout["spec"].get("paused"):
        return condition("Unknown", "RolloutPaused", "Rollout is paused")
    if healthy:
        return condition("True", "NewReplicaSetAvailable", f"{name} has successfully progressed.")
    if old is None or old["reason"] == "RolloutPaused" or _progressed(before, after) or _was_healthy(before):
        progress = condition("True", "ReplicaSetUpdated", f"{name} is progressing.")
        return {**progress, "lastUpdateTime": _text(seen.now)}
    if old["reason"] == TIMED_OUT or _due(seen.rollout, old) < seen.now:
        return condition("False", TIMED_OUT, f"{name} has timed out progressing.")
    return old


def _progressed(before: Obj, after: Obj) -> bool:
    """utils/conditions/conditions.go, RolloutProgressing."""

    def old(field: str) -> int:
        return int(before.get(field) or 0)

    signs = (
        after["updatedReplicas"] != old("updatedReplicas"),
        after["replicas"] - after["updatedReplicas"] < old("replicas") - old("updatedReplicas"),
        after["readyReplicas"] > old("readyReplicas"),
        after["availableReplicas"] > old("availableReplicas"),
        after["stableRS"] != before.get("stableRS"),
    )
    return any(signs)


def _was_healthy(before: Obj) -> bool:
    healthy = _find(before, "Healthy")
    return healthy is not None and healthy["status"] == "True"


def _due(rollout: Obj, progressing: Obj) -> datetime:
    allowed = rollout["spec"].get("progressDeadlineSeconds", 600)
    return datetime.fromisoformat(progressing["lastUpdateTime"]) + timedelta(seconds=allowed)


def _condition(before: Obj, kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    """The old condition where status and reason are the same (utils/conditions, SetRolloutCondition)."""
    old = _find(before, kind)
    if old and (old["status"], old["reason"]) == (status, reason):
        return old
    since = old["lastTransitionTime"] if old and old["status"] == status else _text(now)
    made = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**made, "lastUpdateTime": _text(now), "lastTransitionTime": since}


def _find(status: Obj, kind: str) -> Obj | None:
    return next((each for each in status.get("conditions") or [] if each["type"] == kind), None)


def _hash(replicaset: Obj) -> Any:
    return replicaset["metadata"]["labels"].get(HASH)


def _sum(replicasets: list[Obj], field: str) -> int:
    return sum(int((each.get("status") or {}).get(field, 0)) for each in replicasets)


def _text(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
