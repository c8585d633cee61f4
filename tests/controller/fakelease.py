"""A Lease on an API server that can be slow, away, or lose its replies; and replicas that contend for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from keyturn.cluster.errors import Conflict, NotFound, Unavailable
from keyturn.cluster.leases import Lease
from keyturn.controller.leadership import Leadership, Timing
from tests.controller.virtual import virtually

TIMING = Timing(duration=15, renew_deadline=10.0, retry_period=2.0)
AT_ONCE = 0.2
LOOK = TIMING.retry_period + AT_ONCE
"""The longest time between two looks of one that stands by."""


@dataclass
class FakeLease:
    """The one object. Replicas reach it through `Line`s of their own, which can be cut one by one."""

    lease: Lease | None = None
    version: int = 0
    writes: list[tuple[float, Lease]] = field(default_factory=list)

    def put(self, lease: Lease) -> Lease:
        self.version += 1
        self.lease = replace(lease, version=str(self.version))
        self.writes.append((now(), self.lease))
        return self.lease

    def delete(self) -> None:
        self.lease = None


@dataclass
class Line:
    """The way of one replica to the Lease. delay: seconds each way. deaf: requests arrive, replies do not."""

    server: FakeLease
    delay: float = 0.01
    down: bool = False
    deaf: bool = False
    requests: int = 0

    async def read(self) -> Lease | None:
        await self._way()
        found = self.server.lease
        await self._way_back()
        return found

    async def write(self, lease: Lease) -> Lease:
        await self._way()
        known = self.server.lease
        if not lease.version and known is not None:
            raise Conflict("exists")
        if lease.version and known is None:
            raise NotFound("gone")
        if known is not None and known.version != lease.version:
            raise Conflict("changed")
        written = self.server.put(lease)
        await self._way_back()
        return written

    async def _way(self) -> None:
        self.requests += 1
        await asyncio.sleep(self.delay)
        if self.down:
            raise Unavailable("no answer from the API server")

    async def _way_back(self) -> None:
        await asyncio.sleep(self.delay)
        if self.deaf:
            await asyncio.sleep(3600)
        if self.down:
            raise Unavailable("no answer from the API server")


class Replica:
    """One process: its elector, and when it worked."""

    def __init__(
        self, server: FakeLease, name: str, timing: Timing = TIMING, *, identity: str | None = None, ahead: float = 0
    ) -> None:
        """ahead: by how much its clock differs from the others'."""
        self.line = Line(server)
        self.name = name
        self.leadership = Leadership(
            self.line, identity or name, timing, lambda: asyncio.get_running_loop().time() + ahead
        )
        self.terms: list[list[float]] = []
        """Beginning and, when it has ended, end of each time of work."""
        self.working = False
        self.changed = asyncio.Event()

    def start(self) -> Replica:
        self._task = asyncio.create_task(self.leadership.campaign(self._work))
        return self

    async def stop(self) -> None:
        """As on SIGTERM, with nothing under way."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def kill(self) -> None:
        """As by kill -9: nothing is said to anybody."""
        self.line.down = True
        await self.stop()

    async def _work(self) -> None:
        self.terms.append([now()])
        self.working = True
        self.changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False
            self.changed.set()
            self.terms[-1].append(now())


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(replica: Replica, *, working: bool = True, seconds: float = 600) -> float:
    """Wait until it works, or does not any more; how long that took."""
    begun = now()
    async with asyncio.timeout(seconds):
        while replica.working is not working:
            replica.changed.clear()
            await replica.changed.wait()
    return now() - begun


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    virtually(whole())
