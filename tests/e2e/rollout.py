"""What tests of rollouts ask: where a workload stands, and what had ended before the old value was dropped."""

from __future__ import annotations

from typing import Any

from sandbox.traffic.report import fingerprint
from tests.e2e.scene import Scene


def target(scene: Scene, name: str = "web") -> dict[str, Any]:
    targets = (scene.status().get("rotation") or {}).get("targets", [])
    return next((found for found in targets if found["name"] == name), {})


def wait_target(scene: Scene, state: str, name: str = "web") -> None:
    scene.wait(lambda: target(scene, name).get("state") == state, f"{name} is {state}")


def dropped(scene: Scene) -> float:
    """When the provider dropped the old value."""
    return float(scene.account.simulator.counters[scene.client_id]["rotate"]["applied"].times[0])


def assert_dropped_last(scene: Scene) -> None:
    """I4: every pod that called with the old value had ended before the provider dropped it."""
    ends = [pod.stopped for pod in scene.traffic() if fingerprint(scene.first_secret) in pod.values]
    assert ends
    assert all(end is not None and end < dropped(scene) for end in ends)
