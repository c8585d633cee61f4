"""The concurrency of RotationPolicies: never exceeded, nobody starves, and few writes, whatever crashes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyturn.cluster.resources import POLICIES, ROTATIONS
from keyturn.controller.ledger import SETTLE_SECONDS, STALE_SECONDS
from tests.controller.fleet import Api, Fleet, Replica, Task, policy
from tests.controller.virtual import virtually

NAMESPACES = ("a", "b", "c")


def fleet(test: Callable[[Fleet], Awaitable[None]], tasks: list[Task], limits: dict[str, int] | None) -> None:
    async def run() -> None:
        found = Fleet(tasks, Api(random.Random(1)), limits)
        await test(found)
        await found.stop()

    virtually(run())


def due(count: int, *, namespace: str = "a", account: str = "one", lasts: float = 5, at: float = 0) -> list[Task]:
    return [Task((namespace, f"{account}{number}"), account, at, lasts) for number in range(count)]


TASKS = st.lists(
    st.tuples(
        st.sampled_from(NAMESPACES),
        st.sampled_from(["one", "two"]),
        st.floats(0, 20),
        st.floats(0.1, 20),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=15,
)
LIMITS = st.dictionaries(st.sampled_from(["cluster", "perNamespace", "perProvider"]), st.integers(1, 3), min_size=1)
DEATHS = st.lists(st.tuples(st.floats(0, 60), st.integers(0, 2), st.floats(0, 10)), max_size=3)


@settings(deadline=None, max_examples=25)
@given(TASKS, LIMITS, DEATHS, st.integers(1, 3), st.sampled_from([0.0, 0.05]), st.integers())
@example([("a", "one", 2.0 * (n == 1), 1.0, n == 1) for n in range(6)], {"cluster": 1}, [], 1, 0.05, 1)
def test_it_is_never_exceeded_and_nobody_starves(
    wanted: list[tuple[str, str, float, float, bool]],
    limits: dict[str, int],
    deaths: list[tuple[float, int, float]],
    count: int,
    trouble: float,
    seed: int,
) -> None:
    """Several replicas, each with namespaces of its own, die and are replaced while an API server has hiccups."""
    tasks = [
        Task((namespace, f"r{number}"), account, begin, lasts, urgent)
        for number, (namespace, account, begin, lasts, urgent) in enumerate(wanted)
    ]

    async def run() -> None:
        found = Fleet(tasks, Api(random.Random(seed), trouble), limits)
        replicas = [Replica(found, set(NAMESPACES[number::count])) for number in range(count)]

        async def die(at: float, who: int, pause: float) -> None:
            await asyncio.sleep(at)
            dead = replicas[who % count]
            dead.kill()
            await asyncio.sleep(pause)
            replicas[who % count] = Replica(found, dead.namespaces)

        dying = [asyncio.create_task(die(*death)) for death in deaths]
        await found.end(20 * len(tasks) + 60 + len(deaths) * (STALE_SECONDS + 30) + 200 * bool(trouble))
        await asyncio.gather(*dying)
        await asyncio.sleep(2 * STALE_SECONDS)
        assert found.permits() == [], "what has ended has no permit for ever"
        await found.stop()

    virtually(run())


def test_two_policies_do_not_keep_each_others_rotations_waiting() -> None:
    """Seen: one rotation kept the place of the first policy while it waited for the second, and another the reverse."""
    covered = {"a": ("pa",), "b": ("pb",), "k1": ("pa", "pb"), "k2": ("pa", "pb")}
    tasks = [Task(("ns", name), "one", at, lasts) for name, at, lasts in TWO_POLICIES]

    async def test(found: Fleet) -> None:
        for name, policies in covered.items():
            raw = found.api.objects[ROTATIONS.kind, "ns", name]
            found.api.put({**raw, "metadata": {**raw["metadata"], "labels": dict.fromkeys(policies, "y")}})
        for name in ("pa", "pb"):
            raw = policy(cluster=1)
            selector = {"rotationSelector": {"matchLabels": {name: "y"}}}
            found.api.put(
                {**raw, "metadata": {**raw["metadata"], "name": name, "uid": name}, "spec": {**raw["spec"], **selector}}
            )
        Replica(found, {"ns"})
        await asyncio.sleep(60)
        assert all(task.ended is not None for task in tasks)

    fleet(test, tasks, None)


TWO_POLICIES = (("a", 0, 10), ("b", 2.5, 20), ("k1", 2, 5), ("k2", 4, 5))


def test_many_that_are_due_at_once_cost_few_writes() -> None:
    tasks = [task for name in NAMESPACES for task in due(30, namespace=name)]

    async def test(found: Fleet) -> None:
        Replica(found, set(NAMESPACES))
        await found.end(2000)
        assert found.most == 10
        assert found.api.writes[POLICIES.kind] <= 2 * len(tasks)
        first = {task.key[0] for task in sorted(tasks, key=lambda task: task.begun or 0)[:12]}
        assert first == set(NAMESPACES), "namespaces take turns"

    fleet(test, tasks, {"cluster": 10})


def test_without_limits_nothing_is_written() -> None:
    async def test(found: Fleet) -> None:
        Replica(found, {"a"})
        await found.end(60)
        assert found.api.writes[POLICIES.kind] == 0
        assert found.most == 5

    fleet(test, due(5), {})


def test_who_finds_no_room_stops_nobody_else() -> None:
    """An account that is full lets others pass; at the account namespaces take turns."""
    slow, other = due(3, lasts=50), due(2, account="two", at=1)
    elsewhere = due(1, namespace="b", at=1)

    async def test(found: Fleet) -> None:
        Replica(found, {"a", "b"})
        await asyncio.sleep(20)
        assert {task.key for task in found.running()} == {slow[0].key}
        assert all(task.ended is not None for task in other)
        await found.end(500)
        assert elsewhere[0].begun is not None
        assert slow[2].begun is not None
        assert elsewhere[0].begun < slow[2].begun

    fleet(test, [*slow, *other, *elsewhere], {"perProvider": 1})


def test_what_is_urgent_waits_for_nobody_and_counts() -> None:
    async def test(found: Fleet) -> None:
        urgent, usual = found.tasks["a", "two0"], found.tasks["a", "one1"]
        urgent.urgent = True
        Replica(found, {"a"})
        await asyncio.sleep(8)
        assert {task.key for task in found.running()} == {("a", "one0"), urgent.key}
        assert {entry["name"] for entry in found.permits()} == {"one0", "two0"}
        await found.end(100)
        assert usual.begun is not None
        assert urgent.ended is not None
        assert usual.begun > urgent.ended

    fleet(test, [*due(2, lasts=10), *due(1, account="two", at=5, lasts=20)], {"cluster": 1})


def test_what_runs_when_the_policy_is_made_counts() -> None:
    """Nobody else begins before it has ended, nor while it is not known yet what others have begun."""

    async def test(found: Fleet) -> None:
        Replica(found, {"a"})
        Replica(found, {"b"})
        await asyncio.sleep(5)
        assert len(found.running()) == 2
        found.limit(cluster=2)
        await asyncio.sleep(10)
        assert len(found.running()) == 2
        await found.end(100)
        assert found.most == 2

    fleet(test, [*due(1, lasts=20), *due(1, namespace="b", lasts=30), *due(3, at=6, account="two")], None)


def test_a_policy_that_is_new_lets_nobody_begin_at_once() -> None:
    async def test(found: Fleet) -> None:
        Replica(found, {"a"})
        await asyncio.sleep(9.5)
        found.limit(cluster=5)
        await found.end(100)
        assert found.tasks["a", "one0"].begun is not None
        assert found.tasks["a", "one0"].begun > 9.5 + SETTLE_SECONDS

    fleet(test, due(1, at=10), None)


def test_a_higher_limit_or_none_lets_begin_at_once() -> None:
    async def test(found: Fleet) -> None:
        Replica(found, {"a"})
        await asyncio.sleep(5)
        assert len(found.running()) == 1
        found.limit(cluster=3)
        await asyncio.sleep(SETTLE_SECONDS + 2)
        assert len(found.running()) == 3
        found.api.delete(next(raw for place, raw in found.api.objects.items() if place[0] == POLICIES.kind))
        await asyncio.sleep(2)
        assert len(found.running()) == 6

    fleet(test, due(6, lasts=50), {"cluster": 1})


def entry(task: Task) -> dict[str, str]:
    namespace, name = task.key
    return {"namespace": namespace, "name": name, "account": task.account, "since": "2026-01-01T00:00:00Z"}


def written(found: Fleet, *entries: dict[str, str]) -> None:
    """A process that has died has left these."""
    place = next(place for place in found.api.objects if place[0] == POLICIES.kind)
    found.api.put({**found.api.objects[place], "status": {"running": list(entries)}})


def test_a_permit_that_nobody_uses_counts_for_a_minute() -> None:
    waits, left, gone = due(1)[0], due(1, account="two", at=9999)[0], due(1, account="gone")[0]

    async def test(found: Fleet) -> None:
        written(found, entry(left), entry(gone))
        Replica(found, {"a"})
        await asyncio.sleep(STALE_SECONDS - 5)
        assert found.running() == []
        await asyncio.sleep(10)
        assert found.running() == [waits]
        assert {one["name"] for one in found.permits()} == {waits.key[1]}

    fleet(test, [waits, left], {"cluster": 2})


def test_who_has_a_permit_already_begins_with_it() -> None:
    """After a restart nobody waits for the minute to pass."""
    (task,) = due(1)

    async def test(found: Fleet) -> None:
        written(found, entry(task))
        Replica(found, {"a"})
        await asyncio.sleep(3)
        assert task.begun is not None
        assert len(found.permits()) == 1

    fleet(test, [task], {"cluster": 1})


def test_a_permit_whose_rotation_runs_is_kept_for_as_long_as_it_runs() -> None:
    """Also by a process that has never seen it begin; and it is given back by whoever sees it end."""
    long, next_one = due(2, lasts=3 * STALE_SECONDS)

    async def test(found: Fleet) -> None:
        first = Replica(found, {"a"})
        await asyncio.sleep(5)
        assert found.running() == [long]
        first.kill()
        Replica(found, {"a"})
        await asyncio.sleep(2 * STALE_SECONDS)
        assert found.running() == [long]
        await found.end(1000)
        assert next_one.begun is not None
        assert long.ended is not None
        assert next_one.begun - long.ended < 3

    fleet(test, [long, next_one], {"cluster": 1})
