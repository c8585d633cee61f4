"""What keeps the old value alive until nothing needs it: users and controllers at work in the middle of a rollout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox.controlplane.components import minor
from sandbox.kubelet.behaviour import Kind, unless
from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled, assert_completed, let_the_second_of_the_write_pass
from tests.e2e.recorder import Recorder
from tests.e2e.scene import Scene
from tests.e2e.together import Together

_PREFIX: Final = "sandbox.keyturn.dev/"
_SLOWLY: Final = {f"{_PREFIX}ready-after": "1s", f"{_PREFIX}terminate-after": "1s"}
_NEVER_READY: Final = {f"{_PREFIX}behavior-when-stamped": "never-ready"}
_READER: Final = {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}]}
_LIMIT: Final = 10.0
_LIMITED: Final = {"timeout": f"{_LIMIT:g}s"}


@pytest.fixture(scope="module")
def together(stage: Stage) -> Iterator[Together]:
    with Together.on(stage, "gates") as together:
        together.start_operator()
        yield together


# --- helpers -------------------------------------------------------------------------------------------------------


def begin(scene: Scene, **spec: Any) -> None:
    """Start the rotation, and return when Keyturn has restarted `web`."""
    scene.put_rotation(**spec)
    scene.wait(scene.stamps, "web is restarted")


def scale(scene: Scene, replicas: int, name: str = "web") -> None:
    """What a HorizontalPodAutoscaler does."""
    scene.patch(f"{scene.deployment_path(name)}/scale", {"spec": {"replicas": replicas}})


def pause(scene: Scene, *, paused: bool) -> None:
    """What `kubectl rollout pause` and `resume` do."""
    scene.patch(scene.deployment_path(), {"spec": {"paused": paused}})


def say_cancel(scene: Scene) -> None:
    running = scene.status()["rotation"]["id"]
    scene.patch(scene.rotation_path, {"metadata": {"annotations": {"keyturn.dev/cancel": running}}})


def target(scene: Scene, name: str = "web") -> dict[str, Any]:
    targets = (scene.status().get("rotation") or {}).get("targets", [])
    return next((found for found in targets if found["name"] == name), {})


def wait_target(scene: Scene, state: str, name: str = "web") -> None:
    scene.wait(lambda: target(scene, name).get("state") == state, f"{name} is {state}")


def wait_too_long(scene: Scene) -> None:
    """Until the phase has lasted longer than spec.rollout.timeout."""
    begun = datetime.fromisoformat(scene.status()["rotation"]["phaseStartedTime"])
    scene.wait(lambda: (datetime.now(UTC) - begun).total_seconds() > _LIMIT + 1, "spec.rollout.timeout is over")


def dropped(scene: Scene) -> float:
    """When the provider dropped the old value."""
    return float(scene.account.simulator.counters[scene.client_id]["rotate"]["applied"].times[0])


def assert_dropped_last(scene: Scene) -> None:
    """I4: every pod that called with the old value had ended before the provider dropped it."""
    ends = [pod.stopped for pod in scene.traffic() if fingerprint(scene.first_secret) in pod.values]
    assert ends
    assert all(end is not None and end < dropped(scene) for end in ends)


def pods(scene: Scene, name: str) -> list[dict[str, Any]]:
    listed = scene.get(f"/api/v1/namespaces/{scene.namespace}/pods?labelSelector=app%3D{name}")
    assert listed is not None
    return list(listed["items"])


def show_ready(scene: Scene, pod: str, ready: str) -> None:
    """What a kubelet shows when a readiness probe changes its mind."""
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{pod}"
    conditions = (scene.get(path) or {})["status"]["conditions"]
    for condition in conditions:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = ready
    scene.patch(f"{path}/status", {"status": {"conditions": conditions}})


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


# --- what takes longer than spec.rollout.timeout, side by side -----------------------------------------------------


@pytest.fixture(scope="module")
def waiting(together: Together) -> dict[str, Scene]:
    """Rotations that wait for what only others can do; each test sees one of them through."""
    names = ("paused before", "paused in the middle", "paused on the way back", "held", "held on the way back", "fail")
    scenes = {name: together.scene(name) for name in names}
    for name, scene in scenes.items():
        behaviour = {"paused on the way back": _NEVER_READY, "paused in the middle": {f"{_PREFIX}ready-after": "3s"}}
        scene.put_deployment(replicas=2, annotations=behaviour.get(name, _SLOWLY), wait=False)
    scenes["paused before"].put_deployment("other", replicas=1, wait=False)
    put_job(scenes["held"])
    put_pod(scenes["held"])
    put_pod(scenes["fail"])
    for scene in scenes.values():
        scene.wait_available("web", 2)
    scenes["paused before"].wait_available("other", 1)
    for name in ("held", "fail"):
        callers = 4 if name == "held" else 3
        scenes[name].wait(lambda name=name, callers=callers: len(scenes[name].running()) == callers, "all call")  # type: ignore[misc]
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
    scene.wait(lambda: len(new_callers(scene)) == 3, "the Job calls with the new value")
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


# --- what others do while a rollout runs ---------------------------------------------------------------------------


def test_scaled_up_and_down_in_the_middle(together: Together) -> None:
    """I4, I7: as an autoscaler does: while the old pods are replaced, and again in the soak, which begins anew."""
    scene = together.scene("scaled")
    scene.put_deployment(replicas=2, annotations=_SLOWLY)
    begin(scene, soak="2s")
    for replicas in (5, 1):
        scale(scene, replicas)
        scene.wait(lambda replicas=replicas: target(scene).get("desired") == replicas, f"{replicas} are wanted")  # type: ignore[misc]
    scene.wait_phase("Soaking")
    scale(scene, 3)
    scene.wait_phase("RollingOut")
    scene.wait_available("web", 3)
    available = time.time()
    assert_completed(scene)
    assert_dropped_last(scene)
    assert dropped(scene) > available + 1


def test_a_disruption_budget_that_allows_nothing(together: Together) -> None:
    """I4, I7: it is meant for evictions, which a rollout does not use; nothing hangs."""
    scene = together.scene("budget")
    scene.put_deployment(replicas=2, annotations=_SLOWLY)
    version = "v1" if minor(scene.stage.control_plane.version) >= 21 else "v1beta1"
    spec = {"minAvailable": "100%", "selector": {"matchLabels": {"app": "web"}}}
    scene.put(
        {"apiVersion": f"policy/{version}", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": spec}
    )
    path = f"/apis/policy/{version}/namespaces/{scene.namespace}/poddisruptionbudgets/web"

    def counted() -> dict[str, Any]:
        status: dict[str, Any] = (scene.get(path) or {}).get("status", {})
        return status

    scene.wait(lambda: counted().get("currentHealthy") == 2, "the budget counts both pods")
    assert counted()["disruptionsAllowed"] == 0
    begin(scene)
    assert_completed(scene)
    assert_dropped_last(scene)


def test_scaled_from_and_to_nothing(together: Together) -> None:
    """I4, I7: pods that begin after the write need no restart, and those that end are waited for."""
    scene = together.scene("nothing")
    scene.put_deployment(replicas=1, annotations=_SLOWLY, wait=False)
    scene.put_deployment("asleep", replicas=0, wait=False)
    scene.put_deployment("leaving", replicas=2, annotations={f"{_PREFIX}terminate-after": "4s"}, wait=False)
    for name, replicas in (("web", 1), ("leaving", 2)):
        scene.wait_available(name, replicas)
    scene.account.simulator.switches.propagation_delay = 600
    scene.put_rotation()
    scene.wait_phase("Verifying")
    scale(scene, 0, "leaving")
    scene.account.simulator.advance(600)
    scene.wait(scene.stamps, "web is restarted")
    scene.wait(lambda: "distributedTime" in scene.status()["rotation"], "the write is recorded")
    let_the_second_of_the_write_pass(scene)
    scale(scene, 2, "asleep")
    assert_completed(scene)
    assert_dropped_last(scene)
    scene.wait_available("asleep", 2)
    assert scene.restarts("asleep") == 0


def test_an_old_replicaset_scaled_by_hand(together: Together) -> None:
    """I4, I7: its controller sets that right again; what is gained so is waited for, whatever value it got."""
    scene = together.scene("old replicaset")
    scene.put_deployment(replicas=2, annotations=_SLOWLY)
    begin(scene)
    listed = scene.get(f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets") or {}
    stamped = [item["spec"]["template"]["metadata"]["annotations"] for item in listed["items"]]
    [old] = [
        item
        for item, annotations in zip(listed["items"], stamped, strict=True)
        if "keyturn.dev/rotation" not in annotations
    ]
    name = old["metadata"]["name"]
    scene.patch(f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets/{name}/scale", {"spec": {"replicas": 5}})
    scene.wait(lambda: len([pod for pod in pods(scene, "web") if owner(pod) == name]) > 2, "it has more pods")
    assert_completed(scene)
    assert_dropped_last(scene)
    ended = [pod.stopped for pod in scene.traffic() if pod.owner == f"ReplicaSet/{name}"]
    assert all(end is not None and end < dropped(scene) for end in ended)


def owner(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["name"])


def test_a_pod_that_becomes_unready_in_the_soak(together: Together) -> None:
    """I4: the soak begins anew when everything is ready again, and the old value lives that much longer."""
    scene = together.scene("unready")
    scene.put_deployment(replicas=2)
    with Recorder(scene) as recorder:
        begin(scene, soak="3s")
        scene.wait_phase("Soaking")
        pod = pods(scene, "web")[0]["metadata"]["name"]
        show_ready(scene, pod, "False")
        scene.wait_phase("RollingOut")
        show_ready(scene, pod, "True")
        ready = time.time()
        scene.wait_phase("Soaking")
        assert_completed(scene)
    assert dropped(scene) > ready + 3
    soaks = {
        status["rotation"]["phaseStartedTime"] for status in recorder.statuses() if status.get("phase") == "Soaking"
    }
    assert len(soaks) == 2


# --- what a controller has said of an older generation --------------------------------------------------------------


@contextmanager
def controllers_stopped(stage: Stage) -> Iterator[None]:
    """SIGSTOP for this control plane's controller manager, as if it were slow."""
    directory = str(stage.control_plane.directory)
    [pid] = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and runs_controllers(entry, directory)
    ]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def runs_controllers(process: Path, directory: str) -> bool:
    try:
        command = (process / "cmdline").read_text().split("\0")
    except OSError:
        return False  # it has ended
    return command[0].endswith("kube-controller-manager") and any(directory in word for word in command)


def test_the_status_of_an_older_generation_never_counts(together: Together, stage: Stage) -> None:
    """I4: neither its failure, when Keyturn has just restarted it, nor its success, when a user has in the soak."""
    scene = together.scene("generations")
    scene.put_deployment(replicas=2, progress_deadline=1)
    broken = {f"{_PREFIX}behavior": "never-ready", f"{_PREFIX}behavior-when-stamped": "run"}
    scene.patch(scene.deployment_path(), {"spec": {"template": {"metadata": {"annotations": broken}}}})

    def failed() -> bool:
        conditions = ((scene.get(scene.deployment_path()) or {}).get("status") or {}).get("conditions") or []
        return any(condition.get("reason") == "ProgressDeadlineExceeded" for condition in conditions)

    scene.wait(failed, "the user's rollout has failed")
    scene.patch(scene.deployment_path(), {"spec": {"progressDeadlineSeconds": 600}})
    with controllers_stopped(stage):
        scene.put_rotation(soak="4s")
        wait_target(scene, "Rolling")
        assert target(scene)["restarted"]
        together.start_operator()
        together.wait_looked(scene)
        assert scene.status()["phase"] == "RollingOut"
        assert failed()
    scene.wait_phase("Soaking")
    with controllers_stopped(stage):
        scene.restart_by_user()
        scene.wait_phase("RollingOut")
        assert (scene.get(scene.deployment_path()) or {})["status"]["availableReplicas"] == 2
        together.start_operator()
        together.wait_looked(scene)
        assert scene.status()["phase"] == "RollingOut"
        going = time.time()
    scene.wait_ended()
    assert dropped(scene) > going + 4
    assert scene.calls()["refused"] == 0
    assert len(scene.stamps()) == 1
