"""What people, pipelines and GitOps tools see of a rotation with the tools that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

import pytest

from sandbox.stage import ROOT
from tests.e2e.crash import begin_and_hold_verifying, let_verify
from tests.e2e.recorder import Recorder, conditions, kstatus
from tests.e2e.scene import Scene

SAMPLE = ROOT / "manifests" / "samples" / "stytch.yaml"


def wait_ready(scene: Scene) -> None:
    """As a pipeline would."""
    scene.kubectl("wait", "csrot/billing", "--for=condition=Ready", "--timeout=30s")


@pytest.fixture
def newer_kubectl(scene: Scene) -> Callable[[int], None]:
    """Skips the test with a kubectl that is too old for what it needs."""
    version = json.loads(scene.kubectl("version", "--client", "--output=json"))["clientVersion"]
    minor = int(re.sub(r"\D", "", version["minor"]))

    def require(wanted: int) -> None:
        if minor < wanted:
            pytest.skip(f"needs kubectl 1.{wanted}, this is 1.{minor}")

    return require


@pytest.fixture
def completed(scene: Scene) -> Scene:
    """A scene whose rotation has completed, with the operator running."""
    scene.put_deployment(replicas=1)
    scene.operator()
    scene.put_rotation()
    scene.wait_ended()
    return scene


def test_lists_and_describes(completed: Scene) -> None:
    header, line = completed.kubectl("get", "csrot").splitlines()
    assert header.split() == ["NAME", "PHASE", "PROVIDER", "LAST", "NEXT", "READY", "AGE"]
    assert line.split()[:3] == ["billing", "Completed", "stytch"]
    assert "True" in line.split()
    wide = completed.kubectl("get", "csrot", "--output=wide").splitlines()
    assert wide[0].split()[-1] == "REASON"
    listed = completed.kubectl("get", "keyturn", "--output=name").split()
    assert {"clientsecretrotation.keyturn.dev/billing", "rotationprovider.keyturn.dev/stytch"} <= set(listed)
    described = completed.kubectl("describe", "csrot", "billing")
    for part in (
        "Completed",
        "SecretRotated",
        "RotationStarted",
        "RolloutRestartTriggered",
        "Last Rotation",
        "Events:",
    ):
        assert part in described


def test_waits(scene: Scene, newer_kubectl: Callable[[int], None]) -> None:
    scene.put_deployment(replicas=1)
    scene.operator()
    scene.put_rotation()
    wait_ready(scene)
    newer_kubectl(23)
    scene.kubectl("wait", "csrot/billing", "--for=jsonpath={.status.phase}=Completed", "--timeout=30s")


def test_a_wait_for_the_wrong_thing_times_out(scene: Scene) -> None:
    """Ready is not said of a Secret that is not there."""
    scene.delete(scene.secret_path)
    scene.put_rotation(None)
    scene.operator()
    scene.wait_stalled("SecretNotFound")
    assert "timed out" in scene.kubectl("wait", "csrot/billing", "--for=condition=Ready", "--timeout=1s", check=False)


def test_idle_objects_delete_at_once(completed: Scene) -> None:
    """I11"""
    completed.kubectl("delete", "csrot", "billing", "--timeout=10s")
    assert completed.get(completed.rotation_path) is None
    assert completed.get(completed.secret_path) is not None


def test_explains(scene: Scene, newer_kubectl: Callable[[int], None]) -> None:
    newer_kubectl(27)
    # The newer form of the schema, which kubectl prefers, is served from Kubernetes 1.24 on.
    old = scene.get("/openapi/v3") is None
    said = scene.kubectl("explain", "csrot.spec.rollout", *(["--output=plaintext-openapiv2"] if old else []))
    for part in ("restart", "timeout", "How long the rollout may take"):
        assert part in said


def test_the_sample_works_as_its_comments_say(scene: Scene) -> None:
    """With the simulator's address and ids, and without the soak."""
    text = SAMPLE.read_text()
    commands = re.findall(r"^#\s+kubectl (create secret .*)$", text, re.MULTILINE)
    values = iter([scene.account.simulator.project_secret, scene.client_id, scene.first_secret])
    for command in commands:
        scene.kubectl(*re.sub(r"=\.\.\.", lambda _: f"={next(values)}", command).split())
    assert next(values, None) is None
    text = re.sub(
        r"project-live-[-0]+", f"{scene.account.simulator.project_id}\n    baseUrl: {scene.account.url}", text
    )
    text = re.sub(r"m2m-client-live-[-0]+", scene.client_id, text)
    path = scene.log.with_suffix(".yaml")
    path.write_text(re.sub(r"soak: \S+", "soak: 0s", text))
    scene.operator()
    scene.kubectl("apply", "--filename", str(path))
    wait_ready(scene)
    scene.wait_ended()
    assert scene.account.simulator.accepts(scene.client_id, scene.secret("billing-m2m")["CLIENT_SECRET"])
    again = scene.kubectl("apply", "--filename", str(path))
    assert "configured" not in again  # what Keyturn writes is no drift
    assert scene.restarts("billing") == 1


def test_the_sample_provider_says_whether_its_credentials_work(completed: Scene) -> None:
    completed.kubectl("wait", "rotationprovider/stytch", "--for=condition=Ready", "--timeout=10s")


def test_conditions_tell_the_story(scene: Scene) -> None:
    """Ready stays True through a whole rotation; the others flip once, and their times move only then."""
    scene.put_deployment(replicas=1)
    scene.put_rotation(None)
    scene.operator()
    wait_ready(scene)
    ready = scene.condition("Ready")
    assert kstatus(scene.rotation()) == "Current"
    with Recorder(scene) as recorder:
        scene.put_rotation("a")
        scene.wait_ended()
        scene.wait(lambda: recorder.versions[-1]["metadata"].get("finalizers") is None, "the last version was seen")
    statuses = recorder.statuses()
    assert ready is not None
    for status in statuses:
        now = conditions(status)["Ready"]
        assert (now["status"], now["lastTransitionTime"]) == ("True", ready["lastTransitionTime"])
    assert [key for key, _ in groupby(status["phase"] for status in statuses)] == [
        "Idle",
        "Starting",
        "RollingOut",
        "Finalizing",
        "Completed",
    ]
    rotating = [(status.get("rotation") is not None, conditions(status)) for status in statuses]
    assert all((found["Rotating"]["status"] == "True") is runs for runs, found in rotating)
    assert all((found.get("Reconciling", {}).get("status") == "True") is runs for runs, found in rotating)
    for earlier, later in pairwise(found for _, found in rotating):
        assert_times_move_with_flips(earlier, later)
    seen = [kstatus(version) for version in recorder.versions]
    assert [key for key, _ in groupby(seen)] == ["Current", "InProgress", "Current"]


def assert_times_move_with_flips(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    for kind in earlier.keys() & later.keys():
        if earlier[kind]["status"] == later[kind]["status"]:
            assert earlier[kind]["lastTransitionTime"] == later[kind]["lastTransitionTime"], kind


def test_trouble_is_failed_and_its_end_is_current(scene: Scene) -> None:
    """kstatus: Stalled while only a person can help; observedGeneration follows every edit."""
    scene.operator()
    scene.put_rotation(providerRef={"name": "nobody"})
    scene.wait_stalled("ProviderNotFound")
    assert kstatus(scene.rotation()) == "Failed"
    scene.put_rotation()
    scene.wait(lambda: kstatus(scene.rotation()) == "Current", "Current")
    scene.wait_ended()
    rotation = scene.rotation()
    generation = rotation["metadata"]["generation"]
    assert generation == 2
    assert rotation["status"]["observedGeneration"] == generation
    assert {condition["observedGeneration"] for condition in rotation["status"]["conditions"]} == {generation}


def test_events_are_few_and_are_not_repeated_after_a_restart(scene: Scene) -> None:
    """One for each phase, at most four for one Deployment without a soak."""
    scene.put_deployment(replicas=1)
    begin_and_hold_verifying(scene).stop()
    operator = scene.operator()
    let_verify(scene)
    scene.wait_ended()
    operator.stop()
    scene.operator()
    scene.wait(lambda: scene.log.read_text().count("ready: ") == 3, "the third start")
    events = scene.events()
    reasons = [event["reason"] for event in events]
    # Verifying is said only because it was made to last.
    expected = ["Finalizing", "RolloutRestartTriggered", "RotationStarted", "SecretRotated", "Verifying"]
    assert sorted(reasons) == expected
    assert {event["type"] for event in events} == {"Normal"}
    assert {event["involvedObject"]["uid"] for event in events} == {scene.rotation()["metadata"]["uid"]}
