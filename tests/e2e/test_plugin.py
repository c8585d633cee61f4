"""`kubectl keyturn`, called by kubectl itself: what it shows, what it asks for, and what it refuses in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from keyturn.api.rotation import CANCEL_ANNOTATION, RESUME_ANNOTATION, URGENT_ANNOTATION, URGENT_LENGTH
from sandbox.assets import find_kubectl
from tests.e2e.crash import HOLD, assert_cancelled, let_verify
from tests.e2e.scene import Scene

ID: Final = "20261122-001500-0a1b2c"
NOW: Final = "2026-11-22T00:15:00.000000Z"
SUBJECT: Final = {
    "providerRef": {"kind": "RotationProvider", "name": "stytch"},
    "clientId": "m2m-client-1",
    "secretRef": {"name": "m2m", "key": "CLIENT_SECRET", "creationPolicy": "Merge"},
}
NEVER_READY: Final = {"sandbox.keyturn.dev/behavior-when-stamped": "never-ready"}


def keyturn(scene: Scene, *arguments: str, fails: bool = False) -> str:
    """What `kubectl keyturn` prints; `fails` says whether it must have ended with 1, and nothing on stdout."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(scene.stage.control_plane.kubeconfig),
        "TERM": "dumb",
    }
    command = [str(find_kubectl()), "keyturn", *arguments, "-n", scene.namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == (1 if fails else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) is not fails
    return (done.stderr if fails else done.stdout).strip()


def put_status(scene: Scene, phase: str, rotation: dict[str, Any] | None = None, **more: Any) -> None:
    """The rotation `billing`, of which no operator knows, with a status as one would have written it."""
    scene.put_rotation(None)
    running = {"id": ID, "phase": phase, "reason": "RotationRequest", "subject": SUBJECT}
    times = {"startedTime": NOW, "phaseStartedTime": NOW}
    record = None if rotation is None else {**running, **times, **rotation}
    scene.patch(f"{scene.rotation_path}/status", {"status": {"phase": phase, "rotation": record, **more}})


def stalled(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "Stalled", "status": "True", "reason": reason, "message": message, "lastTransitionTime": NOW}
    return {"conditions": [condition]}


def word(scene: Scene, annotation: str) -> str | None:
    found: str | None = (scene.rotation()["metadata"].get("annotations") or {}).get(annotation)
    return found


def test_what_is_urgent_is_asked_for_with_its_reason(scene: Scene) -> None:
    put_status(scene, "Completed", lastHandledUrgent="x" * URGENT_LENGTH)
    leaked = "leaked in build log"
    assert keyturn(scene, "rotate", "billing", "--urgent", leaked) == "requested urgent rotation of billing"
    assert word(scene, URGENT_ANNOTATION) == leaked
    assert "must say why" in keyturn(scene, "rotate", "billing", "--urgent", " ", fails=True)
    assert "no --request" in keyturn(scene, "rotate", "billing", "--urgent", "x", "--request", "b", fails=True)
    assert "say what is new" in keyturn(scene, "rotate", "billing", "--urgent", "x" * 300, fails=True)
    assert word(scene, URGENT_ANNOTATION) == leaked


@pytest.mark.parametrize("phase", ["Starting", "Soaking", "Finalizing", "Blocked"])
def test_cancel_names_the_rotation_that_runs(scene: Scene, phase: str) -> None:
    put_status(scene, phase, {"phase": "RollingOut"} if phase == "Blocked" else {})
    assert keyturn(scene, "cancel", "billing") == f"asked to cancel rotation {ID} of billing"
    assert word(scene, CANCEL_ANNOTATION) == ID
    assert word(scene, RESUME_ANNOTATION) is None


@pytest.mark.parametrize(
    ("phase", "rotation", "words"),
    [
        ("Completed", None, "no rotation of billing runs; to keep the next one from starting: kubectl keyturn suspend"),
        ("Cancelling", {"cancelReason": "it broke"}, f"rotation {ID} of billing is being cancelled already: it broke"),
        ("RollingOut", {"previousValidUntil": NOW}, "refuses the previous one from 2026-11-22T00:15:00Z on"),
    ],
)
def test_cancel_says_why_there_is_no_way_back(
    scene: Scene, phase: str, rotation: dict[str, Any] | None, words: str
) -> None:
    put_status(scene, phase, rotation)
    said = keyturn(scene, "cancel", "billing", fails=True)
    assert said.startswith("kubectl keyturn: ")
    assert words in said
    assert "\n" not in said
    assert word(scene, CANCEL_ANNOTATION) is None


def test_what_does_not_exist_is_named(scene: Scene) -> None:
    for verb in ("cancel", "resume", "status"):
        said = keyturn(scene, verb, "nobody", fails=True)
        assert said == f"kubectl keyturn: ClientSecretRotation nobody does not exist in namespace {scene.namespace}"


def test_resume_says_a_new_word_each_time(scene: Scene) -> None:
    """Each is followed once, so a second one must differ; what is suspended besides may start again."""
    put_status(scene, "Blocked", {"phase": "RollingOut"})
    words = set()
    for _ in range(2):
        assert keyturn(scene, "resume", "billing") == f"asked rotation {ID} of billing to go on"
        words.add(word(scene, RESUME_ANNOTATION))
    keyturn(scene, "suspend", "billing")
    assert keyturn(scene, "resume", "billing").splitlines() == [
        "resumed billing",
        f"asked rotation {ID} of billing to go on",
    ]
    assert not scene.rotation()["spec"]["suspend"]
    words.add(word(scene, RESUME_ANNOTATION))
    assert len(words) == 3
    assert all(str(said).startswith(f"{ID}-") for said in words)
    assert word(scene, CANCEL_ANNOTATION) is None


@pytest.mark.parametrize(
    "rotation", [None, {"phase": "Starting"}, {"phase": "RollingOut", "restoredTime": NOW}], ids=str
)
def test_resume_is_no_remedy_for_what_is_blocked_otherwise(scene: Scene, rotation: dict[str, Any] | None) -> None:
    put_status(scene, "Blocked", rotation, **stalled("ForeignRotation", "cancel it there"))
    said = keyturn(scene, "resume", "billing", fails=True)
    assert said == "kubectl keyturn: billing waits for something else than a word to go on: cancel it there"
    assert word(scene, RESUME_ANNOTATION) is None


def test_resume_of_what_goes_on_anyway_does_nothing(scene: Scene) -> None:
    put_status(scene, "RollingOut", {})
    before = scene.rotation()["metadata"]["resourceVersion"]
    assert keyturn(scene, "resume", "billing").endswith("nothing to resume")
    assert scene.rotation()["metadata"]["resourceVersion"] == before


def test_status_tells_what_holds_a_rotation_and_how_the_last_ones_ended(scene: Scene) -> None:
    job = {"kind": "Job", "name": "report", "state": "Held", "desired": 1, "message": "[it] must end or be deleted"}
    web = {"kind": "Deployment", "name": "web", "state": "Ready", "updated": 3, "desired": 3, "restarted": True}
    past = {"reason": "RotationRequest", "startedTime": NOW, "finishedTime": NOW, "result": "Completed", "message": "m"}
    ended = [
        {**past, "id": "r-3", "previousRefused": True},
        {**past, "id": "r-2", "previousRefused": False},
        {**past, "id": "r-1"},
    ]
    rotation = {"phase": "RollingOut", "wave": 1, "targets": [web, job]}
    more = stalled("RolloutTimeout", "the rollout took too long")
    put_status(scene, "Blocked", rotation, lastRotation=ended[0], history=ended, **more)
    where = f"billing -n {scene.namespace}"
    assert keyturn(scene, "status", "billing").splitlines() == [
        f"{scene.namespace}/billing  Blocked",
        f"  rotation {ID}: RollingOut since 2026-11-22T00:15:00Z, wave 1",
        f"  to go on: kubectl keyturn resume {where}; to go back: kubectl keyturn cancel {where}",
        "  Deployment/web: Ready 3/3",
        "  Job/report: Held 0/1 [it] must end or be deleted",
        "  Stalled=True RolloutTimeout: the rollout took too long",
        "  2026-11-22T00:15:00Z r-3 Completed: m (previous value: refused)",
        "  2026-11-22T00:15:00Z r-2 Completed: m (previous value: still accepted)",
        "  2026-11-22T00:15:00Z r-1 Completed: m",
    ]
    put_status(scene, "Soaking", {"previousValidUntil": NOW, "wave": None})
    assert (
        keyturn(scene, "status", "billing").splitlines()[1].endswith("previous value valid until 2026-11-22T00:15:00Z")
    )


def test_a_held_rotation_goes_on_and_one_that_rolls_out_goes_back(scene: Scene) -> None:
    """I3: on the user's word, with both values alive until then, and not one refused call."""
    scene.put_deployment(replicas=2, annotations=NEVER_READY)
    scene.account.simulator.switches.propagation_delay = HOLD
    scene.operator()
    scene.put_rotation(onFailure="Hold", verify={"timeout": "1s"})
    scene.wait_phase("Blocked")
    first = scene.status()["rotation"]
    assert "kubectl keyturn resume billing" in keyturn(scene, "status", "billing")

    assert keyturn(scene, "resume", "billing") == f"asked rotation {first['id']} of billing to go on"
    heard = scene.wait(lambda: scene.status()["rotation"].get("resumed"), "the word was heard")
    assert heard == word(scene, RESUME_ANNOTATION)
    assert scene.status()["rotation"]["phaseStartedTime"] > first["phaseStartedTime"]
    scene.wait_phase("Blocked")  # its time is over again, and a word is followed once

    let_verify(scene)
    scene.wait_phase("RollingOut")
    assert keyturn(scene, "cancel", "billing") == f"asked to cancel rotation {first['id']} of billing"
    assert_cancelled(scene, restarts=2)
    assert CANCEL_ANNOTATION in scene.status()["lastRotation"]["message"]


def test_suspended_then_resumed_it_completes_and_the_old_value_was_seen_refused(scene: Scene) -> None:
    scene.put_deployment(replicas=1)
    scene.put_rotation(None)
    scene.operator()
    assert keyturn(scene, "suspend", "billing") == "suspended billing"
    assert keyturn(scene, "rotate", "billing", "--request", "b") == "requested rotation b of billing"
    generation = scene.rotation()["metadata"]["generation"]
    scene.wait(lambda: scene.status().get("observedGeneration") == generation, "the request was seen")
    assert scene.status().get("rotation") is None
    assert keyturn(scene, "resume", "billing") == "resumed billing"
    scene.wait_ended()
    assert scene.status()["lastRotation"]["previousRefused"] is True
    assert keyturn(scene, "status", "billing").splitlines()[-1].endswith("(previous value: refused)")
    header, line = keyturn(scene, "status").splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "PHASE", "READY", "LAST", "MESSAGE"]
    assert line.split()[:4] == [scene.namespace, "billing", "Completed", "True"]
    assert line.endswith(scene.status()["lastRotation"]["message"])


@pytest.mark.parametrize("provider", ["janrain_scene", "snaptrade_scene"])
def test_a_value_that_cannot_be_taken_back_is_not_cancelled(request: pytest.FixtureRequest, provider: str) -> None:
    """Where the provider takes nothing back, the plugin says so, and the rotation goes on to its end."""
    scene: Scene = request.getfixturevalue(provider)
    scene.put_deployment(replicas=1, annotations={"sandbox.keyturn.dev/ready-after-when-stamped": "8s"})
    scene.operator()
    scene.put_rotation(acceptDowntime=True)
    scene.wait_phase("RollingOut")
    assert "does not take a new value back" in keyturn(scene, "cancel", "billing", fails=True)
    scene.wait_ended()
