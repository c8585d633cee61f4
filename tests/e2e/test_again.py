"""The same client is rotated again and again."""

from __future__ import annotations

from functools import partial

from tests.e2e.scene import Scene


def test_every_rotation_restarts_once_and_refuses_nothing(scene: Scene) -> None:
    """I3, I4, I7: what an earlier rotation left behind, in times and stamps, is never taken for a part of this one."""
    scene.put_deployment()
    scene.operator()
    for number, request in enumerate(["first", "second", "third"], start=1):
        scene.put_rotation(request)
        scene.wait(partial(_handled, scene, request), f"rotation {request} has ended")
        assert scene.restarts() == number
        assert scene.calls()["refused"] == 0
        _let_calls_be_made(scene)


def _handled(scene: Scene, request: str) -> bool:
    """Whether the rotation has ended well, and was cleaned up after."""
    last = scene.status().get("lastRotation") or {}
    clean = not scene.rotation()["metadata"].get("finalizers")
    return clean and (last.get("request"), last.get("result")) == (request, "Completed")


def _let_calls_be_made(scene: Scene) -> None:
    """Until the pods have called for two seconds or so: times of Kubernetes have a resolution of one."""
    wanted = scene.calls()["accepted"] + 30
    scene.wait(lambda: sum(scene.calls().values()) >= wanted, "pods go on calling")
    assert scene.calls()["refused"] == 0
