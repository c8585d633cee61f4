"""What is seen of a rotation from outside: its status as the API server sends it, its Events, and its pods' calls."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from keyturn.api.rotation import Phase
from sandbox.kubelet.api import API
from sandbox.traffic.clients import Meter
from sandbox.traffic.report import PodTraffic

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


@dataclass
class Observed:
    """Filled by watches on the stage's event loop, read by whoever shows it.

    per_second: accepted and refused calls in each second of `sample`.
    """

    namespace: str
    name: str
    meter: Meter
    applied: float | None = None
    status: dict[str, Any] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    per_second: list[tuple[int, int]] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def follow(self, api: API) -> list[asyncio.Task[None]]:
        """Begin to watch, on the running event loop; ends when the tasks are cancelled."""
        return [asyncio.create_task(self._watch_rotation(api)), asyncio.create_task(self._watch_events(api))]

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
    def rolled_out(self) -> bool:
        """Whether the status says that every workload runs on the new value; the targets are gone by then."""
        found = [item["status"] for item in self.status.get("conditions", []) if item["type"] == "RolloutComplete"]
        return self.phase is Phase.COMPLETED and found == ["True"]

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

    async def _watch_rotation(self, api: API) -> None:
        path = f"/apis/keyturn.dev/v1alpha1/namespaces/{self.namespace}/clientsecretrotations"
        async for kind, obj in api.watch(path):
            for item in obj["items"] if kind == "LISTED" else [obj]:
                if item["metadata"]["name"] == self.name:
                    self._see(item)

    def _see(self, rotation: dict[str, Any]) -> None:
        self.finalizers = rotation["metadata"].get("finalizers") or []
        self.status = rotation.get("status") or {}
        if targets := (self.status.get("rotation") or {}).get("targets"):
            self.targets = targets
        fingerprint = self.status.get("secretFingerprint")
        if fingerprint and fingerprint not in self.fingerprints[-1:]:
            self.fingerprints.append(fingerprint)
        if (phase := self.status.get("phase")) and phase != self.phase:
            self.passages.append(Passage(Phase(phase), time.monotonic()))

    async def _watch_events(self, api: API) -> None:
        async for kind, obj in api.watch(f"/api/v1/namespaces/{self.namespace}/events"):
            for item in obj["items"] if kind == "LISTED" else [obj]:
                about = item["involvedObject"]
                if (about["kind"], about["name"]) == ("ClientSecretRotation", self.name):
                    when = (item.get("lastTimestamp") or item["metadata"]["creationTimestamp"])[11:19]
                    told = Told(when, item["type"] != "Normal", item["reason"], item.get("message", ""))
                    if told not in self.events:
                        self.events.append(told)
