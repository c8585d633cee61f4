"""The `status` that a kubelet would show for a pod. Pure: the caller gives the time."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

NODE_NAME = "sandbox"
NODE_IP = "10.200.0.1"


@dataclass(frozen=True)
class Containers:
    """The state that all containers of a pod share, as far as the stand-in is concerned."""

    state: dict[str, Any]
    ready: bool = False
    restarts: int = 0
    last_state: dict[str, Any] | None = None


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The state of containers that don't run."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(started: str) -> dict[str, Any]:
    """The state of containers that run since `started`."""
    return {"running": {"startedAt": started}}


def terminated(started: str, finished: str, code: int) -> dict[str, Any]:
    """The state of containers that have ended with exit code `code`."""
    reason = "Completed" if code == 0 else "Error"
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": finished}}


def build(
    pod: dict[str, Any], phase: str, containers: Containers, *, address: str, bound: str, now: str
) -> dict[str, Any]:
    """A complete status of `pod`, to be merged over the one that it has.

    `address` is the pod's IP address (data only), `bound` and `now` are times as the API writes them. A condition keeps
    its lastTransitionTime as long as its status stays the same.
    """
    waits = "waiting" in containers.state and containers.restarts == 0
    initialized = not waits or not pod["spec"].get("initContainers")
    wanted = {
        "Initialized": (initialized, None if initialized else "ContainersNotInitialized"),
        "Ready": _readiness(phase, containers),
        "ContainersReady": _readiness(phase, containers),
        "PodScheduled": (True, None),
    }
    old = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions") or []}
    foreign = [condition for kind, condition in old.items() if kind not in wanted]
    conditions = [_condition(kind, *value, old.get(kind), now) for kind, value in wanted.items()]
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": conditions + foreign,
        "hostIP": NODE_IP,
        "startTime": bound,
        "containerStatuses": [_container(spec, containers) for spec in pod["spec"]["containers"]],
    }
    if not waits:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if pod["spec"].get("initContainers"):
        init = Containers(waiting("PodInitializing") if waits else terminated(bound, now, 0), ready=not waits)
        status["initContainerStatuses"] = [_container(spec, init) for spec in pod["spec"]["initContainers"]]
    return status


def ephemeral(pod: dict[str, Any], names: Collection[str], now: str) -> dict[str, Any]:
    """The part of a status that shows these ephemeral containers running; those that did so before stay as they are."""
    old = {status["name"]: status for status in (pod.get("status") or {}).get("ephemeralContainerStatuses") or []}
    containers = [spec for spec in pod["spec"]["ephemeralContainers"] if spec["name"] in names]
    statuses = [old.get(spec["name"]) or _container(spec, Containers(running(now))) for spec in containers]
    return {"ephemeralContainerStatuses": statuses}


def _readiness(phase: str, containers: Containers) -> tuple[bool, str | None]:
    if containers.ready:
        return True, None
    return False, {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")


def _condition(kind: str, true: bool, reason: str | None, old: dict[str, Any] | None, now: str) -> dict[str, Any]:
    status = "True" if true else "False"
    since = old["lastTransitionTime"] if old and old["status"] == status and old.get("lastTransitionTime") else now
    condition = {"type": kind, "status": status, "lastTransitionTime": since, "lastProbeTime": None}
    return {**condition, "reason": reason} if reason else condition


def _container(spec: dict[str, Any], containers: Containers) -> dict[str, Any]:
    return {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "imageID": "",
        "ready": containers.ready,
        "started": "running" in containers.state,
        "restartCount": containers.restarts,
        "state": containers.state,
        "lastState": containers.last_state or {},
    }
