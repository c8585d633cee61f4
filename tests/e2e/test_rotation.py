"""A rotation at a Staged provider from end to end, judged by traffic."""

from __future__ import annotations

from tests.e2e.scene import Scene


def test_rotates_without_a_refused_call_and_revokes_last(scene: Scene) -> None:
    """I3, I4, I7: three replicas, zero refused calls, one restart, the old value dead afterwards, nothing left over."""
    scene.put_deployment()
    scene.operator()
    scene.put_rotation()
    scene.wait_ended()

    value = scene.secret()["CLIENT_SECRET"]
    assert value != scene.first_secret
    assert scene.secret()["OTHER"] == "untouched"
    assert scene.account.simulator.accepts(scene.client_id, value)
    assert not scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert scene.calls()["refused"] == 0
    assert scene.calls()["accepted"] > 0
    assert scene.restarts() == 1
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    assert len(scene.events()) <= 4
