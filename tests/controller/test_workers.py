"""Passes that are halted, all or some: they are broken off, but for what must come to its end; others work on."""

from __future__ import annotations

import asyncio

from keyturn.controller.acts import _uninterrupted
from keyturn.controller.queue import WorkQueue
from keyturn.controller.workers import Again, Workers
from tests.controller.virtual import virtually

CALL_SECONDS = 5.0


def every(_: str) -> bool:
    return True


class Passes:
    """What the passes did: one on `call` makes a call of five seconds that must not be broken off, others wait."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.answered: list[str] = []
        self.ended: list[str] = []
        self.queue: WorkQueue[str] = WorkQueue(lambda key: key)
        self.workers = Workers(self.queue, self.one, 2)

    async def one(self, key: str) -> Again | None:
        self.begun.append(key)
        try:
            if key == "call":
                await _uninterrupted(asyncio.ensure_future(self._call(key)))
            await asyncio.sleep(3600)
        finally:
            self.ended.append(key)
        return None

    async def _call(self, key: str) -> None:
        await asyncio.sleep(CALL_SECONDS)
        self.answered.append(key)


def test_halted_passes_end_and_a_call_under_way_gets_its_answer() -> None:
    async def test() -> None:
        passes = Passes()
        passes.workers.start()
        passes.queue.add("call")
        passes.queue.add("other")
        await asyncio.sleep(1)
        passes.workers.halt(every)
        passes.workers.halt(every)
        await asyncio.sleep(1)
        assert (passes.ended, passes.answered) == (["other"], [])
        assert passes.workers.busy == 1
        await passes.workers.drain()
        assert (passes.ended, passes.answered) == (["other", "call"], ["call"])
        assert asyncio.get_running_loop().time() == CALL_SECONDS

    virtually(test())


def test_work_begins_again_and_never_twice_on_one_key() -> None:
    """The call of the first time is still under way: nobody else works on its key until it has ended."""

    async def test() -> None:
        passes = Passes()
        passes.workers.start()
        passes.queue.add("call")
        await asyncio.sleep(1)
        passes.workers.halt(every)
        for key in ("call", "other"):
            passes.queue.add(key)
        await asyncio.sleep(1)
        assert passes.begun == ["call", "other"]
        await asyncio.sleep(CALL_SECONDS)
        assert passes.begun == ["call", "other", "call"]
        passes.workers.halt(every)
        await passes.workers.drain()
        assert passes.answered == ["call", "call"]

    virtually(test())


def test_of_two_passes_the_one_is_halted_and_its_place_is_taken() -> None:
    """As when one shard of several is lost."""

    async def test() -> None:
        passes = Passes()
        passes.workers.start()
        for key in ("mine", "lost"):
            passes.queue.add(key)
        await asyncio.sleep(1)
        passes.workers.halt(lambda key: key == "lost")
        await passes.workers.quiet(lambda key: key == "lost")
        assert passes.ended == ["lost"]
        passes.queue.add("next")
        await asyncio.sleep(1)
        assert (passes.begun[2:], passes.workers.busy) == (["next"], 2)
        passes.workers.halt(every)
        await passes.workers.drain()

    virtually(test())


def test_quiet_waits_for_the_passes_in_question_and_no_others() -> None:
    async def test() -> None:
        passes = Passes()
        passes.workers.start()
        for key in ("call", "other"):
            passes.queue.add(key)
        await asyncio.sleep(1)
        passes.workers.halt(lambda key: key == "call")
        await passes.workers.quiet(lambda key: key == "call")
        assert asyncio.get_running_loop().time() == CALL_SECONDS
        assert (passes.ended, passes.workers.busy) == (["call"], 1)
        passes.workers.halt(every)
        await passes.workers.drain()

    virtually(test())


def test_passes_that_wait_for_nothing_let_others_go_on_meanwhile() -> None:
    """At the start over ten thousand rotations at rest, the lease was not renewed for ten seconds, and was lost."""

    async def test() -> None:
        done = list[str]()

        async def one(key: str) -> Again | None:
            done.append(key)
            return None

        queue: WorkQueue[str] = WorkQueue(lambda _: "tenant")
        for number in range(100):
            queue.add(str(number))
        workers = Workers(queue, one, 2)
        workers.start()
        for _ in range(3):
            await asyncio.sleep(0)
        assert 0 < len(done) < 20
        await asyncio.sleep(1)
        assert len(done) == 100
        await workers.drain()

    virtually(test())
