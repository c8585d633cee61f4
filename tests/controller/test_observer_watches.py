"""Where a watch begins: nobody is woken by what they have seen, and nobody misses what came after it."""

from __future__ import annotations

import asyncio

import pytest

from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.observer import Key
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
