"""The work queue: client-go's contract on asyncio.

A key is in work at most once at a time; a key that is added while it is in work is worked on again afterwards; adding a
key twice is working on it once. A key can be due later, and the earliest time it was asked for counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0


class WorkQueue(Generic[K]):
    """Keys that wait for a worker. Delays are seconds of the running event loop's clock."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """How many keys wait for a worker now."""
        return self._ready.qsize()

    def add(self, key: K) -> None:
        """Work on the key as soon as a worker is free."""
        self._cancel_timer(key)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.put_nowait(key)

    def add_after(self, key: K, delay: float) -> None:
        """Work on the key in `delay` seconds, or earlier if it was asked for earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._dirty or (timer is not None and timer.when() <= loop.time() + delay):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(delay, self.add, key)

    def add_backing_off(self, key: K, longest: float = LONGEST_DELAY) -> None:
        """Work on the key after a delay that doubles with every call until `forget`, jittered in its upper half."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(_FIRST_DELAY * 2 ** min(failures, 16), longest)
        self.add_after(key, delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def forget(self, key: K) -> None:
        """The key is well: its next delay starts small again."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """The object is gone: forget its delays. Work that was asked for at once still happens."""
        self._failures.pop(key, None)
        self._cancel_timer(key)

    async def get(self) -> K:
        """The next key; it must be handed back with `done`."""
        key = await self._ready.get()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is finished with the key, which may be handed out again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.put_nowait(key)

    def close(self) -> None:
        """Cancel everything that is due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
