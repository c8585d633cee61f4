"""Rotations that begin by themselves, or at once: schedules, windows and the urgent word, on the real control plane."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.e2e.scene import Scene
from tests.e2e.test_input_triggers import assert_quiet, versions, wait_settled, wait_working
from tests.e2e.test_plugin import keyturn

INTERVAL: Final = timedelta(hours=720)
MONTHLY: Final = {"interval": "720h", "stagger": "0s"}


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def wire(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def say_rotated(scene: Scene, moment: datetime) -> None:
    """The user's word about the age of the value."""
    scene.patch(scene.secret_path, {"metadata": {"annotations": {"keyturn.dev/rotated-at": wire(moment)}}})


def pretend_last(scene: Scene, moment: datetime) -> None:
    """As if the last rotation had been then: nobody waits a month for a test."""
    scene.patch(f"{scene.rotation_path}/status", {"status": {"lastRotationTime": wire(moment)}})


def wait_next(scene: Scene, moment: datetime) -> None:
    scene.wait(lambda: scene.status().get("nextRotationTime") == wire(moment), f"next at {wire(moment)}")


def wait_told(scene: Scene, event: str) -> None:
    """Until the Event is there, and the account was checked."""
    scene.wait(lambda: event in [item["reason"] for item in scene.events()], f"the Event {event}")
    scene.wait(lambda: "Ready=True" in scene.log.read_text(), "the account is checked")


def reasons(scene: Scene) -> list[str]:
    return [past["reason"] for past in scene.status().get("history", [])]


def last(scene: Scene) -> datetime:
    return datetime.fromisoformat(scene.status()["lastRotationTime"])


def closed_window() -> dict[str, Any]:
    """Deny, each day from an hour ago to five hours from now."""
    begun = now() - timedelta(hours=1)
    return {"kind": "deny", "schedule": f"{begun.minute} {begun.hour} * * *", "duration": "6h"}


def test_a_schedule_rotates_when_its_time_comes_and_once_for_all_that_was_missed(scene: Scene) -> None:
    """I12 while it waits; the time comes with the operator down, and with it there."""
    scene.put_deployment(replicas=1)
    made = now() - timedelta(hours=24)
    say_rotated(scene, made)
    scene.put_rotation(None, schedule=MONTHLY)
    operator = scene.operator()
    wait_settled(scene)
    wait_next(scene, made + INTERVAL)
    assert_quiet(scene)
    before = versions(scene)
    operator.stop()
    scene.operator()
    wait_working(scene, times=2)
    assert_quiet(scene)
    assert versions(scene) == before
    scene.operators[-1].stop()

    pretend_last(scene, now() - 3 * INTERVAL)
    scene.operator()
    scene.wait(lambda: reasons(scene) == ["Schedule"], "one rotation for three that were missed")
    scene.wait_ended()
    wait_next(scene, last(scene).replace(microsecond=0) + INTERVAL)
    assert_quiet(scene)

    due = now() + timedelta(seconds=6)
    pretend_last(scene, due - INTERVAL)
    wait_next(scene, due)
    scene.wait(lambda: reasons(scene) == ["Schedule"] * 2, "the timer")
    scene.wait_ended()
    begun = datetime.fromisoformat(scene.status()["lastRotation"]["startedTime"])
    assert due <= begun
    assert (scene.applied("rotate"), scene.restarts(), scene.calls()["refused"]) == (2, 2, 0)


def test_what_is_urgent_heeds_no_window_and_is_done_once(scene: Scene) -> None:
    scene.put_deployment(replicas=1)
    scene.put_rotation("a", soak="2h", schedule={**MONTHLY, "windows": [closed_window()]})
    operator = scene.operator()
    wait_settled(scene)
    rotating = scene.condition("Rotating")
    assert rotating is not None
    assert (rotating["status"], rotating["reason"]) == ("False", "OutsideWindow")
    assert scene.status()["nextRotationTime"] > wire(now() + timedelta(hours=4))
    assert "when a window of spec.schedule.windows opens" in keyturn(scene, "status")
    assert_quiet(scene)

    scene.kubectl("annotate", "csrot", "billing", "keyturn.dev/urgent=leaked in build log")
    scene.wait(lambda: reasons(scene) == ["Urgent"], "the urgent rotation")
    scene.wait_ended()
    (past,) = scene.status()["history"]
    assert (past["urgent"], past["request"], past["result"]) == ("leaked in build log", "a", "Completed")
    assert scene.rotation()["metadata"]["annotations"]["keyturn.dev/urgent"] == "leaked in build log"
    assert scene.calls()["refused"] == 0
    operator.stop()
    scene.operator()
    wait_working(scene, times=2)
    assert_quiet(scene)

    scene.kubectl("annotate", "csrot", "billing", "keyturn.dev/urgent=leaked again", "--overwrite")
    scene.wait(lambda: reasons(scene) == ["Urgent", "Urgent"], "another text")
    scene.wait_ended()
    assert scene.applied("rotate") == 2


def test_what_keeps_a_schedule_from_its_time_is_said(scene: Scene) -> None:
    """I10: a schedule that can never be met, and one that is late; correcting either is all it takes."""
    scene.put_rotation(None, schedule={"cron": "0 3 30 2 *"})
    scene.operator()
    assert "spec.schedule.cron" in scene.wait_stalled("InvalidSchedule")
    wait_told(scene, "InvalidSchedule")
    assert_quiet(scene)
    scene.put_rotation(None, schedule=MONTHLY, suspend=True)
    wait_settled(scene)
    assert scene.condition("Stalled") is None
    due = now() - timedelta(hours=1)
    pretend_last(scene, due - INTERVAL)
    late = scene.wait(lambda: scene.condition("Overdue"), "the condition Overdue")
    assert (late["status"], late["reason"]) == ("True", "Suspended")
    assert wire(due) in late["message"]
    wait_told(scene, "RotationOverdue")
    assert "due since" in keyturn(scene, "status")
    assert_quiet(scene)
    scene.put_rotation(None, schedule=MONTHLY)
    scene.wait(lambda: reasons(scene) == ["Schedule"], "the rotation")
    scene.wait_ended()
    assert scene.condition("Overdue") is None
