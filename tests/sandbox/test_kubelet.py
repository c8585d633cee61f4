"""The stand-in under the real controllers: pods start, roll, fail and end as they would on a node."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane, Resources
from sandbox.kubelet import KubeletStandIn, in_thread

APPS = "/apis/apps/v1/namespaces/default"
CORE = "/api/v1/namespaces/default"
ANNOTATION = "sandbox.keyturn.dev/"


class Record:
    """Hooks that remember, for each pod's name, when its containers started and ended."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, float]] = []
        self._lock = threading.Lock()

    async def started(self, pod: dict[str, Any]) -> None:
        self._add("started", pod)

    async def attached(self, pod: dict[str, Any], container: str) -> None:
        self._add(f"attached {container}", pod)

    async def stopped(self, pod: dict[str, Any]) -> None:
        self._add("stopped", pod)

    def of(self, name: str) -> list[str]:
        """What happened to pods whose name begins with `name`, in order."""
        with self._lock:
            return [event for event, pod, _ in self.events if pod.startswith(name)]

    def when(self, name: str, event: str) -> float:
        with self._lock:
            return next(at for what, pod, at in self.events if pod.startswith(name) and what == event)

    def _add(self, event: str, pod: dict[str, Any]) -> None:
        with self._lock:
            self.events.append((event, pod["metadata"]["name"], time.monotonic()))


class Cluster:
    """A control plane with a stand-in whose hooks are recorded."""

    def __init__(self, control_plane: ControlPlane, resources: Resources, record: Record) -> None:
        self.control_plane = control_plane
        self.resources = resources
        self.record = record

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.resources.http.get(path).json()
        return answer

    def pod(self, name: str) -> dict[str, Any]:
        return self.get(f"{CORE}/pods/{name}")

    def container(self, name: str) -> dict[str, Any]:
        """The status of the pod's container; nothing when it has none yet."""
        statuses = self.pod(name).get("status", {}).get("containerStatuses") or [{}]
        status: dict[str, Any] = statuses[0]
        return status

    def waits_for(self, name: str) -> dict[str, Any]:
        waiting: dict[str, Any] = self.container(name).get("state", {}).get("waiting") or {}
        return waiting

    def delete(self, path: str, **options: Any) -> None:
        self.resources.http.request("DELETE", path, json=options or None).raise_for_status()

    def rolled_out(self, kind: str, name: str, replicas: int) -> bool:
        found = self.get(f"{APPS}/{kind}/{name}")
        status = found["status"]
        counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "readyReplicas")]
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [replicas] * 3


def eventually(condition: Callable[[], Any], what: str, seconds: float = 10) -> float:
    """Wait for the condition, and say how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + seconds, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - started


def template(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "none", **spec.pop("container", {})}
    prefixed = {ANNOTATION + key: value for key, value in (annotations or {}).items()}
    return {"metadata": {"annotations": prefixed}, "spec": {"containers": [container], **spec}}


def pod(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    made = template(annotations, **spec)
    made["metadata"]["name"] = name
    return {"apiVersion": "v1", "kind": "Pod", **made}


def workload(kind: str, name: str, rotation: str, replicas: int | None = 3) -> dict[str, Any]:
    made = template()
    made["metadata"] |= {"labels": {"app": name}, "annotations": {"keyturn.dev/rotation": rotation}}
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": made}
    if replicas is not None:
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    record = Record()
    with ControlPlane.start(provide()) as control_plane, Resources(control_plane.endpoint) as resources:
        with in_thread(KubeletStandIn(control_plane.endpoint, record)):
            yield Cluster(control_plane, resources, record)
        events = [event for event, _, _ in record.events]
        assert events.count("started") == events.count("stopped"), "leaving the stand-in ends every container"


def test_three_replicas_roll_in_about_a_second(cluster: Cluster) -> None:
    cluster.resources.apply([workload("Deployment", "web", "1")])
    eventually(lambda: cluster.rolled_out("deployments", "web", 3), "web is up")
    cluster.resources.apply([workload("Deployment", "web", "2")])
    took = eventually(lambda: cluster.rolled_out("deployments", "web", 3), "web is rolled out")
    assert took < 3
    eventually(lambda: cluster.record.of("web").count("stopped") == 3, "the old pods' containers have ended")
    assert cluster.record.of("web").count("started") == 6


def test_a_running_pod_looks_like_one(cluster: Cluster) -> None:
    cluster.resources.apply([pod("plain", initContainers=[{"name": "init", "image": "none"}])])
    eventually(lambda: cluster.container("plain").get("ready"), "plain is ready")
    status = cluster.pod("plain")["status"]
    assert status["phase"] == "Running"
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    (container,) = status["containerStatuses"]
    assert container["started"]
    assert container["restartCount"] == 0
    assert container["state"]["running"]["startedAt"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert status["podIP"].startswith("10.")


@pytest.mark.parametrize(("kind", "collection"), [("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")])
def test_other_workloads_roll_too(cluster: Cluster, kind: str, collection: str) -> None:
    name = kind.lower()
    replicas = 2 if kind == "StatefulSet" else None

    def done() -> bool:
        found = cluster.get(f"{APPS}/{collection}/{name}")
        status = found["status"]
        if kind == "DaemonSet":
            counts = (status.get("updatedNumberScheduled"), status.get("numberReady"))
            return status.get("observedGeneration") == found["metadata"]["generation"] and counts == (1, 1)
        same_revision = bool(status.get("currentRevision") == status.get("updateRevision"))
        return same_revision and status.get("readyReplicas") == 2

    for rotation in ("1", "2"):
        cluster.resources.apply([workload(kind, name, rotation, replicas)])
        eventually(lambda: cluster.get(f"{APPS}/{collection}/{name}")["status"].get("observedGeneration"), "observed")
        eventually(done, f"{kind} is rolled out")
    starts = 2 * (replicas or 1)
    eventually(lambda: cluster.record.of(name).count("started") == starts, "each replica started twice")


def test_ready_comes_after_its_delay(cluster: Cluster) -> None:
    cluster.resources.apply([pod("slow", {"ready-after": "700ms"})])
    eventually(lambda: cluster.container("slow").get("started"), "slow is started")
    assert not cluster.container("slow")["ready"]
    assert eventually(lambda: cluster.container("slow")["ready"], "slow is ready") > 0.4


def test_never_ready_runs_and_stays_unready(cluster: Cluster) -> None:
    cluster.resources.apply([pod("stuck", {"behavior": "never-ready"})])
    eventually(lambda: cluster.container("stuck").get("started"), "stuck is started")
    time.sleep(0.3)  # several times what an ordinary pod takes to be ready
    assert cluster.pod("stuck")["status"]["phase"] == "Running"
    assert not cluster.container("stuck")["ready"]


def test_crash_loop_shows_growing_restarts(cluster: Cluster) -> None:
    cluster.resources.apply([pod("crashing", {"behavior": "crash-loop", "run-for": "50ms", "crash-backoff": "100ms"})])
    eventually(lambda: cluster.container("crashing").get("restartCount", 0) >= 3, "three restarts")
    eventually(lambda: cluster.waits_for("crashing").get("reason") == "CrashLoopBackOff", "CrashLoopBackOff")
    assert cluster.container("crashing")["lastState"]["terminated"]["exitCode"] == 1
    assert cluster.record.of("crashing")[:4] == ["started", "stopped", "started", "stopped"]


def test_a_pod_can_become_unready_after_a_while(cluster: Cluster) -> None:
    cluster.resources.apply([pod("failing", {"unready-after": "300ms"})])
    eventually(lambda: cluster.container("failing").get("ready"), "failing is ready")
    eventually(lambda: not cluster.container("failing")["ready"], "failing is unready")
    assert cluster.container("failing")["state"]["running"]


def test_a_missing_secret_and_key_keep_the_container_from_starting(cluster: Cluster) -> None:
    variable = {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "late", "key": "value"}}}
    cluster.resources.apply([pod("needy", container={"env": [variable]})])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"other": "x"}}
    expected = {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}
    eventually(lambda: cluster.waits_for("needy") == expected, "needy waits for its Secret")
    cluster.resources.apply([secret])
    expected["message"] = "couldn't find key value in Secret default/late"
    eventually(lambda: cluster.waits_for("needy") == expected, "needy waits for its key")
    assert cluster.pod("needy")["status"]["phase"] == "Pending"
    assert cluster.record.of("needy") == []
    cluster.resources.apply([secret | {"stringData": {"value": "x"}}])
    eventually(lambda: cluster.container("needy").get("ready"), "needy is ready")


def test_a_missing_volume_keeps_the_container_creating(cluster: Cluster) -> None:
    cluster.resources.apply([pod("unmounted", volumes=[{"name": "keys", "secret": {"secretName": "absent"}}])])
    text = 'MountVolume.SetUp failed for volume "keys" : secret "absent" not found'
    expected = {"reason": "ContainerCreating", "message": text}
    eventually(lambda: cluster.waits_for("unmounted") == expected, "unmounted waits for its Secret")
    cluster.delete(f"{CORE}/pods/unmounted")
    eventually(lambda: cluster.pod("unmounted").get("code") == 404, "unmounted is gone")


def test_a_terminating_pod_can_be_seen_until_its_containers_have_ended(cluster: Cluster) -> None:
    cluster.resources.apply([pod("leaving", {"terminate-after": "600ms"})])
    eventually(lambda: cluster.container("leaving").get("ready"), "leaving is ready")
    asked = time.monotonic()
    cluster.delete(f"{CORE}/pods/leaving")
    assert cluster.pod("leaving")["metadata"]["deletionTimestamp"]
    assert cluster.record.of("leaving") == ["started"]
    eventually(lambda: cluster.pod("leaving").get("code") == 404, "leaving is gone")
    assert 0.5 < cluster.record.when("leaving", "stopped") - asked < 3


def test_a_pod_that_is_removed_by_force_ends_its_containers(cluster: Cluster) -> None:
    cluster.resources.apply([pod("forced", {"terminate-after": "30s"})])
    eventually(lambda: cluster.container("forced").get("ready"), "forced is ready")
    cluster.delete(f"{CORE}/pods/forced", gracePeriodSeconds=0)
    eventually(lambda: cluster.record.of("forced") == ["started", "stopped"], "forced has ended")


def test_a_job_completes(cluster: Cluster) -> None:
    made = template({"run-for": "200ms"}, restartPolicy="Never")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": made}}
    cluster.resources.apply([job])
    path = "/apis/batch/v1/namespaces/default/jobs/once"
    eventually(lambda: cluster.get(path)["status"].get("succeeded") == 1, "once has succeeded")
    assert cluster.record.of("once") == ["started", "stopped"]


def test_an_annotation_that_is_not_understood_is_logged_and_the_pod_stays_unready(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.resources.apply([pod("mistaken", {"ready-after": "soon"})])
    eventually(lambda: cluster.container("mistaken").get("started"), "mistaken is started")
    assert "pod default/mistaken stays unready: annotation sandbox.keyturn.dev/ready-after: 'soon'" in caplog.text


def test_hundreds_of_pods_start_and_end(cluster: Cluster) -> None:
    cluster.resources.apply([workload("Deployment", "many", "1", 300)])
    eventually(lambda: cluster.rolled_out("deployments", "many", 300), "300 pods are ready", 30)
    cluster.delete(f"{APPS}/deployments/many")
    eventually(lambda: cluster.record.of("many").count("stopped") == 300, "300 pods have ended", 30)


def test_an_outage_of_the_api_changes_nothing_and_work_goes_on_after_it(cluster: Cluster) -> None:
    cluster.resources.apply([workload("Deployment", "outlasting", "1")])
    eventually(lambda: cluster.rolled_out("deployments", "outlasting", 3), "outlasting is up")
    cluster.resources.apply([workload("Deployment", "outlasting", "2")])
    cluster.control_plane.kill_apiserver()
    cluster.control_plane.restart_apiserver()
    eventually(lambda: cluster.rolled_out("deployments", "outlasting", 3), "outlasting is rolled out", 20)
    eventually(lambda: cluster.record.of("outlasting").count("stopped") == 3, "the old pods have ended")
    assert cluster.record.of("outlasting").count("started") == 6
