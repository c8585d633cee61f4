"""After a rotation nothing can come up on the old value again, whatever is rolled back, scaled, moved or begun (I3).

By construction: a pod's template names a Secret and a key, never a value, so going back to an earlier template goes
back to no earlier value. A container gets what the Secret holds in the moment in which it starts, and that is the new
value; the old one is in no object of the namespace any more: the journal is gone, and so is `previousKey`. The only
thing of the rotation in a template is the annotation keyturn.dev/rotation, which nothing reads to find a value.

That the old value is refused by now, Keyturn has tried itself: `lastRotation.previousRefused`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime
from typing import Final

import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from sandbox.traffic.report import PodTraffic, fingerprint
from tests.e2e.acts import put_ordered, reader, workload_path
from tests.e2e.ends import completed
from tests.e2e.middle import Case, all_played, each, nothing
from tests.e2e.scene import Scene, encode

_HOUR: Final = 3600.0


def put_nightly(scene: Scene) -> None:
    """A CronJob that is there before the rotation, and whose time comes after it."""
    version = "batch/v1" if minor(scene.stage.control_plane.version) > 20 else "batch/v1beta1"
    pod = reader(scene)
    pod["spec"]["restartPolicy"] = "Never"
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}}
    scene.put({"apiVersion": version, "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": spec})


def run_nightly(scene: Scene) -> None:
    """What the CronJob's controller does when the time has come: a Job from its template."""
    version = "v1" if minor(scene.stage.control_plane.version) > 20 else "v1beta1"
    cron = scene.get(f"/apis/batch/{version}/namespaces/{scene.namespace}/cronjobs/nightly") or {}
    job = cron["spec"]["jobTemplate"]
    scene.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "tonight"}, "spec": job["spec"]})


def undo(scene: Scene, kind: str, name: str) -> None:
    """Back to the template from before the rotation."""

    def stamped() -> bool:
        found = scene.get(workload_path(scene, f"{kind}s", name)) or {}
        return "keyturn.dev/rotation" in found["spec"]["template"]["metadata"]["annotations"]

    assert stamped()
    scene.kubectl("rollout", "undo", f"{kind}/{name}")
    assert not stamped()


def come_up_again(scene: Scene) -> None:
    """Each way in which pods come up: by the template from before the rotation, more of them, elsewhere, as a Job."""
    undo(scene, "deployment", "web")
    undo(scene, "statefulset", "ordered")
    scene.patch(scene.deployment_path(), {"spec": {"replicas": 3}})
    for workload in ("deployment/web", "statefulset/ordered"):
        scene.kubectl("rollout", "status", workload, "--timeout=60s")
    moved = scene.running()[0].pod
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{moved}")
    run_nightly(scene)
    scene.put_deployment("later", replicas=1)
    job = f"/apis/batch/v1/namespaces/{scene.namespace}/jobs/tonight"
    scene.wait(lambda: (scene.get(job) or {})["status"].get("succeeded"), "the Job is done")
    scene.wait_available("web", 3)


def old_value_is_nowhere(scene: Scene) -> None:
    """In no object that a pod could be made from, or read."""
    pods = ("pods", "secrets", "configmaps")
    apps = ("deployments", "replicasets", "controllerrevisions")
    paths = [f"/api/v1/namespaces/{scene.namespace}/{kind}" for kind in pods]
    paths += [f"/apis/apps/v1/namespaces/{scene.namespace}/{kind}" for kind in apps]
    for path in paths:
        text = json.dumps(scene.get(path))
        assert scene.first_secret not in text
        assert encode(scene.first_secret) not in text


def refused_by_now(scene: Scene) -> None:
    """As the provider promises it: at once, or at a time that was told."""
    last, simulator = scene.status()["lastRotation"], scene.account.simulator
    if scene.provider == "janrain":
        end = datetime.fromisoformat(last["previousValidUntil"]).timestamp()
        assert simulator.now() < end < simulator.now() + 24 * _HOUR
        assert "previousRefused" not in last
        simulator.advance(24 * _HOUR)
    else:
        assert last["previousRefused"] is True
    assert not simulator.accepts(scene.client_id, scene.first_secret)


def after(scene: Scene) -> None:
    completed(scene, web=1)
    refused_by_now(scene)
    old_value_is_nowhere(scene)
    before = {pod.uid for pod in scene.traffic()}
    come_up_again(scene)
    new = fingerprint(scene.secret()["CLIENT_SECRET"])

    def fresh() -> list[PodTraffic]:
        return [pod for pod in scene.traffic() if pod.uid not in before and pod.calls.accepted.count]

    # Of the Deployment two that were rolled back, one more, and one for the one that was moved; the StatefulSet's two;
    # the Job's; and one of a Deployment that was not there before.
    scene.wait(lambda: len(fresh()) >= 8, "all of them call")
    for pod in fresh():
        assert pod.values.keys() == {new}
        assert (pod.calls.refused.count, pod.calls.failed.count) == (0, 0)
    assert scene.restarts() == 1, "I7: going back to a template that there was is no new one"
    old_value_is_nowhere(scene)


def prepare(scene: Scene) -> None:
    scene.put_deployment(replicas=2)
    put_ordered(scene)
    put_nightly(scene)


def afterwards(provider: str) -> Case:
    keys = {"key": "CLIENT_SECRET", "previousKey": "PREVIOUS"}
    spec = {"acceptDowntime": provider == "snaptrade", "secretRef": {"name": "m2m", **keys}}
    return Case("afterwards", "Completed", nothing, after, before=prepare, spec=spec, provider=provider)


CASES: Final = tuple(map(afterwards, ("stytch", "janrain", "snaptrade")))


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    with all_played(stage, request, CASES) as results:
        yield results


@each(CASES)
def test_afterwards(played: dict[str, Future[None]], case: Case) -> None:
    """Item 7 of what every consumer counts for, at each provider."""
    played[case.name].result()
