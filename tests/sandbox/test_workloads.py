"""Every kind of workload under the real controllers: its pods live, call, and are replaced by whom one expects."""

from __future__ import annotations

from typing import Any

from sandbox.controlplane.components import minor
from sandbox.stage import wait_until
from tests.e2e.scene import Scene

PLURALS = {"StatefulSet": "statefulsets", "DaemonSet": "daemonsets", "ReplicaSet": "replicasets", "Job": "jobs"}


def template(scene: Scene, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """Of pods that read the Secret with their environment, and call."""
    client = {
        "client.sandbox.keyturn.dev/kind": scene.account.kind,
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": scene.client_id,
    }
    behaviour = {f"sandbox.keyturn.dev/{key}": value for key, value in (annotations or {}).items()}
    container = {"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}
    return {
        "metadata": {"labels": {"app": name}, "annotations": client | behaviour},
        "spec": {"containers": [container], **spec},
    }


def put_apps(scene: Scene, kind: str, name: str, pods: dict[str, Any] | None = None, **spec: Any) -> None:
    whole = {"selector": {"matchLabels": {"app": name}}, "template": pods or template(scene, name), **spec}
    if kind == "StatefulSet":
        whole["serviceName"] = name
    scene.put({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": whole})


def put_job(scene: Scene, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    pods = template(scene, name, annotations, restartPolicy="Never")
    scene.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": pods, **spec}})


def put_cron_job(scene: Scene, name: str) -> None:
    version = "batch/v1" if minor(scene.stage.control_plane.version) > 20 else "batch/v1beta1"
    job = {"spec": {"template": template(scene, name, {"run-for": "500ms"}, restartPolicy="Never")}}
    spec = {"schedule": "* * * * *", "jobTemplate": job}
    scene.put({"apiVersion": version, "kind": "CronJob", "metadata": {"name": name}, "spec": spec})


def status(scene: Scene, kind: str, name: str) -> dict[str, Any]:
    group = "batch" if kind == "Job" else "apps"
    found = scene.get(f"/apis/{group}/v1/namespaces/{scene.namespace}/{PLURALS[kind]}/{name}") or {}
    shown: dict[str, Any] = found.get("status", {})
    return shown


def pods(scene: Scene, *names: str) -> dict[str, dict[str, Any]]:
    """Those of workloads with these names, by name; without those that are being deleted."""
    listed = (scene.get(f"/api/v1/namespaces/{scene.namespace}/pods") or {})["items"]
    found = {item["metadata"]["name"]: item for item in listed if item["metadata"]["labels"]["app"] in names}
    return {name: pod for name, pod in found.items() if "deletionTimestamp" not in pod["metadata"]}


def running(scene: Scene, *names: str, ready: bool = False) -> dict[str, str | None]:
    """The stamps of those whose containers have started, or are ready, by name."""
    field = "ready" if ready else "started"
    return {
        name: pod["metadata"]["annotations"].get("keyturn.dev/rotation")
        for name, pod in pods(scene, *names).items()
        if any(each[field] for each in pod["status"].get("containerStatuses") or [])
    }


def ready(scene: Scene, *names: str) -> dict[str, str | None]:
    return running(scene, *names, ready=True)


def stamp(scene: Scene, kind: str, name: str, value: str) -> None:
    body = {"spec": {"template": {"metadata": {"annotations": {"keyturn.dev/rotation": value}}}}}
    scene.patch(f"/apis/apps/v1/namespaces/{scene.namespace}/{PLURALS[kind]}/{name}", body)


def node_affinity(system: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": [system]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def test_pods_of_every_kind_live_and_call(scene: Scene) -> None:
    put_apps(scene, "StatefulSet", "ordered", replicas=2)
    put_apps(scene, "StatefulSet", "parallel", replicas=2, podManagementPolicy="Parallel")
    put_apps(scene, "DaemonSet", "everywhere")
    put_apps(scene, "DaemonSet", "here", template(scene, "here", affinity=node_affinity("linux")))
    put_apps(scene, "DaemonSet", "nowhere", template(scene, "nowhere", affinity=node_affinity("plan9")))
    put_apps(scene, "ReplicaSet", "alone", replicas=2)
    put_job(scene, "once", {"run-for": "500ms"})
    put_job(scene, "failing", {"behavior": "crash-loop", "run-for": "300ms"}, backoffLimit=0)
    put_job(scene, "long", {"behavior": "run"})
    put_cron_job(scene, "nightly")
    bare = template(scene, "bare")
    scene.put(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", **bare["metadata"]}, "spec": bare["spec"]}
    )
    scene.stage.api.run_now(scene.namespace, "nightly")

    wait_until(lambda: status(scene, "Job", "once").get("succeeded") == 1, "once has succeeded")
    wait_until(lambda: status(scene, "Job", "failing").get("failed") == 1, "failing has failed")
    lasting = ("ordered", "parallel", "everywhere", "here", "alone", "long", "bare")
    wait_until(lambda: len(ready(scene, *lasting)) == 10, "those that last are ready")
    wait_until(lambda: status(scene, "DaemonSet", "nowhere").get("observedGeneration") == 1, "nowhere is observed")
    assert status(scene, "DaemonSet", "nowhere")["desiredNumberScheduled"] == 0
    assert status(scene, "Job", "long")["active"] == 1

    def called() -> dict[str, int]:
        """By owner: how many pods have called and were never refused."""
        good = [pod for pod in scene.traffic() if pod.calls.accepted.count and not pod.calls.refused.count]
        owners = ["CronJob" if "nightly" in str(pod.owner) else str(pod.owner) for pod in good]
        return {owner: owners.count(owner) for owner in owners}

    expected = {"None": 1, "ReplicaSet/alone": 2, "StatefulSet/ordered": 2, "StatefulSet/parallel": 2, "CronJob": 1}
    expected |= {"DaemonSet/everywhere": 1, "DaemonSet/here": 1, "Job/once": 1, "Job/failing": 1, "Job/long": 1}
    wait_until(lambda: called() == expected, f"all have called: {called()}")
    ended = {pod.owner for pod in scene.traffic() if pod.stopped}
    assert {"Job/once", "Job/failing"} <= ended
    scene.delete(f"/apis/batch/v1/namespaces/{scene.namespace}/jobs/long?propagationPolicy=Background")
    wait_until(lambda: not pods(scene, "long"), "its pod goes with it")


def test_some_pods_are_replaced_only_by_hand(scene: Scene) -> None:
    put_apps(scene, "StatefulSet", "by-hand", replicas=2, updateStrategy={"type": "OnDelete"})
    put_apps(scene, "DaemonSet", "daemon", updateStrategy={"type": "OnDelete"})
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    put_apps(scene, "StatefulSet", "partitioned", replicas=3, updateStrategy=partition)
    wait_until(lambda: len(ready(scene, "by-hand", "daemon", "partitioned")) == 6, "all are ready")
    for kind, name in (("StatefulSet", "by-hand"), ("DaemonSet", "daemon"), ("StatefulSet", "partitioned")):
        stamp(scene, kind, name, "r1")
    rolled = {"partitioned-0": None, "partitioned-1": "r1", "partitioned-2": "r1"}
    wait_until(lambda: ready(scene, "partitioned") == rolled, "the others than the first are replaced")
    wait_until(lambda: status(scene, "DaemonSet", "daemon")["observedGeneration"] == 2, "the template is observed")
    assert ready(scene, "by-hand") == {"by-hand-0": None, "by-hand-1": None}
    (daemon,) = ready(scene, "daemon")
    for name in ("by-hand-0", daemon):
        scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{name}")
    wait_until(lambda: ready(scene, "by-hand") == {"by-hand-0": "r1", "by-hand-1": None}, "one was deleted")
    wait_until(lambda: list(ready(scene, "daemon").values()) == ["r1"], "the daemon was deleted")


def test_going_back_replaces_a_broken_pod_except_where_pods_come_in_order(scene: Scene) -> None:
    """kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback."""
    for name, policy in (("ordered", "OrderedReady"), ("parallel", "Parallel")):
        broken = template(scene, name, {"behavior-when-stamped": "never-ready"})
        put_apps(scene, "StatefulSet", name, broken, replicas=2, podManagementPolicy=policy)
    wait_until(lambda: len(ready(scene, "ordered", "parallel")) == 4, "all are ready")
    for name in ("ordered", "parallel"):
        stamp(scene, "StatefulSet", name, "r1")
    stuck = {"ordered-0": None, "ordered-1": "r1", "parallel-0": None, "parallel-1": "r1"}
    wait_until(lambda: running(scene, "ordered", "parallel") == stuck, "both are stuck")
    for name in ("ordered", "parallel"):
        stamp(scene, "StatefulSet", name, "r1-cancelled")
    back = {"parallel-0": "r1-cancelled", "parallel-1": "r1-cancelled"}
    wait_until(lambda: ready(scene, "parallel") == back, "the one whose pods need no order is back")
    wait_until(lambda: status(scene, "StatefulSet", "ordered")["observedGeneration"] == 3, "the way back is observed")
    assert ready(scene, "ordered") == {"ordered-0": None}
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/ordered-1")
    back = {"ordered-0": "r1-cancelled", "ordered-1": "r1-cancelled"}
    wait_until(lambda: ready(scene, "ordered") == back, "and the other after its broken pod was deleted")
