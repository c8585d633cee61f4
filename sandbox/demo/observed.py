"""What is seen of a rotation from outside: its status, its Events, its Secret and its pods, as the API server sends

them, and the calls that the pods make.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from keyturn.api.rotation import Phase
from sandbox.kubelet.api import API
from sandbox.traffic.clients import Meter
from sandbox.traffic.report import PodTraffic, fingerprint

ENDS: Final = frozenset({Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED})


@dataclass(frozen=True, slots=True)
class Passage:
    """A phase that the status showed, from the moment (time.monotonic) when that was seen."""

    phase: Phase
    entered: float


@dataclass(frozen=True, slots=True)
class Told:
    """An Event about the rotation."""

    time: str
    warning: bool
    reason: str
    message: str


@dataclass(slots=True)
class Tally:
    """Calls by their end. Failed are those without a verdict: no connection, a timeout, a 5xx."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    pods: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a workload is. updated: its pods that run on the value that it is brought to. value: `new` or `old`."""

    name: str
    updated: int
    desired: int
    state: str
    value: str


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod that has called, or is about to. state: as Kubernetes says, or None when the pod is gone.

    value: `old` or `new`, by its newest call; empty before the first one.
    """

    name: str
    state: str | None
    value: str
    accepted: int
    refused: int


@dataclass
class Observed:
    """Filled by watches on the stage's event loop, read by whoever shows it.

    secret: the name of the Secret whose values are noted in `values`, oldest first. per_second: accepted and refused
    calls in each second of `sample`. states: of the pods that exist.
    """

    namespace: str
    name: str
    secret: str
    meter: Meter
    applied: float | None = None
    status: dict[str, Any] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    per_second: list[tuple[int, int]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    values: list[str] = field(default_factory=list, repr=False)
    states: dict[str, str] = field(default_factory=dict)

    def follow(self, api: API) -> list[asyncio.Task[None]]:
        """Begin to watch, on the running event loop; ends when the tasks are cancelled."""
        core, ours = f"/api/v1/namespaces/{self.namespace}", f"/apis/keyturn.dev/v1alpha1/namespaces/{self.namespace}"
        seen = {
            f"{ours}/clientsecretrotations": self._see_rotation,
            f"{core}/events": self._see_event,
            f"{core}/secrets": self._see_secret,
            f"{core}/pods": self._see_pod,
        }
        return [asyncio.create_task(_watch(api, path, see)) for path, see in seen.items()]

    @property
    def phase(self) -> Phase:
        """The phase seen last."""
        return self.passages[-1].phase if self.passages else Phase.IDLE

    @property
    def over(self) -> bool:
        """Whether the rotation has ended, or goes on only when a person decides."""
        return self.phase is Phase.BLOCKED or (self.phase in ENDS and not self.finalizers)

    @property
    def seconds(self) -> float:
        """From the moment the rotation was applied until it ended, or until now."""
        if self.applied is None:
            return 0.0
        last = self.passages[-1].entered if self.passages and self.phase in ENDS else time.monotonic()
        return last - self.applied

    @property
    def going_back(self) -> bool:
        """Whether the workloads are brought back to the value of before."""
        return self.phase in (Phase.CANCELLING, Phase.CANCELLED)

    def progress(self) -> list[Progress]:
        """The workloads as the status showed them last; at an end that says that all are ready, as that says."""
        found = [item["status"] for item in self.status.get("conditions", []) if item["type"] == "RolloutComplete"]
        # A cancellation waits for its rollout, unless that takes longer than we would watch it.
        ready = self.phase is Phase.CANCELLED or (self.phase is Phase.COMPLETED and found == ["True"])
        return [
            Progress(
                f"{target['kind']}/{target['name']}",
                target.get("desired", 0) if ready else target.get("updated", 0),
                target.get("desired", 0),
                "Ready" if ready else target["state"],
                "old" if self.going_back else "new",
            )
            for target in list(self.targets)
        ]

    def durations(self) -> list[tuple[Phase, float]]:
        """The phases seen so far and how long each was shown; not the end, which lasts."""
        until = [passage.entered for passage in self.passages[1:]] + [time.monotonic()] * bool(self.passages)
        return [
            (passage.phase, end - passage.entered)
            for passage, end in zip(self.passages, until, strict=True)
            if passage.phase not in ENDS
        ]

    def pods(self) -> list[PodTraffic]:
        """What each pod in the namespace has called until now."""
        return [pod for pod in self.meter.pods if pod.namespace == self.namespace]

    def pods_seen(self) -> list[PodSeen]:
        """All pods so far, one by one, in the order in which they started to call; those that have not, last."""
        runs: dict[str, list[PodTraffic]] = {}
        for run in self.pods():
            runs.setdefault(run.pod, []).append(run)
        states = dict(self.states)
        waiting = [PodSeen(name, state, "", 0, 0) for name, state in sorted(states.items()) if name not in runs]
        return [self._pod_seen(name, states.get(name), found) for name, found in runs.items()] + waiting

    def _pod_seen(self, name: str, state: str | None, runs: list[PodTraffic]) -> PodSeen:
        """runs: of its containers, oldest first."""
        used = [value for run in runs for value in run.values]
        value = ("old" if used[-1] == fingerprint(self.values[0]) else "new") if used and self.values else ""
        accepted, refused = (
            sum(run.calls.accepted.count for run in runs),
            sum(run.calls.refused.count for run in runs),
        )
        return PodSeen(name, state, value, accepted, refused)

    def calls(self) -> Tally:
        """All calls of the pods in the namespace until now."""
        pods = self.pods()
        return Tally(
            sum(pod.calls.accepted.count for pod in pods),
            sum(pod.calls.refused.count for pod in pods),
            sum(pod.calls.failed.count for pod in pods),
            len(pods),
        )

    def sample(self, before: Tally) -> Tally:
        """Close a second: note the calls since the tally of the one before."""
        now = self.calls()
        self.per_second.append((now.accepted - before.accepted, now.refused - before.refused))
        return now

    def problems(self) -> list[str]:
        """Why the count of calls would not be worth anything."""
        return [problem for problem in self.meter.problems if f"{self.namespace}/" in problem]

    def _see_rotation(self, kind: str, rotation: dict[str, Any]) -> None:
        if rotation["metadata"]["name"] != self.name or kind == "DELETED":
            return
        self.finalizers = rotation["metadata"].get("finalizers") or []
        self.status = rotation.get("status") or {}
        if targets := (self.status.get("rotation") or {}).get("targets"):
            self.targets = targets
        if (phase := self.status.get("phase")) and phase != self.phase:
            self.passages.append(Passage(Phase(phase), time.monotonic()))

    def _see_event(self, _: str, event: dict[str, Any]) -> None:
        about = event["involvedObject"]
        if (about["kind"], about["name"]) == ("ClientSecretRotation", self.name):
            when = (event.get("lastTimestamp") or event["metadata"]["creationTimestamp"])[11:19]
            told = Told(when, event["type"] != "Normal", event["reason"], event.get("message", ""))
            if told not in self.events:
                self.events.append(told)

    def _see_secret(self, kind: str, secret: dict[str, Any]) -> None:
        if secret["metadata"]["name"] == self.secret and kind != "DELETED":
            value = base64.b64decode((secret.get("data") or {}).get("CLIENT_SECRET", "")).decode()
            if value not in self.values[-1:]:
                self.values.append(value)

    def _see_pod(self, kind: str, pod: dict[str, Any]) -> None:
        if kind == "DELETED":
            self.states.pop(pod["metadata"]["name"], None)
        else:
            self.states[pod["metadata"]["name"]] = _state(pod)


async def _watch(api: API, path: str, see: Callable[[str, dict[str, Any]], None]) -> None:
    """Say of every object what the watch says of it, endlessly."""
    async for kind, obj in api.watch(path):
        for item in obj["items"] if kind == "LISTED" else [obj]:
            see(kind, item)


def _state(pod: dict[str, Any]) -> str:
    """A pod's state in a word, as `kubectl get pods` has it."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    waiting = [item["state"]["waiting"]["reason"] for item in containers if "waiting" in item["state"]]
    if waiting:
        return str(waiting[0])
    return "Ready" if containers and all(item["ready"] for item in containers) else str(status.get("phase", "Pending"))
