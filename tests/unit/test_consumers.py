"""Who may hold which value: the table of cases, to the second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import Phase, RestartPolicy, RotationRecord, TargetState
from keyturn.rotation.consumers import (
    cancel_stamp,
    holds_pending,
    holds_previous,
    rollout_failure,
    rollout_gate,
    targets,
    to_restart,
    unsafe_pods,
)
from tests.model.scenarios import make_spec

ZERO = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS, CANCELLED, OTHER = "r1", "r1-cancelled", "r0"
WEB = ("Deployment", "web")


def at(second: float | None) -> datetime | None:
    return None if second is None else ZERO + timedelta(seconds=second)


def record(distributed: float | None = 10, restored: float | None = None) -> RotationRecord:
    spec = make_spec()
    return RotationRecord.model_validate(
        {
            "id": OURS,
            "phase": Phase.ROLLING_OUT,
            "reason": "RotationRequest",
            "subject": {"providerRef": spec.provider_ref, "clientId": spec.client_id, "secretRef": spec.secret_ref},
            "startedTime": ZERO,
            "phaseStartedTime": ZERO,
            "distributedTime": at(distributed),
            "restoredTime": at(restored),
        }
    )


def pod(created: float, stamp: str | None = None, started: float | None = None, **how: object) -> Pod:
    ended = how.get("terminating", False)
    return Pod("p", WEB, stamp, ZERO + timedelta(seconds=created), at(started), not ended, bool(ended))


def web(stamp: str | None = None, **how: object) -> Workload:
    return Workload(**{"kind": "Deployment", "name": "web", "restartable": True, "desired": 1, "stamp": stamp, **how})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("created", "stamp", "distributed", "expected"),
    [
        (5, None, 10, True),
        (10, None, 10, True),  # the same second: may have been just before
        (11, None, 10, False),
        (10, OURS, 10, False),  # the stamp was set after the value was written
        (5, OTHER, 10, True),
        (11, CANCELLED, 10, False),
        (5, None, None, True),
        (99, None, None, True),  # nothing was written yet
    ],
)
def test_holds_previous(created: float, stamp: str | None, distributed: float | None, expected: bool) -> None:
    assert holds_previous(pod(created, stamp), record(distributed)) is expected


@pytest.mark.parametrize(
    ("created", "started", "stamp", "restored", "expected"),
    [
        (5, 6, None, 30, False),
        (5, None, None, 30, False),
        (5, 10, None, 30, True),  # a container that started anew in the same second
        (5, 20, None, 30, True),
        (10, 10, None, 30, True),
        (20, 21, None, 30, True),
        (20, 21, OURS, 30, True),
        (30, 31, None, 30, True),  # the same second as the way back
        (31, 32, None, 30, False),
        (31, 32, OURS, 30, False),  # the old template, but the Secret was restored before
        (30, 31, CANCELLED, 30, False),
        (20, 21, None, None, True),  # not restored yet
        (99, 99, OURS, None, True),
    ],
)
def test_holds_pending(
    created: float, started: float | None, stamp: str | None, restored: float | None, expected: bool
) -> None:
    assert holds_pending(pod(created, stamp, started), record(10, restored)) is expected


def test_nothing_holds_what_was_never_written() -> None:
    assert not holds_pending(pod(99, OURS, 99), record(None))


@pytest.mark.parametrize(
    ("workload", "created", "cancelling", "expected"),
    [
        (web(), 5, False, True),
        (web(OURS), 5, False, False),  # once is enough (I7)
        (web(), 11, False, False),  # its pods are new already
        (web(restartable=False), 5, False, False),
        (web(template_time=at(11)), 5, False, False),  # somebody else restarts it
        (web(template_time=at(10)), 5, False, True),
        (web(observed=False), 5, False, False),  # its controller must say first what it does
        (web(OURS), 15, True, True),
        (web(OURS), 5, True, True),  # no pod of the new template yet, but there would be
        (web(CANCELLED), 15, True, False),
        (web(), 15, True, True),
        (web(), 5, True, False),
        (web(OURS), 31, True, True),
    ],
)
def test_to_restart(workload: Workload, created: float, cancelling: bool, expected: bool) -> None:
    consumers = Consumers((workload,), (pod(created),))
    now = record(10, 30 if cancelling else None)
    assert (to_restart(consumers, now, RestartPolicy.ALWAYS, cancelling=cancelling) == (workload,)) is expected
    assert to_restart(consumers, now, RestartPolicy.NEVER, cancelling=cancelling) == ()


@pytest.mark.parametrize(
    ("workload", "pods", "state", "words"),
    [
        (web(OURS), [pod(10, OURS)], TargetState.READY, None),
        (web(), [], TargetState.READY, None),
        (web(), [pod(5)], TargetState.PENDING, None),
        (web(OURS), [pod(5), pod(10, OURS)], TargetState.ROLLING, "1 pod(s) may still run on the old value"),
        (web(OURS), [pod(5, terminating=True)], TargetState.ROLLING, "1 pod(s) may still"),
        (web(OURS, settled=False), [pod(10, OURS)], TargetState.ROLLING, "not all pods are available"),
        (web(OURS, failure="quota"), [pod(5)], TargetState.ROLLING, "quota"),
        (web(OURS, paused="spec.paused is set"), [pod(5)], TargetState.ROLLING, "spec.paused"),
        (web(restartable=False), [pod(5)], TargetState.WAITING, "1 pod(s)"),
        (web(settled=False), [], TargetState.WAITING, "not all pods"),
    ],
)
def test_targets(workload: Workload, pods: list[Pod], state: TargetState, words: str | None) -> None:
    listed = targets(Consumers((workload,), tuple(pods)), record(), cancelling=False)
    assert [target.state for target in listed] == [state]
    message = listed[0].message
    assert message is None if words is None else message is not None and words in message
    assert (rollout_gate(listed) is None) is (state is TargetState.READY)


def test_strays_hold_the_gate() -> None:
    """I4: pods of deleted workloads, of jobs, and on their own."""
    stray = Pod("lonely", ("Pod", "lonely"), None, ZERO, ZERO, True, False)
    job = Pod("j-1", ("Job", "j"), None, ZERO, ZERO, True, True)
    consumers = Consumers((web(),), (stray, job))
    assert unsafe_pods(consumers, record(), cancelling=False) == [stray, job]
    listed = targets(consumers, record(), cancelling=False)
    assert [(target.kind, target.state) for target in listed] == [
        ("Deployment", TargetState.READY),
        ("Job", TargetState.WAITING),
        ("Pod", TargetState.WAITING),
    ]
    gate = rollout_gate(listed)
    assert gate is not None
    assert gate.message == "waiting for Job/j: 1 pod(s) may still run on the old value, and 1 more"
    assert not gate.lasting


def test_only_our_own_rollout_can_fail_us() -> None:
    assert rollout_failure(Consumers((web(OTHER, failure="old trouble"),)), record()) is None
    problem = rollout_failure(Consumers((web(OURS, failure="deadline exceeded"),)), record())
    assert problem is not None
    assert "Deployment/web" in problem.message


def test_stamps_of_both_directions_differ() -> None:
    assert cancel_stamp(record()) == CANCELLED
