"""Replicas that divide shards, over a folder of Leases on an API server that can be away for some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from keyturn.cluster.errors import Conflict, NotFound, Unavailable
from keyturn.cluster.leases import NAME, Lease
from keyturn.controller.crew import Crew, Shards, Single
from keyturn.controller.leadership import Leadership, NotLeading, Timing
from tests.controller.fakelease import TIMING, FakeLease, Line, now


class Cluster:
    """The Leases, and who works on which shard; two at a time on one is seen at once."""

    def __init__(self) -> None:
        self.leases: dict[str, FakeLease] = {}
        self.working: dict[object, Replica] = {}
        """By what is worked on: for the shards of a layout, the parts of the work that they stand for."""
        self.problems: list[str] = []
        self.replicas: list[Replica] = []

    def written(self) -> int:
        return sum(len(lease.writes) for lease in self.leases.values())

    def names(self) -> set[str]:
        return {name for name, lease in self.leases.items() if lease.lease is not None}

    def holder(self, name: str) -> str | None:
        lease = self.leases[name].lease if name in self.leases else None
        return lease.holder if lease is not None else None

    def replica(self, name: str, count: int = 3, timing: Timing = TIMING) -> Replica:
        self.replicas.append(Replica(self, name, count, timing))
        return self.replicas[-1].start()

    def begin(self, replica: Replica, shard: int) -> None:
        for part in replica.parts(shard):
            other = self.working.get(part)
            # One that was cut off may not have noticed yet: what counts is whether it may do anything.
            if other is not None and other.may(part):
                self.problems.append(f"{now():.1f}: {replica.name} and {other.name} work on part {part}")
            self.working[part] = replica

    def end(self, replica: Replica, shard: int) -> None:
        for part in replica.parts(shard):
            if self.working.get(part) is replica:
                del self.working[part]

    def shares(self) -> dict[str, int]:
        return {replica.name: len(replica.shards.held()) for replica in self.replicas}


_PARTS = 12
"""The work, in parts that every number of shards that is used here can be divided into."""


class Folder:
    """The way of one replica to the Leases."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.lines: list[Line] = []
        self.down = False
        self.delay = 0.01

    def named(self, name: str = NAME) -> Line:
        self.lines.append(Line(self.cluster.leases.setdefault(name, FakeLease())))
        return self.lines[-1]

    async def list(self) -> dict[str, Lease]:
        await self._way()
        found = {name: lease.lease for name, lease in self.cluster.leases.items()}
        return {name: lease for name, lease in found.items() if lease is not None}

    async def delete(self, name: str, lease: Lease) -> None:
        await self._way()
        known = self.cluster.leases[name].lease
        if known is None:
            raise NotFound("gone")
        if known.version != lease.version:
            raise Conflict("changed")
        self.cluster.leases[name].delete()

    def cut(self, down: bool = True) -> None:
        self.down = down
        for line in self.lines:
            line.down = down

    def hang(self, delay: float) -> None:
        """Requests take so long each way."""
        self.delay = delay
        for line in self.lines:
            line.delay = delay

    async def _way(self) -> None:
        await asyncio.sleep(self.delay)
        if self.down:
            raise Unavailable("no answer from the API server")


class Replica:
    """One process. frozen: by how much its own clock has gone on without it."""

    def __init__(self, cluster: Cluster, name: str, count: int, timing: Timing) -> None:
        self.cluster = cluster
        self.name = name
        self.count = count
        self.folder = Folder(cluster)
        self.slow = 0.0
        """How long it takes to wind down."""
        self.frozen = 0.0
        self.wound_down: list[tuple[float, int]] = []
        self.taken: list[tuple[float, int]] = []
        clock: Callable[[], float] = lambda: now() + self.frozen  # noqa: E731
        self.shards: Shards = (
            Crew(self.folder, name, timing, count, clock)
            if count > 1
            else Single(Leadership(self.folder.named(), name, timing, clock))
        )

    def start(self) -> Replica:
        self.task = asyncio.create_task(self.shards.campaign(self))
        return self

    async def stop(self) -> None:
        """As on SIGTERM, with nothing under way."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def kill(self) -> None:
        """As by kill -9."""
        self.folder.cut()
        await self.stop()

    def parts(self, shard: int) -> range:
        return range(shard, _PARTS, self.count)

    def may(self, part: object) -> bool:
        assert isinstance(part, int)
        try:
            self.shards.check(part % self.count)
        except NotLeading:
            return False
        return True

    async def lead(self, shard: int) -> None:
        self.cluster.begin(self, shard)
        self.taken.append((now(), shard))
        try:
            await asyncio.Event().wait()
        finally:
            self.cluster.end(self, shard)

    async def wind_down(self, shard: int) -> None:
        await asyncio.sleep(self.slow)
        self.wound_down.append((now(), shard))
        self.cluster.end(self, shard)


async def until(condition: Callable[[], bool], seconds: float = 120) -> float:
    """Wait until it is so; how long that took."""
    begun = now()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the clock is virtual
            await asyncio.sleep(0.1)
    return now() - begun


Scenario = Callable[[Cluster], Awaitable[None]]
