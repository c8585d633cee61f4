"""Several rotations in the namespace of one scene, each with a client and a Secret of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sandbox.simulators.base import Call
from tests.e2e.scene import Scene


@dataclass(frozen=True)
class One:
    """A rotation and its client; the Secret has the name of the rotation."""

    scene: Scene
    name: str
    client_id: str
    first_secret: str

    @property
    def path(self) -> str:
        return f"{self.scene.rotation_path.rpartition('/')[0]}/{self.name}"

    def status(self) -> dict[str, Any]:
        return (self.scene.get(self.path) or {}).get("status") or {}

    def reasons(self) -> set[str]:
        return {condition["reason"] for condition in self.status().get("conditions", [])}

    def applied(self, operation: str) -> list[float]:
        """When the provider carried the operation out."""
        events = self.scene.account.simulator.counters.get(self.client_id, {}).get(operation, {})
        return list(events["applied"].times) if "applied" in events else []


def put_many(scene: Scene, count: int, prefix: str = "r", *, request: str | None = "a", **spec: Any) -> list[One]:
    """Rotations `<prefix>0` and so on, as `Scene.put_rotation` makes them, with clients of the scene's account."""
    made = []
    for number in range(count):
        client = scene.account.simulator.create({})
        one = One(scene, f"{prefix}{number}", client["client_id"], client["client_secret"])
        scene.put_secret(one.name, {"CLIENT_SECRET": one.first_secret})
        ref = {"name": one.name, "key": "CLIENT_SECRET"}
        scene.put_rotation(request, name=one.name, clientId=one.client_id, secretRef=ref, **spec)
        made.append(one)
    return made


def completed(one: One) -> bool:
    return one.status().get("phase") == "Completed"


def wait_completed(ones: list[One], seconds: float = 90) -> None:
    """Until each has ended well, exactly one rotation each."""
    scene = ones[0].scene
    for one in ones:
        scene.wait(partial(completed, one), f"{one.name} is Completed", seconds)
        assert len(one.applied("start")) == 1, one.name


def operator_calls(scene: Scene) -> list[Call]:
    """All calls of operators to the scene's provider, in the order in which they came."""
    recorded = [call for calls in scene.account.simulator.calls.values() for call in calls]
    ours = [call for call in recorded if (call.header("User-Agent") or "").startswith("keyturn")]
    return sorted(ours, key=lambda call: call.time)
