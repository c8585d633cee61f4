"""How far StatefulSets, DaemonSets and Rollouts are, by what their controllers write into their status."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.api.observed import Workload
from keyturn.cluster.objects import STAMP
from tests.cluster.objects import (
    CREATED,
    LATER,
    STRANGER,
    at,
    meta,
    only_pod,
    only_workload,
    owned,
    pod,
    revision,
    seen,
    template,
    workload_of,
)

OLD, NEW = revision("web-1", 1), revision("web-2", 2, stamp="r-1", created=LATER)
ROLLED_OUT = {
    "observedGeneration": 1,
    "replicas": 3,
    "readyReplicas": 3,
    "updatedReplicas": 3,
    "currentRevision": "web-2",
    "updateRevision": "web-2",
}
PARTITION = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}


def statefulset(spec: dict[str, Any] | None = None, *pods: dict[str, Any], **status: Any) -> Workload:
    """One of three replicas, rolled out completely with its second template unless told otherwise."""
    whole = {"replicas": 3, "template": template(stamp="r-1"), **(spec or {})}
    item = workload_of(whole, {**ROLLED_OUT, **status})
    return only_workload(statefulsets=[item], controllerrevisions=[OLD, NEW], pods=list(pods))


def test_a_statefulset_that_is_rolled_out() -> None:
    found = statefulset()
    assert (found.kind, found.name, found.restartable, found.stamp) == ("StatefulSet", "web", True, "r-1")
    assert (found.desired, found.observed, found.settled, found.template_time) == (3, True, True, at(LATER))
    assert [(one.revision, one.stamp, one.created) for one in found.templates] == [
        (1, None, at(CREATED)),
        (2, "r-1", at(LATER)),
    ]
    assert (found.failure, found.paused, found.manual, found.ordered) == (None, None, None, True)
    assert not statefulset({"podManagementPolicy": "Parallel"}).ordered


@pytest.mark.parametrize(
    ("spec", "status", "settled"),
    [
        ({}, {"observedGeneration": 0}, False),
        ({}, {"replicas": 4}, False),
        ({}, {"readyReplicas": 2}, False),
        ({}, {"updatedReplicas": 2}, False),
        ({}, {"currentRevision": "web-1"}, False),
        ({}, {"updateRevision": "web-3", "currentRevision": "web-3"}, False),  # which was not listed yet
        ({}, {"availableReplicas": 2}, False),
        ({}, {"availableReplicas": 3, "readyReplicas": 2}, True),
        ({"minReadySeconds": 5}, {}, False),  # 1.22 leaves the zero out
        ({"minReadySeconds": 5}, {"availableReplicas": 3}, True),
        (PARTITION, {"updatedReplicas": 1, "currentRevision": "web-1"}, True),
        (PARTITION, {"updatedReplicas": 0, "currentRevision": "web-1"}, False),
        ({**PARTITION, "ordinals": {"start": 5}}, {"updatedReplicas": 1}, False),  # the partition is below them all
        (ON_DELETE, {"updatedReplicas": 0, "currentRevision": "web-1"}, True),
        (ON_DELETE, {"readyReplicas": 2}, False),
    ],
    ids=str,
)
def test_when_a_statefulset_is_settled(spec: dict[str, Any], status: dict[str, Any], settled: bool) -> None:
    """I4: as soon as its controller has done what it does by itself, and no sooner."""
    assert statefulset(spec, **status).settled is settled


def test_a_statefulset_without_pods_is_settled() -> None:
    empty = {"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0}
    assert statefulset({"replicas": 0}, **empty).settled
    assert only_workload(statefulsets=[workload_of({})]).desired == 1


def test_a_partition_is_for_the_user_to_lower_once_the_rest_is_done() -> None:
    """The rollout of the others can fail, or take too long, as any other."""
    done = {"updatedReplicas": 1, "currentRevision": "web-1"}
    told = "spec.updateStrategy.rollingUpdate.partition keeps pods from being replaced: lower it to 0"
    assert statefulset(PARTITION, **done).manual == told
    assert statefulset(PARTITION, **{**done, "readyReplicas": 2}).manual is None
    assert statefulset(PARTITION, **{**done, "updatedReplicas": 0}).manual is None
    assert statefulset(PARTITION, **{**done, "observedGeneration": 0}).manual is None


def made_from(name: str, mark: str, kind: str = "StatefulSet", **more: Any) -> dict[str, Any]:
    return pod(name, owner=(kind, "web"), labels={"controller-revision-hash": mark}, **more)


def test_with_on_delete_pods_are_deleted_by_a_person() -> None:
    found = statefulset(ON_DELETE, made_from("web-2", "web-2"))
    assert found.manual == "spec.updateStrategy is OnDelete: delete them"
    assert not found.ordered


def daemonset(
    spec: dict[str, Any] | None = None, *pods: dict[str, Any], stamp: str | None = "r-1", **status: Any
) -> Workload:
    """One on two nodes, rolled out completely with its second template unless told otherwise."""
    rolled_out = {
        "observedGeneration": 1,
        "desiredNumberScheduled": 2,
        "currentNumberScheduled": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    }
    item = workload_of({"template": template(stamp=stamp), **(spec or {})}, {**rolled_out, **status})
    old, new = (
        revision("web-1", 1, kind="DaemonSet"),
        revision("web-2", 2, stamp="r-1", created=LATER, kind="DaemonSet"),
    )
    return only_workload(daemonsets=[item], controllerrevisions=[old, new], pods=list(pods))


def test_a_daemonset_that_is_rolled_out() -> None:
    found = daemonset({}, made_from("web-a", "2", "DaemonSet"), made_from("web-b", "2", "DaemonSet"))
    assert (found.kind, found.name, found.restartable, found.stamp) == ("DaemonSet", "web", True, "r-1")
    assert (found.desired, found.observed, found.settled, found.template_time) == (2, True, True, at(LATER))
    assert [(one.revision, one.stamp) for one in found.templates] == [(1, None), (2, "r-1")]
    assert (found.manual, found.ordered) == (None, False)


@pytest.mark.parametrize(
    ("spec", "status", "settled"),
    [
        ({}, {"observedGeneration": 0}, False),
        ({}, {"currentNumberScheduled": 1}, False),
        ({}, {"updatedNumberScheduled": 1}, False),
        ({}, {"numberAvailable": 1, "numberUnavailable": 1}, False),
        ({}, {"numberUnavailable": 1}, False),
        ({}, {"numberMisscheduled": 1}, True),
        (ON_DELETE, {"updatedNumberScheduled": 0}, True),
        (ON_DELETE, {"numberAvailable": 1}, False),
        (
            {},
            dict.fromkeys(
                ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberAvailable"), 0
            ),
            True,
        ),
    ],
    ids=str,
)
def test_when_a_daemonset_is_settled(spec: dict[str, Any], status: dict[str, Any], settled: bool) -> None:
    """I4"""
    assert daemonset(spec, **status).settled is settled


def test_an_old_pod_where_none_should_be_keeps_a_daemonset_unsettled() -> None:
    """I4: one on a node that it left, or beside its successor, is in none of the counts."""
    assert not daemonset({}, made_from("web-a", "1", "DaemonSet")).settled
    found = daemonset(ON_DELETE, made_from("web-a", "1", "DaemonSet"))
    assert (found.settled, found.manual) == (True, "spec.updateStrategy is OnDelete: delete them")


def test_a_daemonset_whose_newest_template_was_not_listed_yet_says_nothing_of_it() -> None:
    """I7: the template may be newer than the value, and then needs no restart."""
    found = daemonset(stamp="r-2")
    assert (found.observed, found.settled, found.template_time) == (False, False, None)
    assert not only_workload(daemonsets=[workload_of({}, {"observedGeneration": 1})]).observed


@pytest.mark.parametrize(("kind", "mark"), [("StatefulSet", "web-2"), ("DaemonSet", "2")])
@pytest.mark.parametrize(
    ("numbers", "times", "certain"),
    [
        ((1, 2, 3), (0, 0, 0), True),
        ((4, 5, 6), (0, 1, 1), True),  # older ones are forgotten
        ((3, 4, 5), (0, 0, 0), False),  # it may be the first, taken into use again
        ((1, 3, 4), (0, 1, 1), False),  # 2 was taken into use again
        ((1, 3, 2), (0, 1, 2), False),  # the second was
    ],
)
def test_pods_are_ordered_by_template_only_where_that_is_certain(
    kind: str, mark: str, numbers: tuple[int, ...], times: tuple[int, ...], certain: bool
) -> None:
    """I4: a ControllerRevision that is taken into use again gets a new number; its old pods must not look new."""
    revisions = [
        revision(f"web-{place}", number, created=f"2026-03-01T12:00:0{time}Z", kind=kind)
        for place, (number, time) in enumerate(zip(numbers, times, strict=True), 1)
    ]
    items = {"statefulsets" if kind == "StatefulSet" else "daemonsets": [workload_of({})]}
    found = only_pod(made_from("web-a", mark, kind), controllerrevisions=revisions, **items)
    assert found.revision == (numbers[1] if certain else None)
    assert only_pod(made_from("web-a", "9", kind), controllerrevisions=revisions, **items).revision is None


HEALTHY = {"observedGeneration": "1", "phase": "Healthy", "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
NEVER = "2999-01-01T00:00:00Z"


def rollout(spec: dict[str, Any] | None = None, **status: Any) -> Workload:
    """One of two replicas, at rest unless told otherwise."""
    return only_workload(rollouts=[workload_of({"replicas": 2, **(spec or {})}, {**HEALTHY, **status})])


def test_a_rollout_at_rest() -> None:
    spec = {"replicas": 2, "restartAt": "2026-03-01T12:00:00Z"}
    item = workload_of(spec, {**HEALTHY, "restartedAt": spec["restartAt"]}, annotations={STAMP: "r-1"})
    found = only_workload(rollouts=[item])
    assert (found.kind, found.name, found.restartable, found.stamp) == ("Rollout", "web", True, "r-1")
    assert (found.desired, found.observed, found.settled) == (2, True, True)
    assert (found.failure, found.paused, found.templates, found.ordered) == (None, None, (), True)


@pytest.mark.parametrize(
    ("spec", "status", "settled"),
    [
        ({}, {"observedGeneration": "0"}, False),
        ({}, {"observedGeneration": "7b9"}, False),
        ({}, {"observedGeneration": "2"}, True),
        ({}, {"availableReplicas": 1}, False),
        ({}, {"phase": "Progressing"}, False),
        ({}, {"phase": "Degraded"}, False),
        ({}, {"phase": "Paused"}, True),  # a canary that waits at a step
        ({"restartAt": CREATED}, {}, False),
        ({"restartAt": LATER}, {"restartedAt": CREATED}, False),
        ({"restartAt": LATER}, {"restartedAt": LATER}, True),
        ({"restartAt": NEVER}, {"restartedAt": LATER}, True),  # planned by the user
    ],
    ids=str,
)
def test_when_a_rollout_is_settled(spec: dict[str, Any], status: dict[str, Any], settled: bool) -> None:
    """I4"""
    assert rollout(spec, **status).settled is settled


def test_a_restart_that_was_asked_for_makes_its_pods_new() -> None:
    """I7: no pod that is older stays, whichever rotation asked for it; one planned for later does not help now."""
    assert rollout({"restartAt": LATER}).template_time == at(LATER)
    assert rollout({"restartAt": NEVER}).template_time is None


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        ({"phase": "Degraded", "message": "ProgressDeadlineExceeded: web"}, "ProgressDeadlineExceeded: web"),
        ({"phase": "Degraded"}, "it is degraded"),
        ({"abort": True, "message": "RolloutAborted: by hand"}, "RolloutAborted: by hand"),
        ({"phase": "Degraded", "observedGeneration": "0"}, None),
        ({"message": "waits"}, None),
    ],
    ids=str,
)
def test_why_a_rollout_failed(status: dict[str, Any], failure: str | None) -> None:
    assert rollout(**status).failure == failure


def test_a_paused_rollout_says_so() -> None:
    assert rollout({"paused": True}).paused == "spec.paused is set: resume the rollout"


def test_a_rollout_reads_what_the_deployment_reads_that_it_refers_to() -> None:
    """The Deployment is scaled down and keeps the template; its Rollout has the pods."""
    source = workload_of({"replicas": 0}, {"observedGeneration": 1}, name="source")
    refers = {"metadata": meta("web"), "spec": {"workloadRef": {"kind": "Deployment", "name": "source"}}, "status": {}}
    keys = {(one.kind, one.name): one.desired for one in seen(deployments=[source], rollouts=[refers]).workloads}
    assert keys == {("Deployment", "source"): 0, ("Rollout", "web"): 1}
    assert seen(rollouts=[refers]).workloads == ()
    running = pod(owner=("ReplicaSet", "web-1"))
    between = workload_of({"template": template(STRANGER)}, name="web-1", ownerReferences=owned("Rollout", "web"))
    found = seen(rollouts=[refers], replicasets=[between], pods=[running])
    assert [(one.kind, one.name) for one in found.workloads] == [("Rollout", "web")]
    assert [(one.owner, one.revision) for one in found.pods] == [(("Rollout", "web"), None)]


def test_a_rollout_whose_time_was_taken_away_is_not_being_restarted() -> None:
    """The annotation beside it restarts nothing."""
    item = workload_of({"replicas": 2}, HEALTHY, annotations={STAMP: "r-1"})
    found = only_workload(rollouts=[item])
    assert (found.stamp, found.template_time) == (None, None)
