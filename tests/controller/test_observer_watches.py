"""Where a watch begins: nobody is woken by what they have seen, and nobody misses what came after it."""

from __future__ import annotations

import asyncio

import pytest

from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.observer import Key
from keyturn.cluster.resources import DEPLOYMENTS, PODS
from tests.controller.test_observer import FakeKube, observers, pod, settle
from tests.controller.virtual import virtually


def test_a_watch_begins_where_the_look_was() -> None:
    """What is there already wakes nobody. Another one that begins to follow is told what it has missed, and once."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        eyes, first, second = observers(kube, woken), ("ns", "one"), ("ns", "two")
        await eyes.look(first, "app", RolloutSpec())
        eyes.follow(first)
        await settle()
        assert kube.since == ["5"]
        await eyes.look(second, "app", RolloutSpec())
        kube.streams.put_nowait({"type": "MODIFIED", "object": pod("p")})
        await settle()
        assert woken == [first]
        for _ in range(2):
            eyes.follow(second)
            assert woken == [first, second]
        await eyes.look(first, "app", RolloutSpec())
        eyes.follow(first)
        assert woken == [first, second]
        await eyes.aclose()

    virtually(scenario())


@pytest.mark.parametrize("others_follow", [False, True])
def test_who_looked_before_the_watch_began_is_not_left_behind(others_follow: bool) -> None:
    """What happened between the two looks is nobody's news but theirs."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        eyes, early, late = observers(kube, woken), ("ns", "early"), ("ns", "late")
        await eyes.look(early, "app", RolloutSpec())
        kube.version = "6"
        await eyes.look(late, "app", RolloutSpec())
        if others_follow:
            eyes.follow(late)
            await settle()
        assert woken == []
        eyes.follow(early)
        await settle()
        assert (kube.since, woken) == (["6"], [early])
        await eyes.aclose()

    virtually(scenario())


def test_a_version_that_is_too_old_to_watch_from_is_not_tried_again() -> None:
    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.expired = True
        eyes, key = observers(kube, woken), ("ns", "one")
        await eyes.look(key, "app", RolloutSpec())
        eyes.follow(key)
        await asyncio.sleep(1)
        assert (kube.since, woken) == ([None], [key])
        await eyes.aclose()

    virtually(scenario())


def test_who_is_about_to_follow_misses_nothing_whatever_others_do() -> None:
    """Seen lost: what wakes later, a watch that begins anew, and others that end in between."""

    async def scenario() -> None:
        kube, woken = FakeKube(), list[Key]()
        kube.present = (DEPLOYMENTS,)
        eyes, late, other = observers(kube, woken), ("ns", "late"), ("ns", "other")

        async def missed(name: str) -> bool:
            """Whether `late` is told that something happened between its look and its following."""
            await eyes.look(late, "app", RolloutSpec())
            if name == "a pod comes":
                eyes._happened(PODS, "ns", {"type": "ADDED", "object": pod("p")})
                await asyncio.sleep(1.1)
            elif name == "a watch ends":
                kube.streams.put_nowait(None)
                await asyncio.sleep(1.1)
            elif name == "it ends with a change":
                eyes._happened(PODS, "ns", {"type": "DELETED", "object": pod("p")})
                eyes.unfollow(other)
            elif name == "it ends":
                eyes.unfollow(other)
            woken.clear()
            eyes.follow(late)
            await settle()
            assert sorted(set(kube.watching)) == ["deployments", "pods"]
            told = late in woken
            eyes.unfollow(late)
            await settle()
            return told

        for name in ("nothing", "a pod comes", "a watch ends", "it ends", "it ends with a change"):
            await eyes.look(other, "app", RolloutSpec())
            eyes.follow(other)
            await settle()
            assert await missed(name) is (name not in ("nothing", "it ends")), name
        await eyes.aclose()

    virtually(scenario())
