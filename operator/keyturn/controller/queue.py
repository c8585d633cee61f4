"""The work queue: client-go's contract on asyncio, shared fairly between tenants.

A key is in work at most once at a time; a key that is added while it is in work is worked on again afterwards; adding a
key twice is working on it once. A key can be due later, and the earliest time it was asked for counts.

Tenants take turns. A tenant gets another worker only while more workers are idle than it keeps busy: alone it has half
of them, and whoever comes next finds one. What is urgent goes first, but never for ever.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Waited = Callable[[bool, float], None]
"""Told whether a key was urgent, and how many seconds it waited for a worker."""

_FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0
URGENT_IN_A_ROW: Final = 4
"""So many urgent keys go before one that is not: someone who edits without end delays others, and stops nobody."""


class Line(Generic[K]):
    """Keys that wait, first come first served for each tenant. Tenants take turns."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Hashable, OrderedDict[K, float]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def put(self, tenant: Hashable, key: K) -> None:
        self._turns.setdefault(tenant, OrderedDict())[key] = time.monotonic()

    def remove(self, tenant: Hashable, key: K) -> None:
        del self._turns[tenant][key]
        if not self._turns[tenant]:
            del self._turns[tenant]

    def first(self) -> K | None:
        """The first key of the next tenant; it stays in the line."""
        return next(iter(next(iter(self._turns.values()))), None) if self._turns else None

    def take(self, may: Callable[[Hashable], bool]) -> tuple[K, float] | None:
        """The first key of the next tenant who may have a worker, and how many seconds it waited.

        Skips at most the tenants that have a worker already.
        """
        tenant = next(filter(may, self._turns), None)
        if tenant is None:
            return None
        key, since = next(iter(self._turns[tenant].items()))
        self._turns.move_to_end(tenant)
        self.remove(tenant, key)
        return key, time.monotonic() - since


class WorkQueue(Generic[K]):
    """Keys that wait for a worker. Delays are seconds of the running event loop's clock."""

    def __init__(self, tenant_of: Callable[[K], Hashable], waited: Waited = lambda *_: None) -> None:
        """tenant_of: who shares the workers fairly with others of their kind, such as the namespace of a key.

        waited: told of each key that is handed out.
        """
        self._tenant_of = tenant_of
        self._waited = waited
        self._urgent: Line[K] = Line()
        self._usual: Line[K] = Line()
        self._urgent_in_a_row = 0
        self._dirty: dict[K, bool] = {}
        """What was asked for and has not begun, and whether it is urgent; in a line unless it is in work."""
        self._processing: set[K] = set()
        self._busy: Counter[Hashable] = Counter()
        self._idle: list[asyncio.Future[K]] = []
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """How many keys wait for a worker now."""
        return len(self._urgent) + len(self._usual)

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Work on the key as soon as a worker is free. urgent: somebody waits for it."""
        self._cancel_timer(key)
        waits_as = self._dirty.get(key)
        if waits_as is not None and waits_as >= urgent:
            return
        self._dirty[key] = urgent
        if key in self._processing:
            return
        if waits_as is not None:
            self._usual.remove(self._tenant_of(key), key)
        self._put(key)
        self._hand_out()

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

    async def get(self) -> K:
        """The next key; it must be handed back with `done`."""
        worker: asyncio.Future[K] = asyncio.get_running_loop().create_future()
        self._idle.append(worker)
        self._hand_out()
        try:
            return await worker
        except asyncio.CancelledError:
            if not worker.cancelled():  # its key had just come
                self.add(worker.result(), urgent=True)
                self.done(worker.result())
            raise

    def done(self, key: K) -> None:
        """The worker is finished with the key, which may be handed out again."""
        self._processing.remove(key)
        tenant = self._tenant_of(key)
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
        if key in self._dirty:
            self._put(key)
        self._hand_out()

    def clear(self, which: Callable[[K], bool]) -> None:
        """Forget those that wait, are due later, or have failed; what is in work stays so until it is done."""
        for key in list(filter(which, self._timers)):
            self._cancel_timer(key)
        for key in list(filter(which, self._failures)):
            self.forget(key)
        for key in list(filter(which, self._dirty)):
            line = self._urgent if self._dirty.pop(key) else self._usual
            if key not in self._processing:
                line.remove(self._tenant_of(key), key)

    def _put(self, key: K) -> None:
        (self._urgent if self._dirty[key] else self._usual).put(self._tenant_of(key), key)

    def _hand_out(self) -> None:
        """Give keys to idle workers as far as there are both, and nobody gets more than their share."""
        self._idle = [worker for worker in self._idle if not worker.done()]
        while self._idle:
            taken = self._take()
            if taken is None:
                return
            key, seconds = taken
            self._waited(self._dirty.pop(key), seconds)
            self._processing.add(key)
            self._busy[self._tenant_of(key)] += 1
            self._idle.pop().set_result(key)

    def _take(self) -> tuple[K, float] | None:
        if self._urgent_in_a_row < URGENT_IN_A_ROW:
            taken = self._urgent.take(self._may)
            if taken is not None:
                self._urgent_in_a_row += 1
                return taken
        taken = self._usual.take(self._may)
        if taken is None:
            return self._urgent.take(self._may)
        self._urgent_in_a_row = 0
        return taken

    def _may(self, tenant: Hashable) -> bool:
        return self._busy[tenant] < len(self._idle)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
