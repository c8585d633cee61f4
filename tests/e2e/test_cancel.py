"""When the new value or the rollout fails: back to where it was, or held until a person decides."""

from __future__ import annotations

from typing import Any, Final

from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled, assert_completed, begin_and_hold_verifying, let_verify
from tests.e2e.scene import Scene

_CANNOT_START: Final = {"sandbox.keyturn.dev/behavior-when-stamped": "never-ready"}


def change(scene: Scene, **spec: Any) -> None:
    """What a user does with kubectl edit."""
    scene.patch(scene.rotation_path, {"spec": spec})


def both_alive(scene: Scene) -> bool:
    client = scene.account.simulator.clients[scene.client_id]
    return client.current.value == scene.first_secret and client.pending is not None


def test_a_value_that_is_never_accepted_reaches_nobody(scene: Scene) -> None:
    """I3: the Secret is not touched, no workload restarts, the provider drops the new value."""
    scene.put_deployment(replicas=2)
    before = (scene.get(scene.secret_path) or {})["metadata"]["resourceVersion"]
    scene.account.simulator.switches.propagation_delay = 600
    scene.operator()
    scene.put_rotation(verify={"timeout": "1s"})
    assert_cancelled(scene, restarts=0)
    assert (scene.get(scene.secret_path) or {})["metadata"]["resourceVersion"] == before
    assert (scene.condition("Ready") or {})["status"] == "True"
    assert "did not accept the new value" in scene.status()["lastRotation"]["message"]


def test_a_rollout_that_fails_is_taken_back(scene: Scene) -> None:
    """I3, I4, I7: of two workloads one cannot start with the new value; both go back, once, then the value dies."""
    scene.put_deployment(replicas=2, annotations=_CANNOT_START, progress_deadline=1)
    scene.put_deployment("healthy", replicas=2)
    scene.operator()
    scene.put_rotation()
    assert_cancelled(scene, restarts=2)
    assert scene.restarts("healthy") == 2
    assert "Deployment/web" in scene.status()["lastRotation"]["message"]
    cancelled = scene.account.simulator.counters[scene.client_id]["cancel"]["applied"].times[0]
    scene.wait(lambda: len([pod for pod in scene.traffic() if not pod.stopped]) == 4, "only the new pods are left")
    ends = [pod.stopped for pod in scene.traffic() if set(pod.values) - {fingerprint(scene.first_secret)}]
    assert ends, "some pods ran on the new value"
    assert all(end is not None and end < cancelled for end in ends), "I4: they ended before it was withdrawn"


def test_a_cancelled_rotation_can_be_asked_for_again(scene: Scene) -> None:
    """I10: with the fault corrected, the next request rotates."""
    scene.put_deployment(replicas=1)
    scene.account.simulator.switches.propagation_delay = 600
    scene.operator()
    scene.put_rotation(verify={"timeout": "1s"})
    scene.wait_ended("Cancelled")
    scene.account.simulator.switches.propagation_delay = 0
    change(scene, rotationRequest="b")
    scene.wait_ended("Completed")
    assert [past["result"] for past in scene.status()["history"]] == ["Completed", "Cancelled"]
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0


def test_a_rollout_that_is_not_ready_in_time_is_held_resumed_and_taken_back(scene: Scene) -> None:
    """I3: with onFailure Hold both values stay alive until a person decides."""
    scene.put_deployment(replicas=2, annotations=_CANNOT_START)
    scene.operator()
    scene.put_rotation(onFailure="Hold", rollout={"timeout": "10s"})
    scene.wait_phase("Blocked")
    stalled = scene.wait_stalled("RolloutTimeout")
    assert "spec.onFailure" in stalled
    assert "Deployment/web" in stalled
    assert both_alive(scene)
    assert scene.calls()["refused"] == 0

    change(scene, rollout={"timeout": "15m"})
    scene.wait_phase("RollingOut")
    assert scene.condition("Stalled") is None
    assert both_alive(scene)

    change(scene, onFailure="Cancel", rollout={"timeout": "10s"})
    assert_cancelled(scene, restarts=2)


def test_a_verification_that_is_held_goes_on_with_more_time(scene: Scene) -> None:
    """I9: raising the timeout resumes, with the same value."""
    scene.put_deployment(replicas=2)
    scene.account.simulator.switches.propagation_delay = 600
    scene.operator()
    scene.put_rotation(onFailure="Hold", verify={"timeout": "1s"})
    scene.wait_phase("Blocked")
    assert both_alive(scene)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    change(scene, verify={"timeout": "10m"})
    scene.wait_phase("Verifying")
    scene.account.simulator.advance(600)
    assert_completed(scene)


def test_suspend_in_the_middle_does_not_stop_a_rotation(scene: Scene) -> None:
    """suspend holds back the next rotation; the one that runs ends."""
    scene.put_deployment(replicas=1)
    begin_and_hold_verifying(scene)
    change(scene, suspend=True)
    let_verify(scene)
    assert_completed(scene)
