"""When a rollout is looked at: at its end, and meanwhile once in a while."""

from __future__ import annotations

import asyncio
from typing import Any

from keyturn.cluster.observer import Key
from keyturn.cluster.resources import DEPLOYMENTS, PODS
from tests.controller.test_observer import FakeKube, look, observers, pod, settle
from tests.controller.virtual import virtually


def deployment(name: str, updated: int) -> dict[str, Any]:
    meta = {"name": name, "uid": name, "generation": 2, "resourceVersion": "9"}
    status = {"observedGeneration": 2, "replicas": 3, "availableReplicas": 3, "updatedReplicas": updated}
    return {"metadata": meta, "spec": {"replicas": 3, "template": {"spec": {"containers": []}}}, "status": status}


def test_a_rollout_is_looked_at_when_it_ends_and_meanwhile_once_in_a_second() -> None:
    """I12: each of its events would be a look at the whole namespace, by which it takes longer."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        eyes, key = observers(kube, woken), ("ns", "one")
        eyes.follow(key)
        await settle()
        for updated in (0, 1, 2):
            eyes._happened(DEPLOYMENTS, "ns", {"type": "MODIFIED", "object": deployment("web", updated)})
            eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
        assert woken == []
        await asyncio.sleep(1.1)
        assert woken == [key]
        eyes._happened(PODS, "ns", {"type": "ADDED", "object": pod("p")})
        eyes._happened(DEPLOYMENTS, "ns", {"type": "MODIFIED", "object": deployment("web", 3)})
        assert woken == [key, key]
        eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
        assert woken == [key, key, key]
        await asyncio.sleep(1.1)
        assert len(woken) == 3
        await eyes.aclose()

    virtually(scenario())


def test_what_moved_when_it_was_looked_at_is_moving() -> None:
    """A watch that begins there does not tell of it again."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.present, kube.workload = (DEPLOYMENTS,), deployment("web", 1)
        eyes, key = observers(kube, woken), ("ns", "r")
        await look(eyes)
        eyes.follow(key)
        await settle()
        eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
        assert woken == []
        eyes._happened(DEPLOYMENTS, "ns", {"type": "MODIFIED", "object": deployment("web", 3)})
        assert woken == [key]
        await eyes.aclose()

    virtually(scenario())


def test_a_workload_that_goes_in_the_middle_of_its_rollout_is_not_waited_for() -> None:
    """Whether its deletion was seen or not."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.present = (DEPLOYMENTS,)
        eyes, key = observers(kube, woken), ("ns", "one")
        eyes.follow(key)
        await look(eyes)
        await settle()
        web = deployment("web", 1)
        eyes._happened(DEPLOYMENTS, "ns", {"type": "MODIFIED", "object": web})
        eyes._happened(DEPLOYMENTS, "ns", {"type": "DELETED", "object": web})
        eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
        assert woken == [key, key]
        eyes._happened(DEPLOYMENTS, "ns", {"type": "MODIFIED", "object": web})
        kube.streams.put_nowait(None)
        kube.streams.put_nowait(None)
        await asyncio.sleep(1.1)
        woken.clear()
        eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
        assert woken == [key]
        await eyes.aclose()

    virtually(scenario())
