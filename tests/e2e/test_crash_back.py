"""kill -9 at every step of a cancellation: the way back ends as if nothing had happened (I9)."""

from __future__ import annotations

import pytest

from sandbox.simulators.faults import How
from sandbox.stage import Operator
from sandbox.traffic.report import fingerprint
from tests.e2e import gate
from tests.e2e.crash import assert_cancelled, calls, hold, restart_operator
from tests.e2e.scene import Scene


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Two pods that cannot start with the new value, in a Deployment whose own controller notices soon."""
    scene.put_deployment(
        replicas=2,
        annotations={"sandbox.keyturn.dev/behavior-when-stamped": "never-ready"},
        progress_deadline=1,
    )
    return scene


def begin_and_cancel(scene: Scene) -> Operator:
    operator = scene.operator()
    scene.put_rotation()
    scene.wait_phase("Cancelling")
    return operator


def test_before_the_secret_is_restored(scene: Scene) -> None:
    """I9: the decision to go back is durable, the Secret still holds the new value."""
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts() == 1, "the restart")
    with gate.refused(scene, gate.WRITE_SECRET):
        scene.wait_phase("Cancelling")
        assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
        operator.kill()
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)


def test_between_the_restored_secret_and_the_roll_back(scene: Scene) -> None:
    """I7, I9: the previous value is back in the Secret, the workload was not told."""
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts() == 1, "the restart")
    with gate.refused(scene, gate.STAMP):
        scene.wait_phase("Cancelling")
        scene.wait(lambda: scene.secret()["CLIENT_SECRET"] == scene.first_secret, "the previous value is back")
        operator.kill()
    assert scene.restarts() == 1
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)


def test_with_the_roll_back_under_way(scene: Scene) -> None:
    """I7, I9: the workload is stamped for the way back; it is not stamped again."""
    operator = begin_and_cancel(scene)
    scene.wait(lambda: len(scene.stamps()) == 2, "the restart of the way back")
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)


def test_with_a_cancel_call_that_was_not_carried_out(scene: Scene) -> None:
    """I5, I9: the provider got the call and did nothing."""
    hold(scene, "cancel", How.STATUS)
    operator = begin_and_cancel(scene)
    scene.wait(lambda: calls(scene, "cancel"), "the cancel call")
    assert {value for pod in scene.running() for value in pod.values} <= {fingerprint(scene.first_secret)}, "I4"
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)


def test_with_the_answer_to_cancel_lost(scene: Scene) -> None:
    """I5, I9: the provider dropped the new value and the answer never came: asked, not told again."""
    hold(scene, "cancel")
    operator = begin_and_cancel(scene)
    scene.wait(lambda: scene.applied("cancel"), "the provider has dropped the new value")
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)
    assert calls(scene, "cancel") == 1


@pytest.mark.parametrize("left", [gate.DROP_JOURNAL, gate.SET_FINALIZER], ids=["journal", "finalizer"])
def test_cleaning_up(scene: Scene, left: gate.Write) -> None:
    """I9: Cancelled is written, and the journal or the finalizer is still there."""
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts() == 1, "the restart")
    with gate.refused(scene, left):
        scene.wait_phase("Cancelled")
        operator.kill()
    assert scene.rotation()["metadata"]["finalizers"]
    restart_operator(scene, operator)
    assert_cancelled(scene, restarts=2)
