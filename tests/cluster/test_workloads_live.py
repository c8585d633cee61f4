"""Every kind of workload on the real control plane: found, restarted, told apart, under the shipped RBAC."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pytest

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster import workloads
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import Conflict, Invalid, NotFound
from keyturn.cluster.observer import Observers
from sandbox.controlplane.components import minor
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Stage, wait_until

T = TypeVar("T")

READER: Final = {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "app"}}]}]}
ON_DELETE: Final = {"type": "OnDelete"}
PARTITION: Final = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A namespace with the Secret `app`, and Keyturn's eyes and hands in it."""

    stage: Stage
    name: str

    def put(self, kind: str, name: str, spec: dict[str, Any], version: str = "apps/v1", **meta: Any) -> None:
        metadata = {"name": name, "namespace": self.name, **meta}
        self.stage.apply([{"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}])

    def put_controller(self, kind: str, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        """A workload of apps/v1 whose pods read the Secret."""
        template = {"metadata": {"labels": {"app": name}, "annotations": annotations or {}}, "spec": READER}
        self.put(kind, name, {"selector": {"matchLabels": {"app": name}}, "template": template, **spec})

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.api.http.get(path).raise_for_status().json()
        return found

    def apps(self, plural: str, name: str = "") -> str:
        return f"/apis/apps/v1/namespaces/{self.name}/{plural}/{name}".rstrip("/")

    def pod(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.name}/pods/{name}"

    def do(self, act: Callable[[Kube], Awaitable[T]]) -> T:
        async def done() -> T:
            account = self.stage.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
            kube = await Kube.connect(account)
            try:
                return await act(kube)
            finally:
                await kube.aclose()

        return asyncio.run(done())

    def look(self, rollout: RolloutSpec | None = None) -> Consumers:
        return self.do(
            lambda kube: Observers(kube, lambda key: None).look((self.name, "r"), "app", rollout or RolloutSpec())
        )

    def restart(
        self, workload: Workload, stamp: str, written: datetime | None = None, *, dry_run: bool = False
    ) -> None:
        at = written or datetime.now(UTC).replace(microsecond=0)
        self.do(lambda kube: workloads.restart(kube, self.name, workload, stamp, at, dry_run=dry_run))

    def exists(self, workload: Workload) -> bool:
        return self.do(lambda kube: workloads.exists(kube, self.name, workload))

    def wait(self, condition: Callable[[Consumers], Any], what: str) -> Consumers:
        """Look until the condition holds, and return what was seen then."""

        def met() -> Consumers | None:
            found = self.look()
            return found if condition(found) else None

        return wait_until(met, what, pause=0.2)


@pytest.fixture
def place(stage: Stage) -> Iterator[Place]:
    name = f"workloads-{next(_numbers)}"
    stage.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "app", "namespace": name},
        "data": {"k": "dg=="},
    }
    stage.apply([secret])
    yield Place(stage, name)
    stage.api.http.delete(f"/api/v1/namespaces/{name}")


def by_name(found: Consumers) -> dict[str, Workload]:
    return {workload.name: workload for workload in found.workloads}


def pods_of(found: Consumers, name: str) -> list[Pod]:
    return sorted((pod for pod in found.pods if pod.owner[1] == name), key=lambda pod: pod.name)


def at_rest(found: Consumers) -> bool:
    return all(workload.settled for workload in found.workloads) and all(pod.ready for pod in found.pods)


def test_every_kind_is_found_with_its_pods(place: Place) -> None:
    """I4: nobody who reads the Secret is overlooked, and each pod is shown under what made it."""
    forever = {"sandbox.keyturn.dev/behavior": "run"}
    job = {"template": {"metadata": {"annotations": forever}, "spec": {**READER, "restartPolicy": "Never"}}}
    batch = "batch/v1" if minor(place.stage.control_plane.version) > 20 else "batch/v1beta1"
    place.put("CronJob", "nightly", {"schedule": "0 3 * * *", "jobTemplate": {"spec": job}}, version=batch)
    uid = place.get(f"/apis/{batch}/namespaces/{place.name}/cronjobs/nightly")["metadata"]["uid"]
    owner = {"apiVersion": batch, "kind": "CronJob", "name": "nightly", "uid": uid, "controller": True}
    place.put("Job", "nightly-1", job, version="batch/v1", ownerReferences=[owner])
    place.put("Job", "import", job, version="batch/v1")
    place.put("Pod", "alone", READER, version="v1")
    place.put_controller("Deployment", "web", replicas=2)
    place.put_controller("StatefulSet", "db", serviceName="db", replicas=2)
    place.put_controller("DaemonSet", "agent")
    place.put_controller("ReplicaSet", "bare", replicas=1)
    made = {
        ("Deployment", "web"): 2,
        ("StatefulSet", "db"): 2,
        ("DaemonSet", "agent"): 1,
        ("ReplicaSet", "bare"): 1,
        ("CronJob", "nightly"): 1,
        ("Job", "import"): 1,
    }
    found = place.wait(lambda seen: len(seen.pods) == 9 and at_rest(seen), "everything runs")
    assert {(one.kind, one.name): one.desired for one in found.workloads} == made
    owners = [pod.owner for pod in found.pods]
    assert {owner: owners.count(owner) for owner in owners} == {**made, ("Pod", "alone"): 1}
    assert {one.name for one in found.workloads if one.restartable} == {"web", "db", "agent"}
    assert {one.name for one in found.workloads if one.manual} == {"bare", "nightly", "import"}
    ordered = {pod.owner[1] for pod in found.pods if pod.revision == 1}
    assert ordered == {"web", "db", "agent"}, "their controllers count templates"


@pytest.mark.parametrize(("kind", "plural"), [("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")])
def test_restarts_and_their_history(place: Place, kind: str, plural: str) -> None:
    """I7: an earlier restart is remembered though another rotation has put its stamp over it. I4: what was taken into

    use again is not taken for new.
    """
    several: dict[str, Any] = {"serviceName": "db", "replicas": 2} if kind == "StatefulSet" else {}
    place.put_controller(kind, "db", **several)
    before = place.wait(lambda seen: len(seen.pods) > 0 and at_rest(seen), "it runs")
    place.restart(by_name(before)["db"], "rehearsal", dry_run=True)
    written = datetime.now(UTC).replace(microsecond=0)
    place.restart(by_name(before)["db"], "a", written)

    def rolled_out(stamp: str) -> Consumers:
        def all_new(seen: Consumers) -> bool:
            stamps = {by_name(seen)["db"].stamp, *(pod.stamp for pod in seen.pods)}
            return stamps == {stamp} and at_rest(seen)

        return place.wait(all_new, f"all pods run with stamp {stamp}")

    found = rolled_out("a")
    first = by_name(found)["db"]
    assert [(one.revision, one.stamp) for one in sorted(first.templates, key=key)] == [(1, None), (2, "a")]
    assert first.template_time is not None
    assert first.template_time >= written
    assert {pod.revision for pod in found.pods} == {2}
    generation = place.get(place.apps(plural, "db"))["metadata"]["generation"]
    place.restart(first, "a")
    assert place.get(place.apps(plural, "db"))["metadata"]["generation"] == generation, "the same stamp changes nothing"

    place.restart(first, "b")
    found = rolled_out("b")
    assert [one.stamp for one in sorted(by_name(found)["db"].templates, key=key)] == [None, "a", "b"]
    assert {pod.revision for pod in found.pods} == {3}

    undo = {"spec": {"template": {"metadata": {"annotations": {"keyturn.dev/rotation": "a"}}}}}
    place.stage.api.http.patch(place.apps(plural, "db"), json=undo, headers=_MERGE).raise_for_status()
    found = rolled_out("a")
    again = by_name(found)["db"]
    assert [(one.revision, one.stamp) for one in sorted(again.templates, key=key)] == [(1, None), (3, "b"), (4, "a")]
    assert again.template_time == first.template_time, "it is as old as it was"
    assert {pod.revision for pod in found.pods} == {None}


def key(template: Any) -> int:
    return int(template.revision)


def test_what_a_statefulset_leaves_to_a_person(place: Place) -> None:
    """I4: with OnDelete, and below a partition, old pods stay until somebody acts."""
    place.put_controller("StatefulSet", "lazy", serviceName="s", replicas=1, updateStrategy=ON_DELETE)
    place.put_controller("StatefulSet", "parted", serviceName="s", replicas=2, updateStrategy=PARTITION)
    place.put_controller("DaemonSet", "agent", updateStrategy=ON_DELETE)
    before = place.wait(lambda seen: len(seen.pods) == 4 and at_rest(seen), "all run")
    for workload in before.workloads:
        place.restart(workload, "a")

    def done(seen: Consumers) -> bool:
        parted = [pod.stamp for pod in pods_of(seen, "parted")]
        return at_rest(seen) and parted == [None, "a"] and all(workload.stamp == "a" for workload in seen.workloads)

    found = place.wait(done, "what happens by itself has happened")
    agent = pods_of(found, "agent")[0].name
    assert {one.name: one.manual for one in found.workloads} == {
        "lazy": "spec.updateStrategy is OnDelete: delete them",
        "parted": "spec.updateStrategy.rollingUpdate.partition keeps pods from being replaced: lower it to 0",
        "agent": "spec.updateStrategy is OnDelete: delete them",
    }
    for pod in ("lazy-0", agent):
        place.stage.api.http.delete(place.pod(pod)).raise_for_status()
    whole = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
    place.stage.api.http.patch(place.apps("statefulsets", "parted"), json=whole, headers=_MERGE).raise_for_status()
    place.wait(lambda seen: at_rest(seen) and [pod.stamp for pod in seen.pods] == ["a"] * 4, "all are new")


def test_what_was_deleted_is_not_made_again(place: Place) -> None:
    """The restart of a workload that is gone is refused, and it is known to be gone."""
    for kind in ("Deployment", "StatefulSet", "DaemonSet", "Rollout"):
        gone = Workload(kind, "gone", restartable=True)
        with pytest.raises((NotFound, Invalid)):
            place.restart(gone, "a")
        assert not place.exists(gone)
    place.put_controller("DaemonSet", "agent")
    assert place.exists(Workload("DaemonSet", "agent", restartable=True))


def test_a_pod_that_crashes_on_and_on_says_so(place: Place) -> None:
    crash = {"sandbox.keyturn.dev/behavior": "crash-loop", "sandbox.keyturn.dev/crash-backoff": "50ms"}
    short = {**crash, "sandbox.keyturn.dev/run-for": "20ms"}
    place.put_controller("StatefulSet", "db", annotations=short, serviceName="db", replicas=1)
    found = place.wait(lambda seen: any(pod.failing for pod in seen.pods), "it has crashed three times")
    assert "container app is in CrashLoopBackOff after" in str(found.pods[0].failing)


def put_rollout(place: Place, name: str, **spec: Any) -> None:
    template = {"metadata": {"labels": {"app": name}}, "spec": READER}
    whole = {
        "replicas": 2,
        "strategy": {"canary": {}},
        "selector": {"matchLabels": {"app": name}},
        "template": template,
    }
    without = {field: value for field, value in {**whole, **spec}.items() if value is not None}
    place.put("Rollout", name, without, version="argoproj.io/v1alpha1")


def rollout_spec(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = place.get(f"/apis/argoproj.io/v1alpha1/namespaces/{place.name}/rollouts/{name}")["spec"]
    return found


def test_rollouts_are_restarted_by_time(place: Place) -> None:
    """I7: one restart serves two rotations, and an earlier one never takes a later one back."""
    with place.stage.rollouts():
        put_rollout(place, "web")
        place.put_controller("Deployment", "source", replicas=0)
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "source"}
        put_rollout(place, "referring", workloadRef=reference, template=None, selector=None)
        before = place.wait(lambda seen: len(seen.pods) == 4 and at_rest(seen), "both run")
        assert {pod.owner for pod in before.pods} == {("Rollout", "web"), ("Rollout", "referring")}
        assert set(by_name(before)) == {"web", "referring", "source"}

        written = datetime.now(UTC).replace(microsecond=0)
        for name in ("web", "referring"):
            place.restart(by_name(before)[name], "a", written)
        found = place.wait(
            lambda seen: all(pod.created > written for pod in seen.pods) and len(seen.pods) == 4 and at_rest(seen),
            "all pods are younger than the value",
        )
        web = by_name(found)["web"]
        assert (web.stamp, web.template_time is not None and web.template_time > written) == ("a", True)
        assert not {pod.name for pod in before.pods} & {pod.name for pod in found.pods}

        asked = rollout_spec(place, "web")["restartAt"]
        place.restart(web, "b", datetime(2026, 1, 1, tzinfo=UTC))
        assert rollout_spec(place, "web")["restartAt"] == asked
        assert by_name(place.look())["web"].stamp == "b"
        put_rollout(place, "web", restartAt="2999-01-01T00:00:00Z")
        assert by_name(place.look())["web"].template_time is None
        place.restart(web, "c", written)
        assert rollout_spec(place, "web")["restartAt"] == asked


def test_a_rollout_that_is_changed_at_the_same_time_is_read_again(place: Place) -> None:
    """I7: two rotations that ask at once must not both go by the time that was there before."""
    with place.stage.rollouts():
        put_rollout(place, "web", replicas=0)
        web = Workload("Rollout", "web", restartable=True)

        class Interrupted(Kube):
            async def get(self, *arguments: Any) -> dict[str, Any]:
                found = await super().get(*arguments)
                changed = {"metadata": {"annotations": {"another": "change"}}}
                await super().merge(arguments[0], place.name, "web", changed)
                return found

        account = place.stage.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)

        async def restart() -> None:
            kube = await Interrupted.connect(account)
            try:
                await workloads.restart(kube, place.name, web, "a", datetime.now(UTC))
            finally:
                await kube.aclose()

        with pytest.raises(Conflict):
            asyncio.run(restart())
