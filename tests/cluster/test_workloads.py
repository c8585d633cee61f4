"""Who reads the Secret, judged from objects as the API server returns them."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.api.observed import Workload
from keyturn.cluster.objects import STAMP
from tests.cluster.objects import (
    CREATED,
    LATER,
    READER,
    STRANGER,
    at,
    deployment,
    meta,
    only_pod,
    only_workload,
    owned,
    pod,
    ready,
    replicaset,
    seen,
    workload_of,
)

DONE = {"conditions": [{"type": "Complete", "status": "True"}]}
FAILED = {"conditions": [{"type": "Failed", "status": "True"}]}


def workload(item: dict[str, Any], *replicasets: dict[str, Any]) -> Workload:
    """The Deployment as Keyturn sees it."""
    return only_workload(deployments=[item], replicasets=list(replicasets))


def test_an_empty_namespace_has_no_consumers() -> None:
    found = seen()
    assert (found.workloads, found.pods) == ((), ())


def test_strangers_are_left_alone() -> None:
    """I7"""
    stranger = pod(spec=STRANGER, owner=("ReplicaSet", "web-1"))
    found = seen(deployments=[deployment(STRANGER)], replicasets=[replicaset()], pods=[stranger])
    assert (found.workloads, found.pods) == ((), ())


def test_a_pod_belongs_to_the_deployment_of_its_replicaset() -> None:
    assert only_pod(pod(owner=("ReplicaSet", "web-1")), replicasets=[replicaset()]).owner == ("Deployment", "web")


def test_a_pod_without_a_known_chain_stands_for_the_nearest_owner() -> None:
    """I4: whatever owns it, it keeps the old value alive."""
    assert only_pod(pod(owner=("ReplicaSet", "gone"))).owner == ("ReplicaSet", "gone")
    assert only_pod(pod(owner=("Job", "nightly"))).owner == ("Job", "nightly")
    assert only_pod(pod("alone")).owner == ("Pod", "alone")
    references = owned("ReplicaSet", "web-1", controller=False)
    assert only_pod(pod("adopted", ownerReferences=references), replicasets=[replicaset()]).owner == ("Pod", "adopted")


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


@pytest.mark.parametrize(
    ("owner", "between", "top"),
    [
        (("ReplicaSet", "rs"), {"replicasets": [("Deployment", "web")]}, ("Deployment", "web")),
        (("ReplicaSet", "rs"), {"replicasets": [("Rollout", "web")]}, ("Rollout", "web")),
        (("ReplicaSet", "rs"), {"replicasets": [None]}, ("ReplicaSet", "rs")),
        (("Job", "rs"), {"jobs": [("CronJob", "nightly")]}, ("CronJob", "nightly")),
        (("Job", "rs"), {"jobs": [("JobSet", "train")]}, ("JobSet", "train")),
        (("Job", "rs"), {"jobs": [None]}, ("Job", "rs")),
        (("StatefulSet", "db"), {}, ("StatefulSet", "db")),
        (("DaemonSet", "agent"), {}, ("DaemonSet", "agent")),
        (("ReplicationController", "web-1"), {}, ("ReplicationController", "web-1")),
    ],
    ids=str,
)
def test_a_pod_belongs_to_the_top_of_its_owners(
    owner: tuple[str, str], between: dict[str, list[tuple[str, str] | None]], top: tuple[str, str]
) -> None:
    """I4: its state is shown, and it is restarted, where it comes from."""
    objects = {
        field: [
            workload_of({}, name="rs", ownerReferences=owned(*above) if above is not None else []) for above in owners
        ]
        for field, owners in between.items()
    }
    assert only_pod(pod(owner=owner), **objects).owner == top


def test_kinds_of_other_groups_are_not_taken_for_those_that_are_known() -> None:
    """OpenKruise has a StatefulSet of its own, say; restarting the other one of that name would help nobody."""
    references = owned("StatefulSet", "web", group="apps.kruise.io/v1beta1")
    strange = pod(ownerReferences=references)
    found = seen(pods=[strange], statefulsets=[workload_of({"template": {"spec": STRANGER}})])
    assert [one.owner for one in found.pods] == [("StatefulSet.apps.kruise.io", "web")]
    assert found.workloads == ()


def test_a_namesake_that_was_deleted_is_another() -> None:
    """I4: pods of a ReplicaSet that is gone must not pass for those of the one that has its name now."""
    references = [{**owned("ReplicaSet", "web-1")[0], "uid": "another"}]
    found = only_pod(pod(ownerReferences=references), replicasets=[replicaset()])
    assert (found.owner, found.revision) == (("ReplicaSet", "web-1"), None)


def test_what_is_to_run_later_is_listed_and_needs_nothing() -> None:
    """A CronJob between two runs, say: what it starts next reads what is in the Secret then."""
    cron = {"metadata": meta("nightly"), "spec": {"jobTemplate": {"spec": {"template": {"spec": READER}}}}}
    found = seen(
        cronjobs=[cron],
        jobs=[
            workload_of({}, name="import"),
            workload_of({}, DONE, name="done"),
            workload_of({}, FAILED, name="failed"),
        ],
        replicasets=[workload_of({"replicas": 0}, name="bare")],
    )
    listed = {(one.kind, one.name): (one.settled, one.restartable, one.desired) for one in found.workloads}
    nothing = (True, False, 0)
    assert listed == {("CronJob", "nightly"): nothing, ("Job", "import"): nothing, ("ReplicaSet", "bare"): nothing}


def test_what_only_others_can_end_says_so() -> None:
    """I4: the message of a target that is held."""
    cron = {"metadata": meta("nightly"), "spec": {"jobTemplate": {"spec": {"template": {"spec": READER}}}}}
    run = workload_of({}, name="nightly-1", ownerReferences=owned("CronJob", "nightly"))
    pods = [
        pod("nightly-1-a", owner=("Job", "nightly-1")),
        pod("import-a", owner=("Job", "import")),
        ready(pod("bare-a", owner=("ReplicaSet", "bare"))),
    ]
    found = seen(
        pods=pods,
        cronjobs=[cron],
        jobs=[run, workload_of({}, name="import")],
        replicasets=[workload_of({"replicas": 1}, name="bare")],
    )
    told = {(one.kind, one.name): (one.desired, one.settled, one.manual) for one in found.workloads}
    assert told == {
        ("CronJob", "nightly"): (1, True, "its jobs must end, or be deleted"),
        ("Job", "import"): (1, True, "it must end, or be deleted"),
        ("ReplicaSet", "bare"): (1, True, "a ReplicaSet does not replace its pods: delete them"),
    }


@pytest.mark.parametrize("pods", [[], [pod("bare-a", owner=("ReplicaSet", "bare"))]], ids=["missing", "unready"])
def test_a_replicaset_is_settled_when_its_pods_are(pods: list[dict[str, Any]]) -> None:
    assert not only_workload(pods=pods, replicasets=[workload_of({"replicas": 1}, name="bare")]).settled


def crashing(restarts: int, reason: str = "CrashLoopBackOff", group: str = "containerStatuses") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "back-off: s3cr3t"}}
    return {"phase": "Running", group: [{"name": "app", "restartCount": restarts, "state": state}]}


@pytest.mark.parametrize(
    ("status", "failing"),
    [
        (crashing(3), True),
        (crashing(3, group="initContainerStatuses"), True),
        (crashing(2), False),
        (crashing(9, reason="ImagePullBackOff"), False),
        (
            {"phase": "Running", "containerStatuses": [{"name": "app", "restartCount": 9, "state": {"running": {}}}]},
            False,
        ),
    ],
    ids=["three times", "init", "twice", "waits for something else", "runs again"],
)
def test_a_container_that_crashes_again_and_again(status: dict[str, Any], failing: bool) -> None:
    """I8: it is named, and what it said is not repeated."""
    found = only_pod(pod(status=status)).failing
    expected = (
        f"container app is in CrashLoopBackOff after {status[next(reversed(status))][0]['restartCount']} restarts"
    )
    assert found == (expected if failing else None)


@pytest.mark.parametrize(
    ("text", "wave"),
    [(None, 0), ("0", 0), ("3", 3), ("-1", -1), ("", None), ("1.5", None), ("one", None), ("1_0", None), (" 1", None)],
)
def test_waves_are_whole_numbers(text: str | None, wave: int | None) -> None:
    item = deployment()
    if text is not None:
        item["metadata"]["annotations"]["keyturn.dev/wave"] = text
    assert workload(item).wave == wave
