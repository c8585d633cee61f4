"""RotationPolicies on the real control plane: they come, hold, end by themselves, and are taken away again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from tests.e2e.scene import Scene
from tests.e2e.test_input_triggers import assert_quiet, wait_settled
from tests.e2e.test_plugin import keyturn
from tests.e2e.test_schedules import closed_window, now, pretend_last, reasons, wait_next, wire

MAX_AGE: Final = timedelta(hours=720)
CLOSED: Final = {"reason": "year-end close"}


def wait_held(scene: Scene, reason: str, name: str = "billing") -> str:
    """Until the condition Rotating gives this reason; its message."""
    path = scene.rotation_path.replace("billing", name)

    def held() -> str | None:
        found = {one["type"]: one for one in (scene.get(path) or {}).get("status", {}).get("conditions", [])}
        rotating: dict[str, str] = found.get("Rotating", {"reason": ""})
        return rotating["message"] if rotating["reason"] == reason else None

    return str(scene.wait(held, f"Rotating with reason {reason}"))


def policy_status(scene: Scene) -> dict[str, Any]:
    found = scene.get(scene.policy_path)
    assert found is not None
    status: dict[str, Any] = found.get("status", {})
    return status


def begun(scene: Scene) -> datetime:
    return datetime.fromisoformat(scene.status()["lastRotation"]["startedTime"])


def test_a_policy_comes_freezes_ends_by_itself_and_goes(scene: Scene) -> None:
    """I12 whenever something waits; a policy that is deleted releases what it held."""
    scene.put_deployment(replicas=1)
    scene.put_rotation(None, schedule={"stagger": "0s"})
    scene.operator()
    wait_settled(scene)
    assert "nextRotationTime" not in scene.status()
    scene.put_policy(maxAge="720h")
    scene.wait(lambda: "nextRotationTime" in scene.status(), "the maximum age is inherited")
    status = scene.wait(lambda: policy_status(scene).get("rotations") and policy_status(scene), "the policy's status")
    assert status["rotations"] == 1
    assert [(one["type"], one["status"], one["reason"]) for one in status["conditions"]] == [
        ("Ready", "True", "InForce")
    ]
    assert status["maxAgeInForce"]["maxAge"] == "720h"

    scene.put_policy(maxAge="720h", freeze=CLOSED)
    pretend_last(scene, now() - 2 * MAX_AGE)
    message = wait_held(scene, "Frozen")
    assert f"RotationPolicy {scene.namespace} lets nothing begin" in message
    assert message.endswith("year-end close")
    assert "nextRotationTime" not in scene.status()
    assert scene.condition("Overdue") is None, "what was too old when the policy came is not late yet"
    assert "year-end close" in keyturn(scene, "status")
    assert_quiet(scene)
    end = now() + timedelta(seconds=8)
    scene.put_policy(maxAge="720h", freeze={**CLOSED, "until": wire(end)})
    wait_next(scene, end)
    scene.wait(lambda: reasons(scene) == ["MaxAge"], "the end of the freeze, by a timer")
    scene.wait_ended()
    assert begun(scene) >= end

    scene.put_policy(freeze=CLOSED)
    scene.put_rotation("b", schedule={"stagger": "0s"})
    wait_held(scene, "Frozen")
    scene.kubectl("annotate", "csrot", "billing", "keyturn.dev/urgent=leaked in build log")
    scene.wait(lambda: reasons(scene) == ["Urgent", "MaxAge"], "what is urgent does not wait")
    scene.wait_ended()
    scene.put_rotation("c", schedule={"stagger": "0s"})
    wait_held(scene, "Frozen")
    assert_quiet(scene)
    scene.delete(scene.policy_path)
    scene.wait(lambda: reasons(scene)[0] == "RotationRequest", "the policy is gone")
    scene.wait_ended()
    assert "nextRotationTime" not in scene.status()
    assert (scene.applied("rotate"), scene.calls()["refused"]) == (3, 0)


def test_labels_say_what_is_covered_and_a_policy_that_makes_no_sense_lets_nothing_begin(scene: Scene) -> None:
    """I10: correcting the policy, or taking a label away, is all it takes."""
    path = f"/api/v1/namespaces/{scene.namespace}"
    team: dict[str, Any] = {"namespaceSelector": {"matchLabels": {"example.com/team": scene.namespace}}}
    scene.put_deployment(replicas=1)
    scene.put_policy(windows=[closed_window()], **team)
    scene.patch(path, {"metadata": {"labels": {"example.com/team": scene.namespace}}})
    scene.put_rotation("a")
    scene.operator()
    message = wait_held(scene, "OutsideWindow")
    assert f"RotationPolicy {scene.namespace}, spec.windows opens" in message
    assert_quiet(scene)
    scene.patch(path, {"metadata": {"labels": {"example.com/team": None}}})
    scene.wait(lambda: reasons(scene) == ["RotationRequest"], "the Namespace is not covered any more")
    scene.wait_ended()

    tier = {"rotationSelector": {"matchLabels": {"tier": "gold"}}}
    scene.put_policy(timeZone="Mars/Base", windows=[closed_window()], **tier)
    found = scene.wait(lambda: policy_status(scene).get("conditions"), "the policy's status")
    scene.wait(lambda: policy_status(scene)["conditions"][0]["reason"] == "InvalidSpec", "Ready=False")
    assert "spec.timeZone: not a known time zone" in policy_status(scene)["conditions"][0]["message"], found
    scene.patch(scene.rotation_path, {"metadata": {"labels": {"tier": "gold"}}, "spec": {"rotationRequest": "b"}})
    message = wait_held(scene, "InvalidPolicy")
    assert f"RotationPolicy {scene.namespace} makes no sense" in message
    assert "spec.timeZone" in message
    assert_quiet(scene)
    scene.put_policy(timeZone="UTC", **tier)
    scene.wait(lambda: len(reasons(scene)) == 2, "the policy is corrected")
    scene.wait_ended()
    assert (scene.applied("rotate"), scene.calls()["refused"]) == (2, 0)


def test_two_rotations_of_one_workload_keep_their_distance(scene: Scene) -> None:
    """Also when both are due at once, and over a restart of the operator: the workload's stamp is all that tells."""
    second = scene.account.simulator.create({})
    scene.put_secret("other", {"OTHER_SECRET": second["client_secret"]})
    reads = [{"secretRef": {"name": "m2m"}}, {"secretRef": {"name": "other"}}]
    scene.put_deployment(replicas=1, pod_spec={"containers": [{"name": "app", "image": "app", "envFrom": reads}]})
    scene.put_policy(minGap="20s")
    first = scene.operator()
    wait_policy_known(scene)
    scene.put_rotation("a")
    other = {"clientId": second["client_id"], "secretRef": {"name": "other", "key": "OTHER_SECRET"}}
    scene.put_rotation("a", name="second", **other)
    path = scene.rotation_path.replace("billing", "second")

    def ended() -> list[datetime]:
        lasts = [(scene.get(one) or {}).get("status", {}).get("lastRotation") for one in (scene.rotation_path, path)]
        return sorted(datetime.fromisoformat(last["startedTime"]) for last in lasts if last)

    scene.wait(lambda: len(ended()) == 1, "one of the two")
    waiting = "billing" if "lastRotation" not in scene.status() else "second"
    message = wait_held(scene, "MinGap", waiting)
    assert "a rotation that restarts Deployment/web has begun at" in message
    assert f"RotationPolicy {scene.namespace}, spec.minGap 20s" in message
    first.stop()
    scene.operator()
    scene.wait(lambda: len(ended()) == 2, "the other one", seconds=90)
    one, two = ended()
    assert timedelta(seconds=20) <= two - one < timedelta(seconds=80)
    assert scene.restarts() == 2


def wait_policy_known(scene: Scene) -> None:
    scene.wait(lambda: policy_status(scene).get("conditions"), "the policy is known")
