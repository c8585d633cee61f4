"""Workers: they take keys from a queue, reconcile them, and put them back as the result says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from keyturn.controller.metrics import PassEnd
from keyturn.controller.queue import LONGEST_DELAY, WorkQueue

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Again:
    """When to come back: after `delay` seconds, or when that is None backing off, up to `longest` seconds."""

    delay: float | None
    longest: float = LONGEST_DELAY


Reconcile = Callable[[K], Awaitable[Again | None]]
"""Brings one key as far as it can go now; None: nothing to do until something changes."""
Ended = Callable[[PassEnd, float], None]
"""Told how a pass ended, and how many seconds it took."""


class Workers(Generic[K]):
    """A fixed number of workers on one queue."""

    def __init__(
        self, queue: WorkQueue[K], reconcile: Reconcile[K], count: int, ended: Ended = lambda *_: None
    ) -> None:
        """ended: told of each pass that was not broken off."""
        self._queue = queue
        self._reconcile = reconcile
        self._count = count
        self._told = ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._passes: dict[asyncio.Task[None], K] = {}
        """Those that are at work, and on what."""
        self._ended = asyncio.Event()

    @property
    def busy(self) -> int:
        return len(self._passes)

    def start(self) -> None:
        """Begin to work; once only."""
        for _ in range(self._count):
            self._hire()

    def halt(self, which: Callable[[K], bool]) -> None:
        """Cancel the passes on these keys; other workers take the place of those who worked on them.

        What must not be interrupted in a pass comes to its end by itself; `quiet` and `drain` wait for it.
        """
        for task, key in self._passes.items():
            # Once only: a second time would break off what has said that it must not be interrupted.
            if which(key) and not task.cancelling():
                task.cancel()
                self._hire()

    async def quiet(self, which: Callable[[K], bool]) -> None:
        """Return when no pass on such a key is under way; nothing may add one meanwhile."""
        while any(map(which, self._passes.values())):
            self._ended.clear()
            await self._ended.wait()

    async def drain(self) -> None:
        """End idle workers at once and busy ones when their pass has ended; the passes must have been told to stop."""
        await self.quiet(lambda _: True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hire(self) -> None:
        task = asyncio.create_task(self._work(), name="worker")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while True:
            # Most passes wait for nothing: ten thousand in a row would keep the lease from being renewed.
            await asyncio.sleep(0)
            key = await self._queue.get()
            self._passes[me] = key
            try:
                await self._work_on(key)
            finally:
                del self._passes[me]
                self._queue.done(key)
                self._ended.set()

    async def _work_on(self, key: K) -> None:
        begun = time.monotonic()
        try:
            again = await self._reconcile(key)
            end = PassEnd.SETTLED if again is None else PassEnd.AGAIN
        except Exception:  # noqa: BLE001
            # A defect that one object brings to light must not stop the others.
            _log.exception(
                "unexpected error", extra={"object": "/".join(map(str, key)) if isinstance(key, tuple) else key}
            )
            again, end = Again(None), PassEnd.ERROR
        self._told(end, time.monotonic() - begun)
        if again is None:
            self._queue.forget(key)
        elif again.delay is None:
            self._queue.add_backing_off(key, again.longest)
        else:
            self._queue.forget(key)
            self._queue.add_after(key, again.delay)
