"""Tenants share the workers fairly, and what is urgent goes first (issue 5, tenant safety; I6, I9)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn.controller.queue import URGENT_IN_A_ROW, WorkQueue
from keyturn.controller.workers import Again, Workers
from tests.controller.virtual import VirtualLoop, virtually

Key = tuple[str, int]
TENANTS = "abcd"


class Queue(WorkQueue[Key]):
    def __init__(self) -> None:
        super().__init__(lambda key: key[0])


class Pool:
    """Workers whose passes last until a test ends them; tells what was begun."""

    def __init__(self, count: int) -> None:
        self.queue = Queue()
        self.begun: list[Key] = []
        self.ends: dict[Key, asyncio.Event] = {}
        self.workers = Workers(self.queue, self._work, count)
        self.workers.start()

    async def _work(self, key: Key) -> Again | None:
        assert key not in self.ends, f"{key} is worked on twice at a time"
        self.begun.append(key)
        self.ends[key] = asyncio.Event()
        try:
            await self.ends[key].wait()
        finally:
            del self.ends[key]
        return None

    async def add(self, *keys: Key, urgent: bool = False) -> None:
        for key in keys:
            self.queue.add(key, urgent=urgent)
        await settled()

    async def end(self, key: Key) -> None:
        self.ends[key].set()
        await settled()

    def busy(self) -> Counter[str]:
        return Counter(tenant for tenant, _ in self.ends)


async def settled() -> None:
    """Until everything that can happen now has happened."""
    await asyncio.sleep(0.001)


def many(tenant: str, count: int = 100) -> list[Key]:
    return [(tenant, number) for number in range(count)]


@pytest.mark.parametrize(("count", "alone"), [(1, 1), (2, 1), (3, 2), (4, 2), (20, 10)])
def test_one_tenant_alone_has_half_of_the_workers(count: int, alone: int) -> None:
    async def scenario() -> None:
        pool = Pool(count)
        await pool.add(*many("a"))
        assert pool.busy() == {"a": alone}

    virtually(scenario())


async def quick_one_is_served_at_once(pool: Pool) -> None:
    for key in many("quick", 50):
        await pool.add(key)
        assert pool.begun[-1] == key
        await pool.end(key)


@pytest.mark.parametrize("tenants", range(1, 5))
def test_tenants_that_hold_all_they_can_get_leave_one_for_the_next(tenants: int) -> None:
    """Nobody is told to end: a provider that trickles holds its worker as long as it likes."""

    async def scenario() -> None:
        pool = Pool(20)
        for number in range(tenants):
            await pool.add(*many(f"slow {number}"))
        await quick_one_is_served_at_once(pool)

    virtually(scenario())


def test_more_tenants_do_as_soon_as_their_first_passes_have_ended() -> None:
    async def scenario() -> None:
        pool = Pool(20)
        for number in range(19):
            await pool.add(*many(f"slow {number}"))
        for key in list(pool.begun):
            await pool.end(key)
        assert set(pool.busy().values()) == {1}
        await quick_one_is_served_at_once(pool)

    virtually(scenario())


def test_workers_that_come_free_are_given_in_turn() -> None:
    async def scenario() -> None:
        pool = Pool(6)
        await pool.add(*many("a"))
        await pool.add(*many("b"))
        assert pool.busy() == {"a": 3, "b": 2}
        for _ in range(20):
            for tenant in "ab":
                await pool.end(min(key for key in pool.ends if key[0] == tenant))
        assert pool.busy() == {"a": 2, "b": 2}
        share = Counter(tenant for tenant, _ in pool.begun)
        assert abs(share["a"] - share["b"]) <= 2

    virtually(scenario())


def drained(queue: Queue) -> list[Key]:
    """What one worker that is never held up works on, in its order."""

    async def drain() -> list[Key]:
        order = []
        while len(queue):
            key = await queue.get()
            order.append(key)
            queue.done(key)
        return order

    return virtually(drain())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 9))))
def test_tenants_take_turns_and_each_is_served_in_order(keys: list[Key]) -> None:
    queue = Queue()
    for key in keys:
        queue.add(key)
    waiting = list(dict.fromkeys(keys))
    order = drained(queue)
    assert sorted(order) == sorted(waiting)
    for tenant in TENANTS:
        assert [key for key in order if key[0] == tenant] == [key for key in waiting if key[0] == tenant]
    for place in range(len(order)):
        served, left = (Counter(tenant for tenant, _ in part) for part in (order[:place], order[place:]))
        waits = [served[tenant] for tenant in left]
        assert max(served.values(), default=0) - min(waits) <= 1, "somebody waits while another is served twice"


def test_what_is_urgent_goes_first_within_a_tenant_and_before_other_tenants() -> None:
    queue = Queue()
    for key in [("a", 0), ("a", 1), ("b", 0)]:
        queue.add(key)
    for key in [("a", 1), ("c", 0)]:
        queue.add(key, urgent=True)
    queue.add(("a", 1))
    assert drained(queue) == [("a", 1), ("c", 0), ("a", 0), ("b", 0)]


def test_what_becomes_urgent_in_work_is_urgent_afterwards() -> None:
    async def scenario() -> None:
        pool = Pool(1)
        await pool.add(("a", 0), ("b", 0))
        await pool.add(("a", 0))
        await pool.add(("a", 0), urgent=True)
        await pool.end(("a", 0))
        assert pool.begun == [("a", 0), ("a", 0)]

    virtually(scenario())


def test_who_edits_without_end_stops_nobody() -> None:
    async def scenario() -> None:
        queue, order = Queue(), []
        queue.add(("b", 0))
        for number in range(100):
            queue.add(("a", number), urgent=True)
            key = await queue.get()
            order.append(key)
            queue.done(key)
        assert order.index(("b", 0)) <= URGENT_IN_A_ROW

    virtually(scenario())


@pytest.mark.parametrize("count", [1, 2, 8, 16])
@pytest.mark.parametrize("tenants", ["a", "abc"])
def test_who_edits_without_end_does_not_stop_their_own(count: int, tenants: str) -> None:
    """With several workers, a tenant comes to the end of its share between two keys."""

    async def scenario() -> None:
        begun = Counter[Key]()
        queue = Queue()

        async def one(key: Key) -> Again | None:
            begun[key] += 1
            await asyncio.sleep(1)
            if key[1]:
                queue.add(key, urgent=True)
            return None

        for tenant in tenants:
            for number in range(20):
                queue.add((tenant, number), urgent=bool(number))
        workers = Workers(queue, one, count)
        workers.start()
        await asyncio.sleep(60)
        assert [begun[tenant, 0] for tenant in tenants] == [1] * len(tenants)
        workers.halt(lambda _: True)

    virtually(scenario())


class Shares(RuleBasedStateMachine):
    """Any order of asking, working and cancelling. The model is what was asked for and has not begun."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.asked: set[Key] = set()
        self.pool = self.do(self.opened())

    async def opened(self) -> Pool:
        return Pool(5)

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    def note(self, begun: int) -> None:
        self.asked -= set(self.pool.begun[begun:])

    keys = st.tuples(st.sampled_from(TENANTS), st.integers(0, 5))

    @rule(keys=st.lists(keys, max_size=4), urgent=st.booleans())
    def ask(self, keys: list[Key], urgent: bool) -> None:
        begun = len(self.pool.begun)
        self.asked |= set(keys)
        self.do(self.pool.add(*keys, urgent=urgent))
        self.note(begun)

    @precondition(lambda self: self.pool.ends)
    @rule(which=st.integers(min_value=0))
    def end(self, which: int) -> None:
        begun = len(self.pool.begun)
        self.do(self.pool.end(sorted(self.pool.ends)[which % len(self.pool.ends)]))
        self.note(begun)

    @rule(key=keys, halted=st.sets(keys))
    def halt(self, key: Key, halted: set[Key]) -> None:
        """A key may just have been handed out: it is not lost; and others take the places of those that are halted."""

        async def both() -> None:
            self.pool.queue.add(key)
            self.pool.workers.halt(halted.__contains__)
            await settled()

        begun = len(self.pool.begun)
        self.asked.add(key)
        self.do(both())
        self.note(begun)

    @invariant()
    def nothing_that_may_be_worked_on_waits(self) -> None:
        idle = 5 - len(self.pool.ends)
        for tenant, number in self.asked - set(self.pool.ends):
            assert self.pool.busy()[tenant] >= idle, f"{(tenant, number)} waits, and {idle} workers are idle"

    @invariant()
    def nobody_has_more_than_half_and_a_bit(self) -> None:
        assert max(self.pool.busy().values(), default=0) <= 3

    def teardown(self) -> None:
        """I9: when all passes end, everything that was asked for is worked on."""
        while self.pool.ends:
            self.end(0)
        assert self.asked == set()
        self.do(self.pool.workers.drain())
        self.runner.close()


Shares.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestShares = Shares.TestCase
