"""The work queue keeps client-go's contract; delays are measured in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.controller.queue import WorkQueue
from tests.controller.virtual import virtually


class Queue(WorkQueue[str]):
    """Each key is a tenant of its own."""

    def __init__(self) -> None:
        super().__init__(lambda key: key)


def empty(queue: Queue) -> bool:
    return len(queue) == 0


async def taken(queue: Queue, within: float = 1000) -> tuple[str, float]:
    """The next key, and how many seconds it took to come."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    key = await asyncio.wait_for(queue.get(), within)
    return key, round(loop.time() - begun, 6)


async def never(queue: Queue) -> bool:
    """Whether no key comes, however long one waits."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 100_000)
    return True


def test_adding_twice_is_working_once() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 1
        assert await taken(queue) == ("a", 0)
        queue.done("a")
        assert await never(queue)

    virtually(scenario())


def test_a_key_added_while_in_work_is_worked_on_once_more_afterwards() -> None:
    """I6: never twice at a time; I9: no change goes unseen."""

    async def scenario() -> None:
        queue = Queue()
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.add("a")
        assert empty(queue)
        queue.done("a")
        assert await taken(queue) == ("a", 0)
        queue.done("a")
        assert await never(queue)

    virtually(scenario())


def test_other_keys_do_not_wait_for_one_in_work() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.add("a")
        queue.add("b")
        assert (await queue.get(), await queue.get()) == ("a", "b")

    virtually(scenario())


@pytest.mark.parametrize("delays", [(5.0, 9.0), (9.0, 5.0)], ids=str)
def test_the_earliest_time_counts_and_counts_once(delays: tuple[float, float]) -> None:
    async def scenario() -> None:
        queue = Queue()
        for delay in delays:
            queue.add_after("a", delay)
        assert await taken(queue) == ("a", 5)
        queue.done("a")
        assert await never(queue)

    virtually(scenario())


def test_now_is_earlier_than_later() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.add_after("a", 5)
        queue.add("a")
        queue.add_after("a", 1)
        assert await taken(queue) == ("a", 0)
        queue.done("a")
        assert await never(queue)

    virtually(scenario())


def test_a_delay_that_ends_while_the_key_is_in_work_waits_for_its_end() -> None:
    async def scenario() -> None:
        queue = Queue()
        queue.add("a")
        await queue.get()
        queue.add_after("a", 1)
        await asyncio.sleep(2)
        assert empty(queue)
        queue.done("a")
        assert await taken(queue) == ("a", 0)

    virtually(scenario())


async def backed_off(queue: Queue, times: int) -> list[float]:
    """The delays of a key that fails so often."""
    delays = []
    for _ in range(times):
        queue.add_backing_off("a")
        _, delay = await taken(queue)
        queue.done("a")
        delays.append(delay)
    return delays


@pytest.mark.parametrize("jitter", [0.5, 1.0])
def test_backoff_doubles_up_to_a_minute_and_is_jittered(jitter: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: {0.5: low, 1.0: high}[jitter])

    async def scenario() -> None:
        queue = Queue()
        expected = [seconds * jitter for seconds in (0.5, 1, 2, 4, 8, 16, 32, 60, 60)]
        assert await backed_off(queue, 9) == expected

    virtually(scenario())


@pytest.mark.parametrize("reset", [Queue.forget, lambda queue, key: queue.clear(key.__eq__)], ids=["forget", "clear"])
def test_forgotten_failures_begin_anew(reset: Callable[[Queue, str], None]) -> None:
    async def scenario() -> None:
        queue = Queue()
        await backed_off(queue, 8)
        reset(queue, "a")
        assert (await backed_off(queue, 1))[0] <= 0.5

    virtually(scenario())


def test_failures_are_counted_for_each_key() -> None:
    async def scenario() -> None:
        queue = Queue()
        await backed_off(queue, 8)
        queue.add_backing_off("b")
        assert (await taken(queue))[1] <= 0.5

    virtually(scenario())


def test_a_cleared_queue_has_forgotten_everything_and_takes_new_keys() -> None:
    async def scenario() -> None:
        queue = Queue()
        for key in ("in work", "in work and asked for again"):
            queue.add(key)
            await queue.get()
        queue.add("in work and asked for again")
        queue.add("urgent", urgent=True)
        queue.add("usual")
        queue.add_after("later", 5)
        queue.add_backing_off("failed")
        queue.clear(lambda _: True)
        for key in ("in work", "in work and asked for again"):
            queue.done(key)
        assert await never(queue)
        queue.add("usual")
        assert await taken(queue) == ("usual", 0)

    virtually(scenario())


def test_what_is_not_meant_stays_in_a_queue_that_is_cleared() -> None:
    async def scenario() -> None:
        queue = Queue()
        for name in ("lost", "kept"):
            queue.add(f"{name} in work")
            await queue.get()
        for name in ("lost", "kept"):
            queue.add(f"{name} in work")
            queue.add(f"{name} urgent", urgent=True)
            queue.add(f"{name} usual")
            queue.add_after(f"{name} later", 5)
        queue.clear(lambda key: key.startswith("lost"))
        for name in ("lost", "kept"):
            queue.done(f"{name} in work")
        found = [await taken(queue) for _ in range(4)]
        assert [key for key, _ in found] == ["kept urgent", "kept usual", "kept in work", "kept later"]
        assert await never(queue)

    virtually(scenario())


def test_a_worker_that_is_cancelled_loses_no_key() -> None:
    """Neither when it waits, nor when its key has just come."""

    async def scenario() -> None:
        queue = Queue()
        workers = [asyncio.create_task(queue.get()) for _ in range(2)]
        await asyncio.sleep(0)
        workers[1].cancel()
        queue.add("a")
        workers[0].cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert await taken(queue) == ("a", 0)
        queue.done("a")
        assert await never(queue)

    virtually(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_under_load_no_key_is_worked_on_twice_at_a_time_and_no_change_is_lost(seed: int) -> None:
    """I6, I9: whatever was changed last is seen by a pass that begins after the change."""

    async def scenario() -> None:
        chance, queue = random.Random(seed), Queue()
        changed: dict[str, int] = dict.fromkeys("abcd", 0)
        seen: dict[str, int] = dict.fromkeys("abcd", 0)
        in_work: set[str] = set()

        async def worker() -> None:
            while True:
                key = await queue.get()
                assert key not in in_work, f"{key} is worked on twice at a time"
                in_work.add(key)
                seen[key] = changed[key]
                await asyncio.sleep(chance.random())
                in_work.discard(key)
                queue.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(3)]
        ways: list[Callable[[str], Any]] = [
            queue.add,
            queue.add_backing_off,
            lambda key: queue.add_after(key, chance.random() * 3),
        ]
        for _ in range(300):
            key = chance.choice("abcd")
            changed[key] += 1
            chance.choice(ways)(key)
            await asyncio.sleep(chance.random() * 0.3)
        await asyncio.sleep(200)
        assert seen == changed
        assert all(not task.done() for task in workers)
        for task in workers:
            task.cancel()

    virtually(scenario())
