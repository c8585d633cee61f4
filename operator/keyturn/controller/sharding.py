"""Which shard an object belongs to, and which replica takes which shards: what all replicas work out alike.

A namespace is never divided. So what its rotations have in common stays with one process: the Secrets that they write,
the RotationProviders that they use with their rate limits, and the listings of its pods and workloads.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache


@lru_cache(maxsize=65536)
def shard_of(tenant: str, count: int) -> int:
    """The shard, from 0 to `count` - 1, of a namespace, or of an object of the cluster by its name.

    The same in every process, version and architecture.
    """
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "big") % count


@dataclass(frozen=True, slots=True)
class View:
    """Who is there, as one replica sees it.

    members: the replicas that live, the one that looks among them. holders: by shard, who holds it, None for nobody.
    """

    members: frozenset[str]
    holders: tuple[str | None, ...]

    def held_by(self, member: str) -> list[int]:
        return [shard for shard, holder in enumerate(self.holders) if holder == member]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replica does about its share: shards that it gives back, and free ones that it asks for."""

    give_back: tuple[int, ...] = ()
    take: tuple[int, ...] = ()


def quotas(view: View) -> dict[str, int]:
    """How many shards each replica is to have: as many as any other, or one more.

    Where they do not come out even, those that have more already keep them, so that nothing moves without need.
    """
    held = Counter(holder for holder in view.holders if holder is not None)
    members = sorted(view.members | set(held), key=lambda member: (-held[member], member))
    base, extra = divmod(len(view.holders), len(members))
    return {member: base + (place < extra) for place, member in enumerate(members)}


def plan(me: str, view: View) -> Plan:
    """What this replica is to do, so that all have their quotas once everybody has done the same.

    Replicas that see the same do not ask for the same shard; for those that do not, the Leases decide.
    """
    due, mine = quotas(view), view.held_by(me)
    if len(mine) > due[me]:
        return Plan(give_back=tuple(mine[due[me] :]))
    free = [shard for shard, holder in enumerate(view.holders) if holder is None]
    for member in sorted(due):
        short = max(due[member] - len(view.held_by(member)), 0)
        if member == me:
            return Plan(take=tuple(free[:short]))
        free = free[short:]
    return Plan()
