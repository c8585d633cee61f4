"""The facts of a rotation that has ended, each asked of those who know it: API server, provider, pods."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from keyturn.api.rotation import Phase
from keyturn.api.semantics import Overlap
from sandbox.demo.acts import Client, Scene
from sandbox.demo.facts import CallFact, OverlapFact, PhaseFact, PutBackFact, RotationFact, window
from sandbox.demo.observed import Observed, Tally
from sandbox.stage import Stage


@dataclass(frozen=True)
class Part:
    """A scene with what it became on the stage. yaml: the rotation as a user writes it."""

    scene: Scene
    client: Client
    observed: Observed
    rotation: dict[str, Any]
    yaml: str
    workloads: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.scene.namespace}/{self.observed.name}"


@dataclass(frozen=True)
class OverlapEnd:
    """Whether the provider took the old value right before the end of its overlap, and the calls made until then."""

    accepted_within: bool
    before: Tally


def count(stage: Stage, part: Part, end: OverlapEnd | None = None) -> RotationFact:
    """All facts. end: of the overlap, where the old value lives on by itself."""
    observed, client = part.observed, part.client
    seconds, calls, switched = observed.seconds, observed.calls(), client.switched()
    immediate = part.scene.capabilities.overlap is Overlap.NONE
    refusals = window(observed.pods(), switched) if immediate and switched is not None else None
    old = stage.do(verdict(client, client.first_value))
    return RotationFact(
        name=observed.name,
        provider=part.scene.provider,
        semantics=part.scene.semantics,
        result=observed.phase,
        seconds=round(seconds, 3),
        phases=[PhaseFact(phase=phase, seconds=round(spent, 3)) for phase, spent in observed.durations()],
        calls=CallFact(accepted=calls.accepted, refused=calls.refused),
        old_value_refused=old is False,
        restarts={f"Deployment/{name}": number for name, number in _restarts(stage, part).items()},
        left_behind=_left_behind(stage, part),
        window_seconds=None if refusals is None else max((pod.last for pod in refusals), default=0.0),
        window=refusals,
        overlap=_overlap(part, end, calls) if end is not None else None,
        put_back=_put_back(stage, part, old) if part.scene.end is Phase.CANCELLED else None,
    )


async def verdict(client: Client, value: str) -> bool | None:
    """Whether the provider accepts a call with this value; None when its answer is unclear."""
    async with client.probe() as probe:
        return await probe.call(client.client_id, value)


def _overlap(part: Part, end: OverlapEnd, calls: Tally) -> OverlapFact:
    assert part.scene.overlap is not None
    after = CallFact(accepted=calls.accepted - end.before.accepted, refused=calls.refused - end.before.refused)
    hours = part.scene.overlap.total_seconds() / 3600
    return OverlapFact(hours=hours, accepted_within=end.accepted_within, calls_after=after)


def _put_back(stage: Stage, part: Part, old: bool | None) -> PutBackFact:
    """old: the provider's verdict on the old value."""
    client, values = part.client, part.observed.values
    issued = [value for value in values if value != client.first_value]
    return PutBackFact(
        reason=(part.observed.status.get("lastRotation") or {}).get("message", ""),
        secret_restored=values[-1:] == [client.first_value],
        old_value_accepted=old is True,
        # Without one there was no rotation, which is a fault of its own.
        new_value_refused=bool(issued) and stage.do(verdict(client, issued[-1])) is False,
    )


def _restarts(stage: Stage, part: Part) -> dict[str, int]:
    """How many pod templates each Deployment has had after its first one: each has left a ReplicaSet."""
    owners = Counter(
        owner["name"]
        for item in _listed(stage, f"/apis/apps/v1/namespaces/{part.scene.namespace}/replicasets")
        for owner in item["metadata"].get("ownerReferences") or []
    )
    return {name: owners[name] - 1 for name in (workload["metadata"]["name"] for workload in part.workloads)}


def _left_behind(stage: Stage, part: Part) -> list[str]:
    """What only a rotation that runs needs: a journal, a finalizer, its record in the status."""
    secrets = [
        f"Secret {item['metadata']['name']}"
        for item in _listed(stage, f"/api/v1/namespaces/{part.scene.namespace}/secrets")
        if item["metadata"]["name"] not in part.client.secrets and item["type"] != "kubernetes.io/service-account-token"
    ]
    finalizers = [f"finalizer {name}" for name in part.observed.finalizers]
    return secrets + finalizers + ["status.rotation"] * bool(part.observed.status.get("rotation"))


def _listed(stage: Stage, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = stage.api.http.get(path).raise_for_status().json()["items"]
    return items
