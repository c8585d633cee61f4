"""What only others can end, and takes longer than a rollout may: paused Deployments, Jobs, pods by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from sandbox.kubelet.behaviour import Kind, unless
from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled, assert_completed
from tests.e2e.rollout import assert_dropped_last, target, wait_target
from tests.e2e.scene import Scene
from tests.e2e.together import Together

_PREFIX: Final = "sandbox.keyturn.dev/"
_SLOWLY: Final = {f"{_PREFIX}ready-after": "2s", f"{_PREFIX}terminate-after": "1s"}
_NEVER_READY: Final = {f"{_PREFIX}behavior-when-stamped": "never-ready"}
_READER: Final = {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}]}
_LIMIT: Final = 10.0
_LIMITED: Final = {"timeout": f"{_LIMIT:g}s"}


def pause(scene: Scene, *, paused: bool) -> None:
    """What `kubectl rollout pause` and `resume` do."""
    scene.patch(scene.deployment_path(), {"spec": {"paused": paused}})


def say_cancel(scene: Scene) -> None:
    running = scene.status()["rotation"]["id"]
    scene.patch(scene.rotation_path, {"metadata": {"annotations": {"keyturn.dev/cancel": running}}})


def wait_too_long(scene: Scene) -> None:
    """Until the phase has lasted longer than spec.rollout.timeout."""
    begun = datetime.fromisoformat(scene.status()["rotation"]["phaseStartedTime"])
    scene.wait(lambda: (datetime.now(UTC) - begun).total_seconds() > _LIMIT + 1, "spec.rollout.timeout is over")


def client(scene: Scene) -> dict[str, str]:
    """Annotations of pods that call the provider with what they read."""
    return {
        "client.sandbox.keyturn.dev/kind": scene.account.kind,
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": scene.client_id,
    }


def put_pod(scene: Scene) -> None:
    """A pod by itself, `batch`, that reads the Secret."""
    metadata = {"name": "batch", "annotations": client(scene)}
    scene.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _READER})


def put_job(scene: Scene) -> None:
    """A Job, `report`, that reads the Secret and runs until `end_job`."""
    scene.put_secret("switch", {"work": "there is"})
    app = {**_READER["containers"][0], "volumeMounts": [{"name": "switch", "mountPath": "/switch"}]}
    volumes = [{"name": "switch", "secret": {"secretName": "switch"}}]
    behaviour = {f"{_PREFIX}behavior": "run", **unless(Kind.CRASH_LOOP, "switch", "work", "there is")}
    template = {
        "metadata": {"annotations": {**client(scene), **behaviour}},
        "spec": {"containers": [app], "volumes": volumes, "restartPolicy": "Never"},
    }
    spec = {"template": template, "backoffLimit": 0}
    scene.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "report"}, "spec": spec})


def end_job(scene: Scene) -> None:
    scene.put_secret("switch", {"work": "is done"})


@pytest.fixture(scope="module")
def waiting(stage: Stage) -> Iterator[dict[str, Scene]]:
    """Rotations that wait for what only others can do; each test sees one of them through."""
    with Together.on(stage, "waiting") as together:
        together.start_operator()
        yield all_waiting(together)


def all_waiting(together: Together) -> dict[str, Scene]:
    names = ("paused before", "paused in the middle", "paused on the way back", "held", "held on the way back", "fail")
    scenes = {name: together.scene(name) for name in names}
    for name, scene in scenes.items():
        behaviour = _NEVER_READY if name.endswith("on the way back") else _SLOWLY
        scene.put_deployment(replicas=2, annotations=behaviour, wait=False)
    scenes["paused before"].put_deployment("other", replicas=1, wait=False)
    put_job(scenes["held"])
    put_pod(scenes["held"])
    put_pod(scenes["fail"])
    for scene in scenes.values():
        scene.wait_available("web", 2)
    scenes["paused before"].wait_available("other", 1)
    for scene, callers in ((scenes["held"], 4), (scenes["fail"], 3)):
        scene.wait(lambda scene=scene, callers=callers: len(scene.running()) == callers, "all call")  # type: ignore[misc]
    pause(scenes["paused before"], paused=True)
    for scene in scenes.values():
        scene.put_rotation(rollout={**_LIMITED, "unrestartable": "Fail" if scene is scenes["fail"] else "Hold"})
    scene = scenes["paused in the middle"]
    scene.wait(scene.stamps, "the restart")
    pause(scene, paused=True)
    scene = scenes["paused on the way back"]
    scene.wait(scene.stamps, "the restart")
    pause(scene, paused=True)
    say_cancel(scene)
    scene = scenes["held on the way back"]
    scene.wait(scene.stamps, "the restart")
    put_job(scene)
    scene.wait(lambda: len(new_callers(scene)) == 2, "the Job calls with the new value")
    say_cancel(scene)
    return scenes


def new_callers(scene: Scene) -> list[str]:
    """The running pods that call with the new value."""
    return [pod.pod for pod in scene.running() if set(pod.values) - {fingerprint(scene.first_secret)}]


def test_a_paused_deployment_is_named_at_once_and_waited_for(waiting: dict[str, Scene]) -> None:
    """I4, I7: not stamped while it is paused, nor resumed by Keyturn; the others go on; its time does not run out."""
    scene = waiting["paused before"]
    message = scene.wait_stalled("WorkloadPaused")
    assert "Deployment/web" in message
    assert "spec.paused" in message
    wait_target(scene, "Ready", "other")
    wait_too_long(scene)
    assert target(scene)["state"] == "Held"
    assert (scene.status()["phase"], scene.restarts(), scene.applied("rotate")) == ("RollingOut", 0, 0)
    assert owned_by_keyturn(scene) == []
    pause(scene, paused=False)
    assert_completed(scene)
    assert_dropped_last(scene)
    assert owned_by_keyturn(scene) == ["keyturn.dev/rotation"]


def owned_by_keyturn(scene: Scene) -> list[str]:
    """The leaves of what the API server knows as Keyturn's in the Deployment."""
    entries = (scene.get(scene.deployment_path()) or {})["metadata"]["managedFields"]
    owned = [entry["fieldsV1"] for entry in entries if entry["manager"] == "keyturn"]
    return [leaf for fields in owned for leaf in leaves(fields)]


def leaves(fields: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, inner in fields.items():
        found += leaves(inner) if inner and set(inner) != {"."} else [name.removeprefix("f:")]
    return found


def test_paused_in_the_middle_of_its_rollout(waiting: dict[str, Scene]) -> None:
    """I4, I7: stamped, and then paused with old pods left."""
    scene = waiting["paused in the middle"]
    scene.wait_stalled("WorkloadPaused")
    wait_too_long(scene)
    assert target(scene)["state"] == "Held"
    assert (scene.status()["phase"], scene.applied("rotate")) == ("RollingOut", 0)
    pause(scene, paused=False)
    assert_completed(scene)
    assert_dropped_last(scene)


def test_paused_on_the_way_back(waiting: dict[str, Scene]) -> None:
    """I3, I4: the previous value is in the Secret again, and the new one lives on as long as pods may run on it."""
    scene = waiting["paused on the way back"]
    scene.wait_phase("Cancelling")
    scene.wait_stalled("WorkloadPaused")
    wait_too_long(scene)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert new_callers(scene)
    assert (scene.status()["phase"], scene.restarts(), scene.applied("cancel")) == ("Cancelling", 1, 0)
    pause(scene, paused=False)
    assert_cancelled(scene, restarts=2)


def test_a_job_and_a_pod_hold_the_old_value_alive(waiting: dict[str, Scene]) -> None:
    """I4: however long they run; after the time that a rollout may take a person is told."""
    scene = waiting["held"]
    wait_target(scene, "Ready")
    message = scene.wait_stalled("RolloutHeld")
    assert "Job/report" in message
    assert "and 1 more" in message
    wait_too_long(scene)
    assert [target(scene, name)["state"] for name in ("batch", "report", "web")] == ["Held", "Held", "Ready"]
    assert (scene.status()["phase"], scene.applied("rotate")) == ("RollingOut", 0)
    end_job(scene)
    scene.wait(lambda: not target(scene, "report"), "the Job has ended")
    assert "Pod/batch" in scene.wait_stalled("RolloutHeld")
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/batch")
    assert_completed(scene)
    assert_dropped_last(scene)


def test_a_job_holds_the_new_value_alive_on_the_way_back(waiting: dict[str, Scene]) -> None:
    """I3, I4: it began in the middle, on the new value, and nobody can give it another one."""
    scene = waiting["held on the way back"]
    wait_target(scene, "Ready")
    wait_target(scene, "Held", "report")
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert (scene.status()["phase"], scene.applied("cancel")) == ("Cancelling", 0)
    end_job(scene)
    assert_cancelled(scene, restarts=2)


def test_what_counts_as_rollout_leads_back(waiting: dict[str, Scene]) -> None:
    """I3, I7: unrestartable: Fail; the pod runs on, on the value that it always had."""
    scene = waiting["fail"]
    assert_cancelled(scene, restarts=2)
    assert "Pod/batch" in scene.status()["lastRotation"]["message"]
    assert "batch" in {pod.pod for pod in scene.running()}
