"""What keeps the old value alive until nothing needs it: users and controllers at work in the middle of a rollout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from tests.e2e.crash import assert_completed, let_the_second_of_the_write_pass
from tests.e2e.recorder import Recorder
from tests.e2e.rollout import assert_dropped_last, dropped, target, wait_target
from tests.e2e.scene import Scene
from tests.e2e.together import Together

_PREFIX: Final = "sandbox.keyturn.dev/"
_SLOWLY: Final = {f"{_PREFIX}ready-after": "1s", f"{_PREFIX}terminate-after": "1s"}


@pytest.fixture(scope="module")
def together(stage: Stage) -> Iterator[Together]:
    with Together.on(stage, "gates") as together:
        together.start_operator()
        yield together


def begin(scene: Scene, **spec: Any) -> None:
    """Start the rotation, and return when Keyturn has restarted `web`."""
    scene.put_rotation(**spec)
    scene.wait(scene.stamps, "web is restarted")


def scale(scene: Scene, replicas: int, name: str = "web") -> None:
    """What a HorizontalPodAutoscaler does."""
    scene.patch(f"{scene.deployment_path(name)}/scale", {"spec": {"replicas": replicas}})


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
    """I4, I7: in the middle and in the soak. Its controller sets that right; what pods that gave are waited for."""
    scene = together.scene("old replicaset")
    scene.put_deployment(replicas=2, annotations=_SLOWLY)
    listed = scene.get(f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets") or {}
    name = listed["items"][0]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets/{name}"
    begin(scene, soak="2s")
    for moment in ("RollingOut", "Soaking"):
        scene.wait_phase(moment)
        scene.patch(f"{path}/scale", {"spec": {"replicas": 5}})
        scene.wait(lambda: (scene.get(path) or {})["spec"]["replicas"] < 5, "its controller has set that right")
    assert_completed(scene)
    assert_dropped_last(scene)
    ended = [pod.stopped for pod in scene.traffic() if pod.owner == f"ReplicaSet/{name}"]
    assert all(end is not None and end < dropped(scene) for end in ended)


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
        together.look_again(scene)
        assert scene.status()["phase"] == "RollingOut"
        assert failed()
    scene.wait_phase("Soaking")
    with controllers_stopped(stage):
        scene.restart_by_user()
        scene.wait_phase("RollingOut")
        assert (scene.get(scene.deployment_path()) or {})["status"]["availableReplicas"] == 2
        together.look_again(scene)
        assert scene.status()["phase"] == "RollingOut"
        going = time.time()
    scene.wait_ended()
    assert dropped(scene) > going + 4
    assert scene.calls()["refused"] == 0
    assert len(scene.stamps()) == 1


def test_a_users_restart_that_its_controller_has_not_seen_yet(together: Together, stage: Stage) -> None:
    """I7: its pods will begin on the new value; nobody knows that before there is a ReplicaSet, so it is waited for."""
    scene = together.scene("unseen")
    scene.put_deployment(replicas=2)
    scene.account.simulator.switches.propagation_delay = 600
    scene.put_rotation()
    scene.wait_phase("Verifying")
    with controllers_stopped(stage):
        scene.restart_by_user()
        scene.account.simulator.advance(600)
        scene.wait_phase("RollingOut")
        let_the_second_of_the_write_pass(scene)
        together.look_again(scene)
    scene.wait_ended()
    assert scene.stamps() == set()
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0
