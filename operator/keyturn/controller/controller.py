"""The controller: its parts, how they are joined, and what belongs to which shard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import partial
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import NAMESPACES, POLICIES, ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.census import census
from keyturn.controller.coverage import version_of
from keyturn.controller.crew import Shards
from keyturn.controller.gates import Gates
from keyturn.controller.index import Index, Key, ProviderKey, key_of, labels_of, provider_key_of, said_something
from keyturn.controller.metrics import BUDGET, BUSY, DEPTH, LEADER, OWNED, SHARDS, Metrics, Priority, QueueName, Samples
from keyturn.controller.permits import Permits
from keyturn.controller.policies import RECOUNT_SECONDS, PolicyReconciler
from keyturn.controller.providers import ProviderReconciler
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.rivals import Others, Rivals
from keyturn.controller.settings import Settings
from keyturn.controller.sharding import shard_of
from keyturn.controller.spool import Spool, replay
from keyturn.controller.sweep import Sweep
from keyturn.controller.turn import TurnKey
from keyturn.controller.turns import Turns
from keyturn.controller.workers import Again, Workers
from keyturn.providers.permission import MAY_SEND

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.02
"""Changes within this time lead to one look at a namespace."""
_THREADS_PER_WORKER: Final = 8
"""At most; only those are started that are needed."""


class Controller:
    """Index, queues and workers; fed by an event source through `seen`.

    The index is of everything, whatever this process owns, so that a successor begins at once, and conflicts are seen.
    Work is done only on what belongs to a shard that this process owns; without shards, that is all or nothing.
    """

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        spool: Spool | None,
        shards: Shards,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._kube = kube
        self._spool = spool
        self._shards = shards
        self.index = Index()
        self._clock = clock
        self._swept = asyncio.Event()
        self._stopping = False
        self._replaying = asyncio.Lock()
        self._rotations: WorkQueue[Key] = WorkQueue(lambda key: key[0], _waited(metrics, QueueName.ROTATIONS))
        self._providers: WorkQueue[ProviderKey] = WorkQueue(_tenant, _waited(metrics, QueueName.PROVIDERS))
        self._policies: WorkQueue[str] = WorkQueue(lambda name: name, _waited(metrics, QueueName.POLICIES))
        self._working: set[int] = set()
        """The shards whose objects are worked on."""
        acting = kube.restricted(_may_act)
        self._turns = Turns(self._turn_has_come, clock, metrics.turn_waited)
        self._accounts = Accounts(kube, self.index, settings.addresses, metrics, self._turns)
        self._observers = Observers(kube, lambda key: self._rotations.add_after(key, _WAKE_SECONDS))
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        # Not restricted: its writer works for all passes together, and a precondition guards each of its writes.
        self._permits = Permits(kube, self.index, self._room, self.seen)
        others = Others(self._goes_on, Rivals(self.index, self._sweep.fresh) if shards.count > 1 else None)
        self._reconciler = Reconciler(
            acting,
            self.index,
            self._accounts,
            self._observers,
            clock,
            metrics,
            Gates(self._turns, self._permits, others),
            self._wake,
            spool,
        )
        self._checks = ProviderReconciler(
            acting, self.index, self._accounts, self._wake, clock, settings.provider_interval, self._turns
        )
        self._rulings = PolicyReconciler(acting, self.index, self._wake, clock)
        count = settings.workers
        self._workers = Workers(self._rotations, self.rotate, count, partial(metrics.reconciled, QueueName.ROTATIONS))
        self._provider_workers = Workers(
            self._providers, self.check, count, partial(metrics.reconciled, QueueName.PROVIDERS)
        )
        self._policy_workers = Workers(
            self._policies, self.rule, min(count, 1), partial(metrics.reconciled, QueueName.POLICIES)
        )
        self._all_workers = (self._workers, self._provider_workers, self._policy_workers)
        metrics.observe(self.samples)

    def seen(self, raw: dict[str, Any], deleted: bool) -> None:
        """Take in an event about an object of Keyturn's own kinds, or a Namespace."""
        if raw["kind"] == ROTATIONS.kind:
            self._seen_rotation(raw, deleted)
        elif raw["kind"] == POLICIES.kind:
            self._seen_policy(raw, deleted)
        elif raw["kind"] == NAMESPACES.kind:
            if deleted:
                self.index.coverage.drop_namespace(raw["metadata"]["name"])
            elif affected := self.index.put_namespace(raw):
                self._covered_anew(affected)
        else:
            self._seen_provider(raw, deleted)

    def _seen_rotation(self, raw: dict[str, Any], deleted: bool) -> None:
        key = key_of(raw)
        if not deleted and self.index.versions().get(key, -1) >= version_of(raw):
            return
        before = self.index.rotation(key)
        affected = self.index.drop_rotation(key) | {key} if deleted else self.index.put_rotation(raw)
        after = self.index.rotation(key)
        urgent = affected & {key} if said_something(before, after) else set[Key]()
        self._wake(urgent, urgent=True)
        if labels_of(before) != labels_of(after):
            self._covered_anew(set())
        if self._working and _runs(before) != _runs(after):
            self._permits.ran()
        # Once each: a worker may have it by now, and would do it again.
        self._wake(affected - urgent)

    def _seen_policy(self, raw: dict[str, Any], deleted: bool) -> None:
        name, coverage = raw["metadata"]["name"], self.index.coverage
        before = coverage.policies().get(name)
        affected = self.index.drop_policy(name) if deleted else self.index.put_policy(raw)
        if self._policy_shard(name) in self._working and said_something(before, coverage.policies().get(name)):
            self._policies.add(name, urgent=True)
        if self._working:
            self._permits.changed(name)
        policy = coverage.policy(name)
        # What begins with a maximum age goes by a time that is not known yet: its rotations are woken when it is.
        if policy is None or not policy.awaits_its_time:
            self._wake(affected)

    def _covered_anew(self, affected: set[Key]) -> None:
        """Other policies cover these, and policies may cover another number of rotations than before."""
        for name in self.index.coverage.policies():
            if self._policy_shard(name) in self._working:
                self._policies.add_after(name, RECOUNT_SECONDS)
        self._wake(affected)

    def _seen_provider(self, raw: dict[str, Any], deleted: bool) -> None:
        provider = provider_key_of(raw)
        known = self.index.provider(provider)
        affected = self.index.drop_provider(provider) if deleted else self.index.put_provider(raw)
        # What is only our own word in its status is no reason to ask the provider again.
        if self._provider_shard(provider) in self._working and said_something(known, self.index.provider(provider)):
            self._providers.add(provider, urgent=True)
        self._wake(affected)

    def _wake(self, keys: set[Key], *, urgent: bool = False) -> None:
        """Have these worked on, where they are ours; who takes a shard over looks at everything in it."""
        for key in keys:
            if self._shard(key) in self._working:
                self._rotations.add(key, urgent=urgent)

    def _room(self, key: Key) -> None:
        """Policies may have room for this rotation, which was set aside for it."""
        self._wake({key}, urgent=True)

    def _turn_has_come(self, key: TurnKey) -> None:
        """Requests are set aside for this one: soon, for others wait behind it."""
        if len(key) == 2:
            self._wake({key}, urgent=True)
        elif self._provider_shard(key) in self._working:
            self._providers.add(key, urgent=True)

    def _shard(self, key: Key) -> int:
        return shard_of(key[0], self._shards.count)

    def _policy_shard(self, name: str) -> int:
        return shard_of(name, self._shards.count)

    def _provider_shard(self, key: ProviderKey) -> int:
        return shard_of(key[1] or key[2], self._shards.count)

    async def rotate(self, key: Key) -> Again | None:
        """Work on a rotation, as long as it is ours: see `Reconciler.reconcile`."""
        return await self._within(self._shard(key), partial(self._reconciler.reconcile, key))

    async def check(self, key: ProviderKey) -> Again | None:
        """Check a provider account, as long as it is ours: see `ProviderReconciler.reconcile`."""
        return await self._within(self._provider_shard(key), partial(self._checks.reconcile, key))

    async def rule(self, name: str) -> Again | None:
        """Say of a policy what it covers, as long as it is ours: see `PolicyReconciler.reconcile`."""
        return await self._within(self._policy_shard(name), partial(self._rulings.reconcile, name))

    def _goes_on(self, key: Key) -> bool:
        return not self._stopping and self._shard(key) in self._working

    async def _within(self, shard: int, work: Callable[[], Awaitable[Again | None]]) -> Again | None:
        if self._stopping or shard not in self._working:
            return None
        MAY_SEND.set(partial(self._shards.check, shard))
        again = await work()
        return again if shard in self._working else None

    async def run(self, stop: asyncio.Event) -> None:
        """Work on what we own, until `stop` is set; then let the passes that are under way come to their end.

        The leases are given back last: until then they are renewed, so that nobody else acts meanwhile.
        """
        for workers in self._all_workers:
            workers.start()
        sweeping = asyncio.create_task(self._sweep.run(self._swept), name="sweep")
        campaign = asyncio.create_task(self._campaign(), name="campaign")
        await stop.wait()
        _log.info("stopping: %d passes under way", self._workers.busy)
        sweeping.cancel()
        self._stopping = True
        await asyncio.gather(*(workers.drain() for workers in self._all_workers))
        campaign.cancel()
        await asyncio.gather(sweeping, campaign, return_exceptions=True)
        await self._sweep.aclose()
        await self._observers.aclose()
        await self._accounts.aclose()

    async def _campaign(self) -> None:
        """Ask for a share of the work when all resources are known, and no value of an earlier process waits here."""
        await self._swept.wait()
        await self._replay()
        _log.info("ready: %d rotations known", len(self.index))
        await self._shards.campaign(self)

    async def lead(self, shard: int) -> None:
        """Look at everything in the shard and work on it, until cancelled: then it may be another's by now."""
        await self._replay()
        if not self._stopping:
            self._begin(shard)
        try:
            await asyncio.Event().wait()
        finally:
            self._leave(shard)
            self._workers.halt(lambda key: self._shard(key) == shard)
            self._provider_workers.halt(lambda key: self._provider_shard(key) == shard)
            self._policy_workers.halt(lambda name: self._policy_shard(name) == shard)
            self._let_others_begin(shard)

    async def wind_down(self, shard: int) -> None:
        """Begin nothing in the shard any more, and let its passes stop at their next step."""
        self._leave(shard)
        await asyncio.gather(
            self._workers.quiet(lambda key: self._shard(key) == shard),
            self._provider_workers.quiet(lambda key: self._provider_shard(key) == shard),
            self._policy_workers.quiet(lambda name: self._policy_shard(name) == shard),
        )

    def _begin(self, shard: int) -> None:
        if not self._working:
            self._permits.begin()
        self._working.add(shard)
        for key in self.index.versions():
            if self._shard(key) == shard:
                # What an earlier leader has left in the middle may be keeping workloads waiting.
                self._rotations.add(key, urgent=key in self.index.running())
        for provider in self.index.providers():
            if self._provider_shard(provider) == shard:
                self._providers.add(provider)
        for name in self.index.coverage.policies():
            if self._policy_shard(name) == shard:
                self._policies.add(name)

    def _leave(self, shard: int) -> None:
        self._working.discard(shard)
        self._rotations.clear(lambda key: self._shard(key) == shard)
        self._providers.clear(lambda key: self._provider_shard(key) == shard)
        self._policies.clear(lambda name: self._policy_shard(name) == shard)
        for key in self.index.versions():
            if self._shard(key) == shard:
                self._observers.unfollow(key)

    def _let_others_begin(self, shard: int) -> None:
        """Nobody waits here any more for the room that policies have, or for a turn at a provider."""
        if not self._working:
            self._turns.clear()
            self._permits.clear()
            return
        for key in self.index.versions():
            if self._shard(key) == shard:
                self._turns.forget(key)
                self._permits.end_pass(key)

    async def _replay(self) -> None:
        """A value that waits in the spool goes to its journal whoever leads: see `keyturn.cluster.answers`."""
        if self._spool is not None:
            async with self._replaying:
                await replay(self._spool, self._kube)

    async def known(self) -> None:
        """Return when all objects are known, once; events tell what changes from then on."""
        await self._swept.wait()

    def ready(self) -> bool:
        """Whether all objects are known, so that this process could lead."""
        return self._swept.is_set()

    def facts(self) -> dict[str, Any]:
        """For the probes. That they are given shows that the event loop turns, which is what counts:

        a pass may take as long as an outage lasts, and a restart would lose the value that it holds.
        """
        return {
            "leading": bool(self._shards.held()),
            "shards": sorted(self._shards.held()),
            "rotations": len(self.index),
            "waiting": len(self._rotations),
            "working": self._workers.busy,
        }

    def samples(self) -> Samples:
        """What there is now, for the metrics. Objects are counted where they are worked on, and nowhere else."""
        held = self._shards.held()
        yield LEADER, (), bool(held)
        yield SHARDS, (), self._shards.count
        yield OWNED, (), len(held)
        for name, queue, workers in (
            (QueueName.ROTATIONS, self._rotations, self._workers),
            (QueueName.PROVIDERS, self._providers, self._provider_workers),
            (QueueName.POLICIES, self._policies, self._policy_workers),
        ):
            yield DEPTH, (name,), len(queue)
            yield BUSY, (name,), workers.busy
        if held:
            yield BUDGET, (), self._permits.waiting()
            ours = (facts for key, facts in self.index.facts().items() if self._shard(key) in held)
            yield from census(ours, self._clock())


def _runs(raw: dict[str, Any] | None) -> bool:
    return bool(((raw or {}).get("status") or {}).get("rotation"))


def _waited(metrics: Metrics, name: QueueName) -> Callable[[bool, float], None]:
    def told(urgent: bool, seconds: float) -> None:
        metrics.waited(name, Priority.URGENT if urgent else Priority.USUAL, seconds)

    return told


def _may_act() -> None:
    """Whether the pass that asks may write: it was told when it began whom to ask."""
    MAY_SEND.get()()


def _tenant(key: ProviderKey) -> Hashable:
    """A namespace; objects of the cluster are of nobody's in particular, and each has its own share of the workers."""
    return key[1] or key
