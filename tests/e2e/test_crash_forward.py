"""kill -9 at every step of a rotation that succeeds: it ends as if nothing had happened (I9).

Each test holds the operator at one point, by a provider that is slow to answer or an API server that refuses a write,
sees from the outside that the point is reached, kills, removes the obstacle and starts another operator.
"""

from __future__ import annotations

import pytest

from sandbox.simulators.faults import How
from tests.e2e import gate
from tests.e2e.crash import (
    assert_completed,
    begin_and_hold_verifying,
    calls,
    hold,
    let_the_second_of_the_write_pass,
    let_verify,
    restart_operator,
)
from tests.e2e.scene import Scene


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Two pods that read the Secret and call with it."""
    scene.put_deployment(replicas=2)
    return scene


def test_preparing(scene: Scene) -> None:
    """I9: what Preparing saw is forgotten; nothing is durable, nothing was changed."""
    operator = scene.operator()
    # The check of the account is a call of that kind, too.
    checked: int = scene.wait(lambda: calls(scene, "get"), "the operator checks the account")
    hold(scene, "get")
    scene.put_rotation()
    scene.wait(lambda: calls(scene, "get") > checked, "the operator asks where the provider stands")
    assert "rotation" not in scene.status()
    assert not scene.rotation()["metadata"].get("finalizers")
    restart_operator(scene, operator)
    assert_completed(scene)


def test_starting_before_the_finalizer_and_the_journal(scene: Scene) -> None:
    """I1, I9: the intent is durable, nothing was asked of the provider yet."""
    scene.operator().kill()
    scene.put_rotation()
    with gate.refused(scene, gate.SET_FINALIZER):
        operator = scene.operator()
        scene.wait_phase("Starting")
        intent = scene.status()["rotation"]["id"]
        operator.kill()
    assert scene.applied("start") == 0
    assert scene.journals() == []
    restart_operator(scene, operator)
    assert_completed(scene)
    assert scene.status()["lastRotation"]["id"] == intent


def test_starting_with_a_call_that_was_not_carried_out(scene: Scene) -> None:
    """I5, I9: the provider got the call and did nothing; asking it tells, and the start is sent again."""
    hold(scene, "start", How.STATUS)
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: calls(scene, "start"), "the start call")
    assert len(scene.journals()) == 1, "I2: the journal exists before the call"
    restart_operator(scene, operator)
    assert_completed(scene)


def test_starting_with_the_answer_lost(scene: Scene) -> None:
    """I5, I9: the provider started and the answer never came: cancelled and started again, as PROVIDERS.md B says."""
    hold(scene, "start")
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.applied("start"), "the provider has started")
    restart_operator(scene, operator)
    assert_completed(scene, starts=2, cancels=1)


def test_starting_with_the_answer_not_in_the_journal(scene: Scene) -> None:
    """I2, I9: the answer came and could not be written before the crash: lost as well."""
    with gate.refused(scene, gate.KEEP_ANSWER):
        operator = scene.operator()
        scene.put_rotation()
        scene.wait(lambda: "in memory" in scene.log.read_text(), "the answer is held in memory")
        assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
        operator.kill()
    restart_operator(scene, operator)
    assert_completed(scene, starts=2, cancels=1)


def test_answer_is_kept_in_memory_until_the_journal_can_be_written(scene: Scene) -> None:
    """I2: without a crash, a journal that cannot be written delays the rotation and loses nothing."""
    with gate.refused(scene, gate.KEEP_ANSWER):
        scene.operator()
        scene.put_rotation()
        scene.wait(lambda: "in memory" in scene.log.read_text(), "the answer is held in memory")
    assert_completed(scene)


def test_verifying_before_the_answer(scene: Scene) -> None:
    """I9: the value is in the journal, the verification under way, the status still says Starting."""
    hold(scene, "token")
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: calls(scene, "token"), "the operator verifies the new value")
    restart_operator(scene, operator)
    assert_completed(scene)


def test_verifying_while_the_provider_does_not_know_the_value_yet(scene: Scene) -> None:
    """I9: the new value spreads slowly at the provider; the next operator goes on waiting."""
    operator = begin_and_hold_verifying(scene)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    restart_operator(scene, operator)
    let_verify(scene)
    assert_completed(scene)


def test_distributing(scene: Scene) -> None:
    """I9: the value is proven, and the Secret could not be written before the crash."""
    operator = begin_and_hold_verifying(scene)
    with gate.refused(scene, gate.WRITE_SECRET):
        let_verify(scene)
        scene.wait_phase("Distributing")
        assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
        operator.kill()
    restart_operator(scene, operator)
    assert_completed(scene)


def test_rolling_out_between_the_write_and_the_restart(scene: Scene) -> None:
    """I7, I9: the Secret holds the new value, and no workload was told."""
    operator = begin_and_hold_verifying(scene)
    with gate.refused(scene, gate.STAMP):
        let_verify(scene)
        scene.wait_phase("RollingOut")
        assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
        operator.kill()
    assert scene.restarts() == 0
    restart_operator(scene, operator)
    assert_completed(scene)


def test_rolling_out_before_the_restart_that_somebody_else_makes(scene: Scene) -> None:
    """I7: a user who restarts the workload while the operator is down has done what the rotation wanted."""
    operator = begin_and_hold_verifying(scene)
    with gate.refused(scene, gate.STAMP):
        let_verify(scene)
        scene.wait_phase("RollingOut")
        operator.kill()
    let_the_second_of_the_write_pass(scene)
    scene.restart_by_user()
    scene.wait(lambda: scene.restarts() == 1, "the user's restart")
    restart_operator(scene, operator)
    assert_completed(scene)
    assert scene.stamps() == set()


def test_rolling_out_with_pods_slow_to_become_ready(scene: Scene) -> None:
    """I7, I9: the workload is stamped and half way; it is not stamped again."""
    scene.put_deployment("slow", replicas=2, annotations={"sandbox.keyturn.dev/ready-after": "1s"})
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts("slow") == 1, "the restart")
    scene.wait_phase("RollingOut")
    restart_operator(scene, operator)
    assert_completed(scene)
    assert scene.restarts("slow") == 1


def test_soaking(scene: Scene) -> None:
    """I9: the soak goes on from when it began, and is not begun again."""
    operator = scene.operator()
    scene.put_rotation(soak="2s")
    scene.wait_phase("Soaking")
    began = scene.status()["rotation"]["phaseStartedTime"]
    restart_operator(scene, operator)
    scene.wait(lambda: scene.condition("Ready"), "the next operator")
    record = scene.status().get("rotation")
    assert record is None or record["phase"] != "Soaking" or record["phaseStartedTime"] == began
    assert_completed(scene)


def test_finalizing_before_the_call(scene: Scene) -> None:
    """I9: the end is decided and written down, the provider was not told."""
    operator = scene.operator()
    scene.put_rotation(soak="1s")
    scene.wait_phase("Soaking")
    hold(scene, "get")
    scene.wait_phase("Finalizing")
    assert calls(scene, "rotate") == 0
    restart_operator(scene, operator)
    assert_completed(scene)


def test_finalizing_with_a_call_that_was_not_carried_out(scene: Scene) -> None:
    """I5, I9: the provider got the call and did nothing."""
    hold(scene, "rotate", How.STATUS)
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: calls(scene, "rotate"), "the finalizing call")
    restart_operator(scene, operator)
    assert_completed(scene)


def test_finalizing_with_the_answer_lost(scene: Scene) -> None:
    """I5, I9: the provider dropped the old value and the answer never came: asked, not told again."""
    hold(scene, "rotate")
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.applied("rotate"), "the provider has dropped the old value")
    restart_operator(scene, operator)
    assert_completed(scene)
    assert calls(scene, "rotate") == 1


@pytest.mark.parametrize("left", [gate.DROP_JOURNAL, gate.SET_FINALIZER], ids=["journal", "finalizer"])
def test_cleaning_up(scene: Scene, left: gate.Write) -> None:
    """I9: Completed is written, and the journal or the finalizer is still there."""
    operator = begin_and_hold_verifying(scene)
    with gate.refused(scene, left):
        let_verify(scene)
        scene.wait_phase("Completed")
        operator.kill()
    assert scene.rotation()["metadata"]["finalizers"]
    restart_operator(scene, operator)
    assert_completed(scene)
