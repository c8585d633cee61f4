"""Workers that are halted and begin again: passes are broken off, but for what must come to its end."""

from __future__ import annotations

import asyncio

from keyturn.controller.acts import _uninterrupted
from keyturn.controller.queue import WorkQueue
from keyturn.controller.workers import Again, Workers
from tests.controller.virtual import virtually

CALL_SECONDS = 5.0


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
        passes.workers.halt()
        passes.workers.halt()
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
        passes.workers.halt()
        passes.workers.start()
        for key in ("call", "other"):
            passes.queue.add(key)
        await asyncio.sleep(1)
        assert passes.begun == ["call", "other"]
        await asyncio.sleep(CALL_SECONDS)
        assert passes.begun == ["call", "other", "call"]
        passes.workers.halt()
        await passes.workers.drain()
        assert passes.answered == ["call", "call"]

    virtually(test())
