"""Taken back on the user's word, at any moment up to the soak; and what comes after a cancelled rotation.

What fails by itself is in test_never_ready.py, and what is held until a person decides in test_hold.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled, assert_completed
from tests.e2e.scene import Scene
from tests.e2e.together import Together

_WHEN_STAMPED: Final = "sandbox.keyturn.dev/behavior-when-stamped"
_SLOWLY: Final = {"sandbox.keyturn.dev/terminate-after": "2s"}
_NEVER_READY: Final = {**_SLOWLY, _WHEN_STAMPED: "never-ready"}


@pytest.fixture(scope="module")
def scenes(stage: Stage) -> Iterator[dict[str, Scene]]:
    """By the phase in which each is cancelled, and two that are not."""
    with Together.on(stage, "cancel") as together:
        scenes = {phase: together.scene(f"cancel {phase}") for phase in ("Verifying", "RollingOut", "Soaking")}
        scenes["suspended"] = together.scene("suspended")
        scenes["janrain"] = together.scene("cancel janrain", "janrain")
        for name, scene in scenes.items():
            behaviour = _NEVER_READY if name in ("RollingOut", "janrain") else _SLOWLY
            scene.put_deployment(replicas=2, annotations=behaviour, wait=False)
        for scene in scenes.values():
            scene.wait_available("web", 2)
        for name in ("Verifying", "suspended"):
            scenes[name].account.simulator.switches.propagation_delay = 600
        together.start_operator()
        for scene in scenes.values():
            scene.put_rotation(soak="1h" if scene is scenes["Soaking"] else "0s")
        yield scenes


def change(scene: Scene, **spec: Any) -> None:
    """What a user does with kubectl edit."""
    scene.patch(scene.rotation_path, {"spec": spec})


def say_cancel(scene: Scene) -> None:
    """What a user does with kubectl annotate."""
    running = scene.status()["rotation"]["id"]
    scene.patch(scene.rotation_path, {"metadata": {"annotations": {"keyturn.dev/cancel": running}}})


def test_where_no_way_leads_back_the_word_is_answered(scenes: dict[str, Scene]) -> None:
    """I3: Janrain takes nothing back; said, and the rotation goes forward."""
    scene = scenes["janrain"]
    scene.wait(scene.stamps, "the restart")
    say_cancel(scene)

    def answer() -> str:
        return str((scene.condition("Rotating") or {}).get("message"))

    scene.wait(lambda: "keyturn.dev/cancel: the provider cannot take the new value back" in answer(), "an answer")
    assert scene.status()["phase"] == "RollingOut"
    mended = {"spec": {"template": {"metadata": {"annotations": {_WHEN_STAMPED: None}}}}}
    scene.patch(scene.deployment_path(), mended)
    scene.wait_ended()
    assert len(scene.stamps()) == 1
    assert scene.calls()["refused"] == 0


@pytest.mark.parametrize(("phase", "restarts"), [("RollingOut", 2), ("Soaking", 2), ("Verifying", 0)])
def test_cancelled_by_the_user(scenes: dict[str, Scene], phase: str, restarts: int) -> None:
    """I3, I4, I7: what was restarted goes back, once; the new value dies when the last pod with it has ended."""
    scene = scenes[phase]
    scene.wait_phase(phase)
    if phase == "RollingOut":
        scene.wait(lambda: len({value for pod in scene.running() for value in pod.values}) == 2, "pods of both values")
    say_cancel(scene)
    assert_cancelled(scene, restarts=restarts)
    assert "keyturn.dev/cancel" in scene.status()["lastRotation"]["message"]
    cancelled = scene.account.simulator.counters[scene.client_id]["cancel"]["applied"].times[0]
    ends = [pod.stopped for pod in scene.traffic() if set(pod.values) - {fingerprint(scene.first_secret)}]
    assert bool(ends) is bool(restarts), "some pods ran on the new value"
    assert all(end is not None and end < cancelled for end in ends)


def test_a_cancelled_rotation_can_be_asked_for_again(scenes: dict[str, Scene]) -> None:
    """I10: the next request rotates; the word that is still on the object was meant for the one before it."""
    scene = scenes["Verifying"]
    scene.wait_phase("Verifying", "Cancelled")
    if scene.status()["phase"] == "Verifying":
        say_cancel(scene)
    scene.wait_ended("Cancelled")
    scene.account.simulator.switches.propagation_delay = 0
    change(scene, rotationRequest="b")
    scene.wait_ended("Completed")
    assert [past["result"] for past in scene.status()["history"]] == ["Completed", "Cancelled"]
    assert "keyturn.dev/cancel" in scene.rotation()["metadata"]["annotations"]
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0


def test_suspend_in_the_middle_does_not_stop_a_rotation(scenes: dict[str, Scene]) -> None:
    """suspend holds back the next rotation; the one that runs ends."""
    scene = scenes["suspended"]
    scene.wait_phase("Verifying")
    change(scene, suspend=True)
    scene.account.simulator.advance(600)
    assert_completed(scene)
