"""Who reads the Secret, judged from objects as the API server returns them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import STAMP
from keyturn.cluster.workloads import consumers_of

READER = {"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "app"}}]}]}
STRANGER = {"containers": [{"name": "app"}]}
CREATED = "2026-03-01T12:00:00Z"
LATER = "2026-03-01T12:05:00Z"
EVERYTHING = RolloutSpec()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def owned(kind: str, name: str, *, controller: bool = True) -> list[dict[str, Any]]:
    group = {"Job": "batch/v1", "CronJob": "batch/v1", "Rollout": "argoproj.io/v1alpha1"}.get(kind, "apps/v1")
    return [{"apiVersion": group, "kind": kind, "name": name, "uid": name, "controller": controller}]


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uid": name, "namespace": "ns", "creationTimestamp": CREATED, "generation": 1, **more}


def deployment(
    spec: dict[str, Any] = READER,
    *,
    stamp: str | None = None,
    desired: int | None = 3,
    revision: str = "1",
    paused: bool = False,
    **status: Any,
) -> dict[str, Any]:
    """`web`, rolled out completely unless told otherwise."""
    template = {"metadata": {"annotations": {STAMP: stamp}} if stamp else {}, "spec": spec}
    whole = {"template": template, "paused": paused, **({"replicas": desired} if desired is not None else {})}
    count = 1 if desired is None else desired
    rolled_out = {"observedGeneration": 1, "replicas": count, "updatedReplicas": count, "availableReplicas": count}
    annotations = {"deployment.kubernetes.io/revision": revision}
    return {"metadata": meta("web", annotations=annotations), "spec": whole, "status": {**rolled_out, **status}}


def replicaset(name: str = "web-1", revision: str = "1", created: str = CREATED, owner: str = "web") -> dict[str, Any]:
    annotations = {"deployment.kubernetes.io/revision": revision}
    references = owned("Deployment", owner)
    metadata = meta(name, creationTimestamp=created, annotations=annotations, ownerReferences=references)
    return {"metadata": metadata, "spec": {"template": {"metadata": {}}}}


def pod(
    name: str = "web-1-a", spec: dict[str, Any] = READER, *, owner: tuple[str, str] | None = None, **parts: Any
) -> dict[str, Any]:
    references = {"ownerReferences": owned(*owner)} if owner else {}
    status = parts.pop("status", {"phase": "Running"})
    return {"metadata": meta(name, **references, **parts), "spec": spec, "status": status}


def seen(rollout: RolloutSpec = EVERYTHING, **objects: list[dict[str, Any]]) -> Consumers:
    """Who uses the Secret `app` in a namespace that holds these objects."""
    return consumers_of(Namespace(**objects), "app", rollout)


def workload(item: dict[str, Any], *replicasets: dict[str, Any]) -> Workload:
    """The one workload among the consumers of a namespace that holds this Deployment."""
    found = seen(deployments=[item], replicasets=list(replicasets)).workloads
    assert len(found) == 1
    return found[0]


def only_pod(item: dict[str, Any], *replicasets: dict[str, Any]) -> Pod:
    found = seen(pods=[item], replicasets=list(replicasets)).pods
    assert len(found) == 1
    return found[0]


def test_an_empty_namespace_has_no_consumers() -> None:
    found = seen()
    assert (found.workloads, found.pods) == ((), ())


def test_strangers_are_left_alone() -> None:
    """I7"""
    stranger = pod(spec=STRANGER, owner=("ReplicaSet", "web-1"))
    found = seen(deployments=[deployment(STRANGER)], replicasets=[replicaset()], pods=[stranger])
    assert (found.workloads, found.pods) == ((), ())


def test_a_pod_belongs_to_the_deployment_of_its_replicaset() -> None:
    assert only_pod(pod(owner=("ReplicaSet", "web-1")), replicaset()).owner == ("Deployment", "web")


def test_a_pod_without_a_known_chain_stands_for_the_nearest_owner() -> None:
    """I4: whatever owns it, it keeps the old value alive."""
    assert only_pod(pod(owner=("ReplicaSet", "gone"))).owner == ("ReplicaSet", "gone")
    assert only_pod(pod(owner=("Job", "nightly"))).owner == ("Job", "nightly")
    assert only_pod(pod("alone")).owner == ("Pod", "alone")
    references = owned("ReplicaSet", "web-1", controller=False)
    assert only_pod(pod("adopted", ownerReferences=references), replicaset()).owner == ("Pod", "adopted")


@pytest.mark.parametrize(
    ("phase", "counts"), [("Pending", 1), ("Running", 1), ("Unknown", 1), ("Succeeded", 0), ("Failed", 0)]
)
def test_only_pods_that_have_ended_hold_nothing(phase: str, counts: int) -> None:
    """I4: a pod on a lost node may still run."""
    assert len(seen(pods=[pod(status={"phase": phase})]).pods) == counts


def test_a_terminating_pod_still_counts() -> None:
    """I4"""
    found = only_pod(pod(deletionTimestamp=LATER))
    assert found.terminating
    assert not only_pod(pod()).terminating


def test_a_deployment_whose_template_no_longer_reads_counts_while_its_pods_do() -> None:
    """I4: the user removed the reference, and the old ReplicaSet still runs."""
    found = seen(
        deployments=[deployment(STRANGER)], replicasets=[replicaset()], pods=[pod(owner=("ReplicaSet", "web-1"))]
    )
    assert [found.name for found in found.workloads] == ["web"]


def test_a_pod_tells_its_stamp_its_times_and_whether_it_is_ready() -> None:
    running = {"state": {"running": {"startedAt": CREATED}}}
    restarted = {"state": {"running": {"startedAt": LATER}}}
    waiting: dict[str, Any] = {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
    status = {
        "phase": "Running",
        "initContainerStatuses": [{"state": {"terminated": {"startedAt": LATER}}}],
        "containerStatuses": [running, restarted, waiting],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    found = only_pod(pod(annotations={STAMP: "r-1"}, status=status))
    assert (found.stamp, found.created, found.started, found.ready) == ("r-1", at(CREATED), at(LATER), True)
    bare = only_pod(pod(status={}))
    assert (bare.stamp, bare.started, bare.ready) == (None, None, False)


def test_a_deployment_that_is_rolled_out_is_settled() -> None:
    found = workload(deployment(stamp="r-1"))
    assert (found.kind, found.name, found.restartable, found.stamp) == ("Deployment", "web", True, "r-1")
    assert (found.desired, found.observed, found.settled) == (3, True, True)
    assert (found.failure, found.paused) == (None, None)


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 0},
        {"updatedReplicas": 2},
        {"availableReplicas": 2},
        {"replicas": 4},
        {"updatedReplicas": 4, "replicas": 4},
    ],
    ids=str,
)
def test_a_deployment_is_not_settled_before_all_of_it_is(status: dict[str, Any]) -> None:
    """I4: an old ReplicaSet that still has pods, a surplus pod and one that is not available keep it unsettled."""
    assert not workload(deployment(**status)).settled


def test_a_controller_that_has_not_seen_the_template_says_nothing_of_it() -> None:
    stuck = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "gave up"}]
    assert workload(deployment(conditions=stuck)).failure == "gave up"
    assert workload(deployment(conditions=stuck, observedGeneration=0)).failure is None
    fine = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "done"}]
    assert workload(deployment(conditions=fine)).failure is None


def test_a_deployment_without_replicas_in_its_spec_has_one() -> None:
    assert workload(deployment(desired=None)).desired == 1


def test_a_deployment_scaled_to_nothing_is_settled() -> None:
    item = deployment(desired=0)
    item["status"] = {"observedGeneration": 1}  # as the API server leaves out zeros
    assert workload(item).settled


def test_a_deployment_that_its_controller_has_not_looked_at_is_not_settled() -> None:
    item = deployment()
    del item["status"]
    found = workload(item)
    assert (found.observed, found.settled) == (False, False)


def test_a_paused_deployment_says_so() -> None:
    assert workload(deployment(paused=True)).paused


def test_the_time_of_the_template_is_that_of_its_replicaset() -> None:
    """I7: a template newer than the value needs no restart; another Deployment's ReplicaSet says nothing."""
    old, new, other = replicaset("web-1", "1"), replicaset("web-2", "2", LATER), replicaset("api-9", "2", owner="api")
    assert workload(deployment(revision="2"), old, new, other).template_time == at(LATER)
    assert workload(deployment(revision="3"), old, new, other).template_time is None
