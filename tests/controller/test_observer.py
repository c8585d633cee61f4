"""Shared eyes on a namespace: nobody gets a listing that began before they asked (I4), watches end with their use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest

from keyturn.api.observed import Consumers
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.client import Kube, Listed, Resource
from keyturn.cluster.errors import ClusterError, Expired, NotFound, Unavailable
from keyturn.cluster.observer import Key, Observers
from keyturn.cluster.resources import CRONJOBS, CRONJOBS_BETA, DEPLOYMENTS, PODS, REPLICASETS, ROLLOUTS, STATEFULSETS
from keyturn.rotation.consumers import RolloutView
from keyturn.rotation.targets import rollout_gate
from tests.controller.virtual import virtually
from tests.unit.consumers import ZERO, record

LISTING_SECONDS = 1.0


class FakeKube:
    """A pod is added to the world with every tenth of a second; a listing takes a second and shows its beginning.

    pods: what is listed of them instead.
    """

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.failing = False
        self.expired = False
        self.version = "5"
        self.workload = workload("web")
        self.owner: str | None = None
        self.pods: list[dict[str, Any]] | None = None
        self.present: tuple[Resource, ...] = ()
        self.absent: set[Resource] = set()
        self.listed: list[Resource] = []
        self.watching: list[str] = []
        self.since: list[str | None] = []
        self.refused: list[float] = []
        self.retry_after: timedelta | None = None
        self.streams: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def list(self, resource: Resource, namespace: str) -> Listed:
        now = asyncio.get_running_loop().time()
        self.listed.append(resource)
        if resource is PODS:
            self.begun.append(now)
        await asyncio.sleep(LISTING_SECONDS)
        if self.failing:
            raise Unavailable("down")
        if resource in self.absent:
            raise NotFound("404")
        if resource in self.present:
            return Listed([self.workload], self.version)
        if resource is PODS:
            return Listed([pod(f"{now:g}", self.owner)] if self.pods is None else self.pods, self.version)
        return Listed([], self.version)

    async def watch(self, resource: Resource, namespace: str, since: str | None) -> AsyncIterator[dict[str, Any]]:
        if self.retry_after is not None:
            self.refused.append(asyncio.get_running_loop().time())
            raise Unavailable("429", self.retry_after)
        if self.expired and since is not None:
            raise Expired("410")
        self.watching.append(resource.plural)
        self.since.append(since)
        try:
            while (event := await self.streams.get()) is not None:
                yield event
        finally:
            self.watching.remove(resource.plural)


def pod(name: str, owner: str | None = None, created: str = "2026-03-01T12:00:00Z") -> dict[str, Any]:
    spec = {"imagePullSecrets": [{"name": "app"}]}
    meta: dict[str, Any] = {"name": name, "uid": name, "creationTimestamp": created, "resourceVersion": "7"}
    if owner is not None:
        reference = {"apiVersion": "apps/v1", "kind": owner, "name": "web", "uid": "web", "controller": True}
        meta["ownerReferences"] = [reference]
    return {"metadata": meta, "spec": spec}


def workload(name: str) -> dict[str, Any]:
    template: dict[str, Any] = {"spec": {"containers": []}}
    created = "2026-03-01T12:00:00Z"
    meta = {"name": name, "uid": name, "creationTimestamp": created, "generation": 1, "resourceVersion": "7"}
    counted = ("observedGeneration", "replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    return {"metadata": meta, "spec": {"template": template}, "status": dict.fromkeys(counted, 1)}


def observers(kube: FakeKube, woken: list[Key] | None = None) -> Observers:
    return Observers(cast(Kube, kube), (woken if woken is not None else []).append)


async def look(eyes: Observers, after: float = 0, namespace: str = "ns", name: str = "r") -> tuple[float, float]:
    """When the caller asked, and when the listing began that it got."""
    await asyncio.sleep(after)
    asked = asyncio.get_running_loop().time()
    found = await eyes.look((namespace, name), "app", RolloutSpec())
    return asked, float(found.pods[0].name)


def test_no_listing_is_used_that_began_before_the_call() -> None:
    """I4"""

    async def scenario() -> None:
        kube = FakeKube()
        eyes = observers(kube)
        answers = await asyncio.gather(*(look(eyes, after) for after in (0, 0, 0.3, 0.4, 0.9, 1.05, 5)))
        assert all(began >= asked for asked, began in answers), answers

    virtually(scenario())


def test_those_who_wait_at_the_same_time_share_one_listing() -> None:
    async def scenario() -> None:
        kube = FakeKube()
        eyes = observers(kube)
        await asyncio.gather(*(look(eyes, after) for after in [0] * 50 + [0.1] * 50 + [0.7] * 50))
        assert kube.begun == [0, 1]

    virtually(scenario())


def test_namespaces_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        kube = FakeKube()
        eyes = observers(kube)
        await asyncio.gather(look(eyes, namespace="a"), look(eyes, namespace="b"))
        assert kube.begun == [0, 0]

    virtually(scenario())


def test_a_listing_that_fails_fails_for_its_callers_and_not_for_the_next() -> None:
    async def scenario() -> None:
        kube = FakeKube()
        kube.failing = True
        eyes = observers(kube)
        outcomes = await asyncio.gather(look(eyes), look(eyes), look(eyes, 0.5), return_exceptions=True)
        assert all(isinstance(outcome, ClusterError) for outcome in outcomes)
        kube.failing = False
        asked, began = await look(eyes)
        assert began >= asked

    virtually(scenario())


def test_a_caller_that_is_cancelled_does_not_take_the_listing_from_the_others() -> None:
    async def scenario() -> None:
        eyes = observers(FakeKube())
        first, second = asyncio.create_task(look(eyes)), asyncio.create_task(look(eyes))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await second == (0, 0)

    virtually(scenario())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("followers", [1, 3])
def test_all_followers_are_woken_and_the_watch_ends_with_the_last(followers: int) -> None:
    """I12: cost follows active rotations."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.present = (DEPLOYMENTS,)
        eyes = observers(kube, woken)
        keys = [("ns", str(number)) for number in range(followers)]
        for key in keys:
            await look(eyes, name=key[1])
        for key in keys:
            eyes.follow(key)
            eyes.follow(key)
        await settle()
        assert sorted(kube.watching) == ["deployments", "pods"]
        kube.streams.put_nowait({"type": "MODIFIED", "object": workload("web")})
        await settle()
        assert sorted(woken) == keys
        for key in keys:
            assert len(kube.watching) == 2
            eyes.unfollow(key)
            await settle()
        assert kube.watching == []
        eyes.unfollow(("ns", "unknown"))
        await eyes.aclose()

    virtually(scenario())


def test_a_bookmark_wakes_nobody() -> None:
    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        eyes = observers(kube, woken)
        eyes.follow(("ns", "one"))
        await settle()
        kube.streams.put_nowait({"type": "BOOKMARK"})
        await settle()
        assert woken == []
        await eyes.aclose()

    virtually(scenario())


def test_a_watch_that_ends_wakes_and_begins_again() -> None:
    """I9: what happened between two watches is looked for when the second begins."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        eyes = observers(kube, woken)
        eyes.follow(("ns", "one"))
        await settle()
        kube.streams.put_nowait(None)
        await settle()
        assert kube.watching == []
        await asyncio.sleep(1)
        assert woken == [("ns", "one")]
        assert kube.watching == ["pods"]
        await eyes.aclose()

    virtually(scenario())


def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    """Neither watches nor looks come earlier, and then they go on as ever."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.retry_after = timedelta(seconds=20)
        eyes = observers(kube, woken)
        eyes.follow(("ns", "one"))
        await asyncio.sleep(19.9)
        assert (kube.refused, woken) == ([0], [])
        await asyncio.sleep(20)
        assert (kube.refused, woken) == ([0, 20], [("ns", "one")])
        kube.retry_after = None
        await asyncio.sleep(1)
        assert kube.watching == ["pods"]
        await eyes.aclose()

    virtually(scenario())


def test_only_what_there_is_gets_watched() -> None:
    """I12: a kind that the namespace does not use costs no watch, and one that appears gets one."""

    async def scenario() -> None:
        kube = FakeKube()
        kube.present = (STATEFULSETS, REPLICASETS)
        eyes = observers(kube)
        eyes.follow(("ns", "one"))
        await settle()
        assert kube.watching == ["pods"]
        await look(eyes, name="one")
        await settle()
        assert sorted(kube.watching) == ["pods", "statefulsets"]
        kube.present = (DEPLOYMENTS,)
        await look(eyes, name="one")
        await settle()
        assert sorted(kube.watching) == ["deployments", "pods", "statefulsets"]
        eyes.unfollow(("ns", "one"))
        await settle()
        await look(eyes, name="one")
        assert kube.watching == []
        await eyes.aclose()

    virtually(scenario())


def test_a_kind_that_is_not_served_is_asked_for_again_after_a_minute() -> None:
    """CronJobs are in v1beta1 before 1.21; Rollouts only where somebody has installed them, perhaps just now."""

    async def scenario() -> None:
        kube = FakeKube()
        kube.absent = {CRONJOBS, ROLLOUTS}
        eyes = observers(kube)
        await look(eyes)
        await look(eyes, namespace="other")
        assert [kube.listed.count(resource) for resource in (CRONJOBS, ROLLOUTS, CRONJOBS_BETA)] == [1, 1, 2]
        kube.absent = set()
        await look(eyes, after=60)
        assert [kube.listed.count(resource) for resource in (CRONJOBS, ROLLOUTS, CRONJOBS_BETA)] == [2, 2, 2]

    virtually(scenario())


def test_kinds_that_a_namespace_has_none_of_are_not_asked_for_each_time() -> None:
    kube = FakeKube()
    kube.present = (DEPLOYMENTS,)

    async def main() -> None:
        eyes = observers(kube)
        await look(eyes)
        assert STATEFULSETS in kube.listed
        kube.listed.clear()
        await look(eyes)
        assert set(kube.listed) == {PODS, DEPLOYMENTS, REPLICASETS, ROLLOUTS}
        kube.listed.clear()
        await look(eyes, namespace="other")
        assert STATEFULSETS in kube.listed
        kube.listed.clear()
        await look(eyes, after=10)
        assert STATEFULSETS in kube.listed

    virtually(main())


def test_a_pod_of_a_kind_that_was_not_there_has_it_looked_for() -> None:
    """I4: what it belongs to says who replaces it."""
    kube = FakeKube()

    async def main() -> None:
        eyes = observers(kube)
        await look(eyes)
        kube.present, kube.owner = (STATEFULSETS,), "StatefulSet"
        kube.listed.clear()
        found = await eyes.look(("ns", "r"), "app", RolloutSpec())
        assert STATEFULSETS in kube.listed
        assert [(one.kind, one.name) for one in found.workloads] == [("StatefulSet", "web")]

    virtually(main())


@pytest.mark.parametrize("kind", ["StatefulSet", "Unheard"])
def test_a_workload_that_is_not_listed_yet_has_no_pod_that_could_hold_the_old_value(kind: str) -> None:
    """I4: it is new since its kind was found empty, and its pods are listed each time.

    As long as it has none it holds up nothing, and need not: what starts later reads the value that was written before.
    """
    kube = FakeKube()
    written = record(distributed=10)

    def rollout(found: Consumers) -> RolloutView:
        return RolloutView(found, written, RolloutSpec(), ZERO + timedelta(seconds=30))

    async def main() -> None:
        eyes = observers(kube)
        kube.pods = []
        await look_at(eyes)
        kube.present = (STATEFULSETS,)
        unseen = await look_at(eyes)
        assert unseen.workloads == ()
        assert rollout_gate(rollout(unseen)) is None
        kube.pods = [pod("old", kind, "2026-03-01T12:00:10Z")]
        seen = rollout(await look_at(eyes))
        assert [one.name for one in seen.unsafe_pods] == ["old"]
        assert rollout_gate(seen) is not None
        kube.pods = [pod("new", kind, "2026-03-01T12:00:11Z")]
        assert not rollout(await look_at(eyes)).unsafe_pods

    virtually(main())


async def look_at(eyes: Observers) -> Consumers:
    return await eyes.look(("ns", "r"), "app", RolloutSpec())
