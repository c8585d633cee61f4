"""The stand-in for the controller of Argo Rollouts, with the real ReplicaSet controller, judged by traffic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from sandbox.argo.desired import limits, to_restart
from sandbox.controlplane.components import minor
from sandbox.kubelet import Kind, unless
from sandbox.stage import Stage, wait_until
from tests.e2e.scene import Scene

APPS = "apps/v1"


@pytest.fixture(scope="module", autouse=True)
def rollouts(stage: Stage) -> Iterator[None]:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rollouts.argoproj.io"
    with stage.rollouts():
        yield
    assert stage.api.http.get(path).status_code == 404


def pod_template(scene: Scene, annotations: dict[str, str]) -> dict[str, Any]:
    client = {
        "client.sandbox.keyturn.dev/kind": scene.account.kind,
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": scene.client_id,
    }
    container = {"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}
    meta = {"labels": {"app": "web"}, "annotations": client | annotations}
    return {"metadata": meta, "spec": {"containers": [container]}}


def put_rollout(scene: Scene, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    whole = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": pod_template(scene, annotations or {}),
        "strategy": {"canary": {}},
        **spec,
    }
    without_none = {key: value for key, value in whole.items() if value is not None}
    scene.put(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"}, "spec": without_none}
    )


def rollout_path(scene: Scene) -> str:
    return f"/apis/argoproj.io/v1alpha1/namespaces/{scene.namespace}/rollouts/web"


def status(scene: Scene) -> dict[str, Any]:
    """The status, once the controller has seen the newest spec; nothing before."""
    found = scene.get(rollout_path(scene)) or {}
    shown: dict[str, Any] = found.get("status", {})
    return shown if shown.get("observedGeneration") == str(found["metadata"]["generation"]) else {}


def wait_phase(scene: Scene, phase: str, seconds: float = 15) -> dict[str, Any]:
    wait_until(lambda: status(scene).get("phase") == phase, f"the Rollout is {phase}: {status(scene)}", seconds=seconds)
    return status(scene)


def pods(scene: Scene) -> dict[str, dict[str, Any]]:
    listed = scene.get(f"/api/v1/namespaces/{scene.namespace}/pods") or {}
    return {item["metadata"]["name"]: item for item in listed["items"]}


def living(scene: Scene) -> set[str]:
    return {name for name, pod in pods(scene).items() if "deletionTimestamp" not in pod["metadata"]}


def assert_nothing_changes(scene: Scene) -> None:
    """For longer than a restart takes."""
    before = living(scene)
    with pytest.raises(TimeoutError):
        wait_until(lambda: living(scene) != before, "the pods change", seconds=2)


def replicasets(scene: Scene) -> list[dict[str, Any]]:
    listed = scene.get(f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets") or {}
    return [item for item in listed["items"] if item["metadata"]["ownerReferences"][0]["kind"] == "Rollout"]


def restart(scene: Scene, after: float = 1) -> str:
    """Ask for a restart of everything that was created until now; spec.restartAt."""
    at = (datetime.now(UTC) + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%SZ")
    scene.patch(rollout_path(scene), {"spec": {"restartAt": at}})
    return at


def test_restart_replaces_every_pod_of_the_same_template_and_few_at_a_time(scene: Scene) -> None:
    put_rollout(scene, {"sandbox.keyturn.dev/ready-after": "300ms"})
    up = wait_phase(scene, "Healthy")
    assert {up[field] for field in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")} == {3}
    assert up["currentPodHash"] == up["stableRS"]
    (replicaset,) = replicasets(scene)
    assert replicaset["metadata"]["labels"]["rollouts-pod-template-hash"] == up["stableRS"]
    before = set(pods(scene))
    at = restart(scene)
    wait_until(lambda: status(scene).get("restartedAt") == at and status(scene)["phase"] == "Healthy", "restarted")
    wait_until(lambda: len(pods(scene)) == 3, "the old pods are gone")
    assert not before & set(pods(scene))
    assert len(replicasets(scene)) == 1
    wait_until(lambda: len(scene.traffic()) == 6, "the last pod calls, too")
    starts = sorted(pod.started for pod in scene.traffic() if pod.pod not in before)
    assert all(later - earlier > 0.3 for earlier, later in pairwise(starts)), "one after the other was ready"
    assert [pod.calls.refused.count for pod in scene.traffic()] == [0] * 6


def test_a_template_is_rolled_out_unless_paused_and_a_restart_is_not_kept_by_that(scene: Scene) -> None:
    put_rollout(scene)
    first = wait_phase(scene, "Healthy")
    put_rollout(scene, {"version": "2"})
    wait_until(lambda: status(scene).get("stableRS") not in (None, first["stableRS"]), "the second is stable")
    second = wait_phase(scene, "Healthy")
    assert sorted(item["spec"]["replicas"] for item in replicasets(scene)) == [0, 3]

    put_rollout(scene, {"version": "3"}, paused=True)
    paused = wait_phase(scene, "Paused")
    assert paused["stableRS"] == second["stableRS"] != paused["currentPodHash"]
    assert "updatedReplicas" not in paused, "Go leaves out a zero"
    old = set(pods(scene))
    at = restart(scene)
    wait_until(lambda: status(scene).get("restartedAt") == at, "restarted while paused")
    wait_until(lambda: not old & set(pods(scene)), "all are new")
    hashes = {pod["metadata"]["labels"]["rollouts-pod-template-hash"] for pod in pods(scene).values()}
    assert (hashes, status(scene)["phase"]) == ({second["stableRS"]}, "Paused")

    put_rollout(scene, paused=False)  # the first template again
    wait_until(lambda: status(scene).get("stableRS") == first["stableRS"], "back at the first template")
    wait_phase(scene, "Healthy")
    revisions = {item["metadata"]["annotations"]["rollout.argoproj.io/revision"] for item in replicasets(scene)}
    assert revisions == {"2", "3", "4"}


def test_a_restart_that_never_becomes_ready_stops_there_and_so_does_the_next(scene: Scene) -> None:
    broken = unless(Kind.NEVER_READY, "m2m", "CLIENT_SECRET", scene.first_secret)
    put_rollout(scene, broken, progressDeadlineSeconds=2)
    wait_phase(scene, "Healthy")
    old = set(pods(scene))
    scene.put_secret("m2m", {"CLIENT_SECRET": "wrong", "OTHER": "untouched"})
    restart(scene)
    degraded = wait_phase(scene, "Degraded")
    assert degraded["message"].startswith("ProgressDeadlineExceeded: ReplicaSet")
    assert "restartedAt" not in degraded
    stuck = set(pods(scene)) - old
    assert (len(stuck), len(living(scene) & old)) == (1, 2)

    scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})
    at = restart(scene)
    assert_nothing_changes(scene)
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{stuck.pop()}")
    wait_until(lambda: not old & set(pods(scene)), "the others follow as soon as somebody has removed the stuck one")
    assert wait_phase(scene, "Healthy")["restartedAt"] == at


def test_a_pod_disruption_budget_holds_a_restart(scene: Scene) -> None:
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    version = "policy/v1" if minor(scene.stage.control_plane.version) > 20 else "policy/v1beta1"
    scene.put({"apiVersion": version, "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget})
    put_rollout(scene, replicas=2, strategy={"canary": {"maxUnavailable": 1}})
    wait_phase(scene, "Healthy")
    path = f"/apis/{version}/namespaces/{scene.namespace}/poddisruptionbudgets/web"
    wait_until(lambda: (scene.get(path) or {})["status"].get("currentHealthy") == 2, "the budget is counted")
    old = set(pods(scene))
    restart(scene)
    wait_until(lambda: status(scene).get("message") == "rollout is restarting", "it is restarting")
    assert_nothing_changes(scene)
    scene.delete(path)
    wait_until(lambda: not old & set(pods(scene)), "the budget is gone, and so are the pods")


def test_the_template_may_be_that_of_a_deployment(scene: Scene) -> None:
    reference = {"apiVersion": APPS, "kind": "Deployment", "name": "web"}
    put_rollout(scene, template=None, selector=None, workloadRef=reference)
    waiting = wait_phase(scene, "Degraded")
    assert 'The Rollout "web" is invalid: deployments.apps "web" not found' in waiting["message"]
    scene.put_deployment(replicas=0, wait=False)
    up = wait_phase(scene, "Healthy")
    assert (up["workloadObservedGeneration"], up["replicas"]) == ("1", 3)
    old = set(pods(scene))
    at = restart(scene)
    wait_until(lambda: status(scene).get("restartedAt") == at, "restarted")
    wait_until(lambda: not old & set(pods(scene)), "all are new")
    scene.restart_by_user()
    wait_until(lambda: status(scene).get("workloadObservedGeneration") == "2", "the Deployment's new template is seen")
    wait_phase(scene, "Healthy")
    assert len(replicasets(scene)) == 2


def test_what_the_stand_in_does_not_know_is_said(scene: Scene) -> None:
    put_rollout(scene, strategy={"blueGreen": {"activeService": "web"}})
    assert "knows only spec.strategy.canary without steps" in wait_phase(scene, "Degraded")["message"]
    assert pods(scene) == {}


NOW = datetime(2026, 11, 22, 12, 0, 10, tzinfo=UTC)


def canary(replicas: int, **limit: Any) -> dict[str, Any]:
    return {"replicas": replicas, "restartAt": "2026-11-22T12:00:05Z", "strategy": {"canary": limit}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (canary(3), (1, 0)),
        (canary(8), (2, 2)),
        (canary(4, maxSurge=0, maxUnavailable="10%"), (0, 1)),
        (canary(4, maxSurge="50%", maxUnavailable=3), (2, 3)),
    ],
)
def test_limits_are_rounded_as_a_deployments_are(spec: dict[str, Any], expected: tuple[int, int]) -> None:
    found = limits(spec)
    assert (found.surge, found.unavailable) == expected


def pod(second: int, *, ready: bool = True, ends: bool = False) -> dict[str, Any]:
    """A pod that was created in this second of the minute of NOW."""
    at = f"2026-11-22T12:00:{second:02}Z"
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": at}
    deletion = {"deletionTimestamp": at} if ends else {}
    return {"metadata": {"creationTimestamp": at, **deletion}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("replicas", "pods", "expected"),
    [
        (3, [pod(1), pod(2), pod(3)], ([0], 3)),
        (8, [pod(1)] * 8, ([0, 1], 8)),
        (3, [pod(1), pod(5), pod(6)], ([0], 1)),  # created in the second of restartAt is new enough
        (3, [pod(1, ends=True), pod(2), pod(6)], ([], 2)),
        (3, [pod(1, ready=False), pod(2), pod(3)], ([], 3)),  # one that is broken keeps the others
        (1, [pod(1, ready=False)], ([], 1)),  # and itself
        (1, [pod(1)], ([0], 1)),  # all that are due go at once: restartedAt follows before it is gone
    ],
)
def test_which_pods_are_restarted(replicas: int, pods: list[dict[str, Any]], expected: tuple[list[int], int]) -> None:
    chosen, due = to_restart(canary(replicas), [], pods, NOW)
    assert (chosen, due) == ([pods[index] for index in expected[0]], expected[1])
