"""How far workloads are, and what keeps the old value alive: the table of cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyturn.api.observed import Pod, Template, Workload
from keyturn.api.rotation import RestartPolicy, Target, TargetState, UnrestartablePolicy
from keyturn.rotation.consumers import stuck_pods
from keyturn.rotation.targets import behind_message, rollout_failure, rollout_gate, targets
from tests.unit.consumers import CANCELLED, OTHER, OURS, ZERO, pod, record, view, web

READY, ROLLING, PENDING = TargetState.READY, TargetState.ROLLING, TargetState.PENDING
WAITING, HELD = TargetState.WAITING, TargetState.HELD
JOB = Workload(kind="Job", name="web", restartable=False, desired=1, manual="it must end or be deleted")


@pytest.mark.parametrize(
    ("workload", "pods", "state", "words"),
    [
        (web(OURS), [pod(10, OURS)], READY, None),
        (web(), [], READY, None),
        (web(), [pod(5)], PENDING, "1 pod(s) may still run on the old value"),
        (web(OURS), [pod(5), pod(10, OURS, name="q")], ROLLING, "1 pod(s) may still run on the old value"),
        (web(OURS), [pod(5, terminating=True)], ROLLING, "1 pod(s) may still"),
        (web(OURS, settled=False), [pod(10, OURS)], ROLLING, "not all pods are available"),
        (web(OURS, failure="quota"), [pod(5)], ROLLING, "quota"),
        (web(paused="spec.paused is set"), [pod(5)], HELD, "spec.paused is set; 1 pod(s)"),
        (web(OURS, paused="spec.paused is set"), [pod(5)], HELD, "spec.paused is set; 1 pod(s)"),
        (web(OURS, paused="spec.paused is set", settled=False), [], HELD, "not all pods"),
        (web(paused="spec.paused is set"), [pod(11)], READY, None),
        (web(restartable=False), [pod(5)], WAITING, "1 pod(s)"),
        (web(settled=False), [], WAITING, "not all pods"),
        (web(OURS, manual="delete pod p"), [pod(5)], HELD, "delete pod p"),
        (JOB, [pod(5)], HELD, "it must end"),
        (JOB, [pod(11)], READY, None),
    ],
)
def test_targets(workload: Workload, pods: list[Pod], state: TargetState, words: str | None) -> None:
    pods = [replace(one, owner=(workload.kind, workload.name)) for one in pods]
    seen = view([workload], pods, record())
    listed = targets(seen)
    assert [target.state for target in listed] == [state]
    message = listed[0].message
    assert message is None if words is None else message is not None and words in message
    assert (rollout_gate(seen) is None) is (state is READY)
    assert (behind_message(listed) is None) is (state is READY)


def test_strays_hold_the_gate() -> None:
    """I4: pods of deleted workloads, of jobs, and on their own."""
    stray, job = pod(0, name="lonely", owner=("Pod", "lonely")), pod(0, name="j-1", owner=("Job", "j"))
    seen = view([web()], [stray, job], record())
    assert seen.unsafe_pods == {stray, job}
    states = [(target.kind, target.state) for target in targets(seen)]
    assert states == [("Deployment", READY), ("Job", HELD), ("Pod", HELD)]
    gate = rollout_gate(seen)
    assert gate is not None
    assert (
        gate.message
        == "waiting for Job/j: 1 pod(s) may still run on the old value; they must end or be deleted, and 1 more"
    )
    assert (gate.reason, gate.lasting) == ("RolloutHeld", False)


def test_what_only_others_can_end_may_count_as_rollout() -> None:
    stray = pod(0, name="lonely", owner=("Pod", "lonely"))
    seen = view([JOB], [stray, pod(0, owner=("Job", "web"))], record(), unrestartable=UnrestartablePolicy.FAIL)
    assert [target.state for target in targets(seen)] == [WAITING, WAITING]
    gate = rollout_gate(seen)
    assert gate is not None
    assert gate.reason == "RolloutInProgress"


def test_what_is_on_its_way_goes_before_what_is_held() -> None:
    """The time of a rollout counts as long as there is one."""
    stray, rolling = pod(0, name="lonely", owner=("Pod", "lonely")), pod(0)
    for workload, reason in ((web(OURS), "RolloutInProgress"), (web(paused="paused"), "WorkloadPaused")):
        gate = rollout_gate(view([workload], [stray, rolling], record()))
        assert gate is not None
        assert gate.reason == reason
        assert gate.lasting is (reason == "WorkloadPaused")
    # What waits for its turn waits for the others.
    gate = rollout_gate(view([web()], [stray, rolling], record()))
    assert gate is not None
    assert gate.reason == "RolloutHeld"


@pytest.mark.parametrize("how", ["remembered", "history"])
def test_a_restart_that_was_taken_back_is_said_and_not_fought(how: str) -> None:
    ours = Template(2, OURS, ZERO.replace(second=20))
    templates = (Template(1, OTHER, ZERO), ours) if how == "history" else ()
    remembered = [Target(kind="Deployment", name="web", state=ROLLING, restarted=True)] if how == "remembered" else []
    workload = web(OTHER, templates=templates, template_time=ZERO)
    seen = view([workload], [pod(5, OTHER, revision=1)], record(10, targets=remembered))
    gate = rollout_gate(seen)
    assert gate is not None
    assert (gate.reason, gate.lasting) == ("TargetReverted", True)
    assert "keyturn.dev/rotation" in gate.message
    assert rollout_gate(view([workload], [pod(11, OTHER)], record(10, targets=remembered))) is None


def test_another_restart_over_ours_is_no_reversal() -> None:
    remembered = [Target(kind="Deployment", name="web", state=ROLLING, restarted=True)]
    workload = web("r2", template_time=ZERO.replace(second=30), settled=False)
    gate = rollout_gate(view([workload], [pod(5)], record(10, targets=remembered)))
    assert gate is not None
    assert gate.reason == "RolloutInProgress"


def test_only_our_own_rollout_can_fail_us() -> None:
    assert rollout_failure(view([web(OTHER, failure="old trouble")], [], record())) is None
    problem = rollout_failure(view([web(OURS, failure="deadline exceeded")], [], record()))
    assert problem is not None
    assert "Deployment/web" in problem.message


@pytest.mark.parametrize(
    ("one", "fails"),
    [
        (pod(11, OURS, failing="container app crashes"), True),
        (pod(5, failing="container app crashes"), False),  # of the old value: not our doing
        (pod(11, OURS, failing="container app crashes", terminating=True), False),
        (pod(11, OURS, failing="container app crashes", owner=("Job", "j")), False),
        (pod(11, OURS), False),
    ],
)
def test_pods_that_crash_on_the_new_value_fail_the_rollout(one: Pod, fails: bool) -> None:
    problem = rollout_failure(view([web(OURS, settled=False)], [one], record()))
    assert (problem is not None) is fails
    assert problem is None or problem.message.endswith("pod p: container app crashes")


@pytest.mark.parametrize(
    ("workload", "one", "cancelling", "stuck"),
    [
        (web(CANCELLED, ordered=True), pod(11, OURS, ready=False), True, True),
        (web(CANCELLED), pod(11, OURS, ready=False), True, False),  # its controller replaces it
        (web(OURS, ordered=True), pod(11, OURS, ready=False), True, False),  # not told yet to go back
        (web(CANCELLED, ordered=True, observed=False), pod(11, OURS, ready=False), True, False),
        (web(CANCELLED, ordered=True), pod(11, OURS), True, False),  # it is ready: it will be replaced in its turn
        (web(CANCELLED, ordered=True), pod(11, OURS, ready=False, terminating=True), True, False),
        (web(CANCELLED, ordered=True), pod(31, CANCELLED, ready=False), True, False),  # on the way up again
        (web(OURS, ordered=True), pod(5, ready=False), False, False),  # it was broken before us
    ],
)
def test_a_broken_pod_that_stands_in_the_way_back(workload: Workload, one: Pod, cancelling: bool, stuck: bool) -> None:
    """A StatefulSet does not replace a pod that is not ready, and says so nowhere."""
    seen = view([workload], [one], record(10, 30 if cancelling else None, cancelling=cancelling))
    assert stuck_pods(seen) == ((one,) if stuck else ())


def test_volumes_that_follow_are_waited_for() -> None:
    seen = view([web()], [pod(5, live=True)], record(10), now=20, restart=RestartPolicy.ENV_ONLY)
    [target] = targets(seen)
    assert target.state is WAITING
    assert target.message == "1 pod(s) may see the old value in their volumes until 2026-03-01T12:02:10Z"
