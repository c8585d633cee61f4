"""Who of the replicas works on which shard.

Without shards, one Lease is all there is, and its holder works on everything. With N shards there are

- `keyturn`, the same Lease, held by all replicas together in the name of their layout: as long as one of them lives, no
  replica with another number of shards, and none without, gets to work. So no object ever has two owners;
- `keyturn-member-N-…`, one for each replica: who lives, and so how large a share is;
- `keyturn-0-of-N` and so on, one for each shard.

A replica works on a shard while it holds all three, by its own clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from keyturn.cluster.errors import ClusterError, Forbidden
from keyturn.cluster.leases import NAME, Lease
from keyturn.controller.leadership import (
    GRANT,
    RELEASE_SECONDS,
    Leadership,
    LeaseStore,
    SharedLeadership,
    Timing,
    boot_clock,
    told,
)
from keyturn.controller.sharding import Plan, View, plan

_log = logging.getLogger(__name__)

_MEMBER: Final = re.compile(rf"{NAME}-member-(\d+)-[0-9a-f]{{12}}")
_SHARD: Final = re.compile(rf"{NAME}-\d+-of-(\d+)")


class Work(Protocol):
    """What is done for a shard."""

    async def lead(self, shard: int) -> None:
        """Work on the shard until cancelled: then somebody else may own it."""
        ...

    async def wind_down(self, shard: int) -> None:
        """Begin nothing any more, and return when nothing is under way; the shard is still ours until then."""
        ...


class Shards(Protocol):
    """Which shards this process owns. `count`: how many there are in all."""

    count: int

    def check(self, shard: int) -> None:
        """Ask before every effect on what belongs to the shard. Raises NotLeading."""
        ...

    def held(self) -> frozenset[int]:
        """Those that this process may work on now."""
        ...

    async def campaign(self, work: Work) -> None:
        """Have our share worked on, until cancelled. Gives back everything then; nothing may be under way any more."""
        ...


class LeaseFolder(Protocol):
    """Where the Leases are: see `keyturn.cluster.leases.Leases`."""

    def named(self, name: str = NAME) -> LeaseStore: ...

    async def list(self) -> dict[str, Lease]: ...

    async def delete(self, name: str, lease: Lease) -> None: ...


class Single:
    """No shards: whoever leads works on everything."""

    count = 1

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def check(self, shard: int) -> None:
        self._leadership.check()

    def held(self) -> frozenset[int]:
        return frozenset({0} if self._leadership.leads else ())

    async def campaign(self, work: Work) -> None:
        await self._leadership.campaign(partial(work.lead, 0))


class Crew:
    """Shards that are divided among the replicas that live."""

    def __init__(
        self,
        leases: LeaseFolder,
        identity: str,
        timing: Timing,
        count: int,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        """identity, timing: see `Leadership`."""
        self.count = count
        self._leases = leases
        self._identity = identity
        self._timing = timing
        self._seen = _Sightings(clock)
        self._me = lease_of_replica(identity, count)
        self._member = Leadership(leases.named(self._me), identity, timing, clock, "the lease of this replica")
        self._layout = SharedLeadership(leases.named(), f"shards={count}", timing, clock)
        self._shards = [
            Leadership(
                leases.named(lease_of_shard(shard, count)), identity, timing, clock, f"the lease of shard {shard}"
            )
            for shard in range(count)
        ]
        self._campaigns: dict[int, asyncio.Task[None]] = {}
        """Those for the shards that we hold or ask for."""
        self._leaving: dict[int, asyncio.Task[None]] = {}
        self._said = ""

    def check(self, shard: int) -> None:
        self._member.check()
        self._layout.check()
        self._shards[shard].check()

    def held(self) -> frozenset[int]:
        if not (self._member.leads and self._layout.leads):
            return frozenset()
        return frozenset(shard for shard, leadership in enumerate(self._shards) if leadership.leads)

    async def campaign(self, work: Work) -> None:
        self._work = work
        try:
            # In this order: whoever has the layout can be found among the members.
            await self._member.campaign(partial(self._layout.campaign, self._share))
        finally:
            await self._leave()

    async def _share(self) -> None:
        """Hold what is our share of the shards, until cancelled."""
        # What is left of an earlier term has ended, and may have been kept from saying so.
        self._campaigns.clear()
        self._leaving.clear()
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._timing.pause())
        finally:
            tasks = [*self._campaigns.values(), *self._leaving.values()]
            for task in tasks:
                _cancel_once(task)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._timing.renew_deadline):
                await self._read()
                view = self._view()
                self._follow(plan(self._identity, view))
                mine = ", ".join(map(str, view.held_by(self._identity))) or "none"
                self._say(f"{len(view.members)} replicas share {self.count} shards; this one holds: {mine}")
                await self._bury()
        except (ClusterError, TimeoutError) as error:
            remedy = f"; {GRANT}" if isinstance(error, Forbidden) else ""
            self._say(f"the shards cannot be divided: {told(error)}{remedy}", logging.WARNING)

    async def _read(self) -> None:
        listed = await self._leases.list()
        self._seen.note(listed)
        for shard, leadership in enumerate(self._shards):
            lease = listed.get(lease_of_shard(shard, self.count))
            # Of those that we hold, we know better: a list may be older than our last renewal.
            if lease is not None and not leadership.leads:
                leadership.saw(lease)

    def _view(self) -> View:
        holders: list[str | None] = []
        for shard, leadership in enumerate(self._shards):
            holder = self._seen.holder(lease_of_shard(shard, self.count))
            # What the Lease says of ourselves may be of the past, or of an earlier process with our name.
            others = holder if holder != self._identity else None
            holders.append(self._identity if leadership.leads else others)
        return View(self._members() | {self._identity}, tuple(holders))

    def _members(self) -> frozenset[str]:
        """The replicas of our layout that live, or may live."""
        ours = [name for name in self._seen.names() if _layout_of(_MEMBER, name) == self.count]
        return frozenset(holder for holder in map(self._seen.holder, ours) if holder is not None)

    def _follow(self, plan: Plan) -> None:
        for shard in plan.take:
            if shard not in self._campaigns:
                campaign = self._shards[shard].campaign(partial(self._hold, shard))
                self._campaigns[shard] = asyncio.create_task(campaign, name=f"shard-{shard}")
        for shard in self._campaigns.keys() - self._leaving.keys():
            too_late = not self._shards[shard].leads and shard not in plan.take
            if shard in plan.give_back or too_late:
                self._leaving[shard] = asyncio.create_task(self._give_back(shard), name=f"leave-{shard}")

    async def _hold(self, shard: int) -> None:
        if shard in self._leaving:
            await asyncio.Event().wait()
        await self._work.lead(shard)

    async def _give_back(self, shard: int) -> None:
        """Let the passes of the shard come to their end, and only then let another replica have it."""
        try:
            await self._work.wind_down(shard)
        finally:
            campaign = self._campaigns[shard]
            _cancel_once(campaign)
            await asyncio.wait([campaign])
            self._campaigns.pop(shard, None)
            self._leaving.pop(shard, None)

    async def _bury(self) -> None:
        """Delete the Leases of replicas that have died, and of layouts that are no more: they would pile up."""
        for name in self._seen.names():
            dead = _layout_of(_MEMBER, name) is not None and name != self._me
            past = _layout_of(_SHARD, name) not in (None, self.count)
            if (dead or past) and self._seen.holder(name) is None:
                with contextlib.suppress(ClusterError):
                    await self._leases.delete(name, self._seen.lease(name))

    async def _leave(self) -> None:
        """Let a replica with another number of shards begin at once, if we are the last one, and leave no Lease."""
        await self._layout.leave(self._alone)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._read()
                if self._me in self._seen.names() and self._seen.holder(self._me) is None:
                    await self._leases.delete(self._me, self._seen.lease(self._me))
        except (ClusterError, TimeoutError) as error:
            _log.info("the Lease %s was not deleted, which another replica will do: %s", self._me, told(error))

    async def _alone(self) -> bool:
        await self._read()
        return not self._members() - {self._identity}

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Once, until there is something else to say."""
        if text != self._said:
            _log.log(level, "%s", text)
        self._said = text


def _cancel_once(task: asyncio.Task[None]) -> None:
    """A second time would keep it from giving back what it holds."""
    if not task.cancelling():
        task.cancel()


class _Sightings:
    """The Leases as they were listed last, and since when each has not changed, by our own clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[Lease, float]] = {}

    def note(self, listed: Mapping[str, Lease]) -> None:
        moment, before = self._clock(), self._known
        self._known = {
            name: (lease, before[name][1] if name in before and before[name][0] == lease else moment)
            for name, lease in listed.items()
        }

    def names(self) -> list[str]:
        return list(self._known)

    def lease(self, name: str) -> Lease:
        return self._known[name][0]

    def holder(self, name: str) -> str | None:
        """Who holds it in force, as far as we know; None when nobody does."""
        if name not in self._known:
            return None
        lease, since = self._known[name]
        return lease.holder if self._clock() < since + lease.duration else None


def lease_of_shard(shard: int, count: int) -> str:
    """Its name."""
    return f"{NAME}-{shard}-of-{count}"


def lease_of_replica(identity: str, count: int) -> str:
    """Its name; identities may hold what names of objects may not."""
    return f"{NAME}-member-{count}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _layout_of(kind: re.Pattern[str], name: str) -> int | None:
    """How many shards there are for who uses this Lease; None: it is of another kind."""
    found = kind.fullmatch(name)
    return int(found[1]) if found else None
