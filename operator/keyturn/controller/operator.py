"""The operator: its parts, how they are joined, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.leases import Leases
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.census import census
from keyturn.controller.crew import Crew, Shards, Single
from keyturn.controller.endpoints import Endpoints
from keyturn.controller.index import Index, Key, ProviderKey, key_of, provider_key_of, said_something
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.leadership import Leadership, Timing, new_identity
from keyturn.controller.metrics import BUSY, DEPTH, LEADER, OWNED, SHARDS, Metrics, Priority, QueueName, Samples
from keyturn.controller.providers import ProviderReconciler
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.rivals import Others, Rivals
from keyturn.controller.sharding import shard_of
from keyturn.controller.spool import Spool, replay
from keyturn.controller.sweep import Sweep
from keyturn.controller.workers import Again, Workers
from keyturn.providers.addresses import AddressRule
from keyturn.providers.permission import MAY_SEND

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.02
"""Changes within this time lead to one look at a namespace."""
_THREADS_PER_WORKER: Final = 8
"""At most; only those are started that are needed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the operator runs.

    health: address of the probes and the metrics, "" for none. workers: rotations in work at the same time, and
    beside them provider objects. sweep_interval: seconds between two searches for events that were missed.
    provider_interval: seconds between two checks of a provider account. spool_directory, spool_key_file: see `Spool`.
    identity: see `Leadership`; one that nobody else has by default. lease_namespace: where the Leases are by which
    replicas agree who works. shards: into how many parts the work is divided, 1 for not at all. addresses: where to
    provider objects may have the operator connect.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    health: str = ""
    workers: int = 20
    sweep_interval: float = 600.0
    provider_interval: float = 300.0
    spool_directory: Path | None = None
    spool_key_file: Path | None = None
    identity: str | None = None
    lease_namespace: str = "keyturn-system"
    lease: Timing = field(default_factory=Timing)
    shards: int = 1
    addresses: AddressRule = field(default_factory=AddressRule)


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
        self._working: set[int] = set()
        """The shards whose objects are worked on."""
        acting = kube.restricted(_may_act)
        self._accounts = Accounts(kube, self.index, settings.addresses, metrics)
        self._observers = Observers(kube, lambda key: self._rotations.add_after(key, _WAKE_SECONDS))
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        self._reconciler = Reconciler(
            acting,
            self.index,
            self._accounts,
            self._observers,
            clock,
            metrics,
            self._wake,
            spool,
            Others(self._goes_on, Rivals(self.index, self._sweep.fresh) if shards.count > 1 else None),
        )
        self._checks = ProviderReconciler(
            acting, self.index, self._accounts, self._wake, clock, settings.provider_interval
        )
        count = settings.workers
        self._workers = Workers(self._rotations, self.rotate, count, partial(metrics.reconciled, QueueName.ROTATIONS))
        self._provider_workers = Workers(
            self._providers, self.check, count, partial(metrics.reconciled, QueueName.PROVIDERS)
        )
        metrics.observe(self.samples)

    def seen(self, raw: dict[str, Any], deleted: bool) -> None:
        """Take in an event about one of Keyturn's own objects."""
        if raw["kind"] == ROTATIONS.kind:
            key = key_of(raw)
            before = self.index.rotation(key)
            affected = self.index.drop_rotation(key) | {key} if deleted else self.index.put_rotation(raw)
            if key in affected and said_something(before, self.index.rotation(key)):
                self._wake({key}, urgent=True)
        else:
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

    def _shard(self, key: Key) -> int:
        return shard_of(key[0], self._shards.count)

    def _provider_shard(self, key: ProviderKey) -> int:
        return shard_of(key[1] or key[2], self._shards.count)

    async def rotate(self, key: Key) -> Again | None:
        """Work on a rotation, as long as it is ours: see `Reconciler.reconcile`."""
        return await self._within(self._shard(key), partial(self._reconciler.reconcile, key))

    async def check(self, key: ProviderKey) -> Again | None:
        """Check a provider account, as long as it is ours: see `ProviderReconciler.reconcile`."""
        return await self._within(self._provider_shard(key), partial(self._checks.reconcile, key))

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
        self._workers.start()
        self._provider_workers.start()
        sweeping = asyncio.create_task(self._sweep.run(self._swept), name="sweep")
        campaign = asyncio.create_task(self._campaign(), name="campaign")
        await stop.wait()
        _log.info("stopping: %d passes under way", self._workers.busy)
        sweeping.cancel()
        self._stopping = True
        await asyncio.gather(self._workers.drain(), self._provider_workers.drain())
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

    async def wind_down(self, shard: int) -> None:
        """Begin nothing in the shard any more, and let its passes stop at their next step."""
        self._leave(shard)
        await asyncio.gather(
            self._workers.quiet(lambda key: self._shard(key) == shard),
            self._provider_workers.quiet(lambda key: self._provider_shard(key) == shard),
        )

    def _begin(self, shard: int) -> None:
        self._working.add(shard)
        for key, raw in self.index.rotations().items():
            if self._shard(key) == shard:
                # What an earlier leader has left in the middle may be keeping workloads waiting.
                self._rotations.add(key, urgent="rotation" in (raw.get("status") or {}))
        for provider in self.index.providers():
            if self._provider_shard(provider) == shard:
                self._providers.add(provider)

    def _leave(self, shard: int) -> None:
        self._working.discard(shard)
        self._rotations.clear(lambda key: self._shard(key) == shard)
        self._providers.clear(lambda key: self._provider_shard(key) == shard)
        for key in self.index.rotations():
            if self._shard(key) == shard:
                self._observers.unfollow(key)

    async def _replay(self) -> None:
        """A value that waits in the spool goes to its journal whoever leads: see `keyturn.cluster.answers`."""
        if self._spool is not None:
            async with self._replaying:
                await replay(self._spool, self._kube)

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
        ):
            yield DEPTH, (name,), len(queue)
            yield BUSY, (name,), workers.busy
        if held:
            ours = (raw for key, raw in self.index.rotations().items() if self._shard(key) in held)
            yield from census(ours, self._clock())


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


def make_room_for_slow_names(workers: int) -> None:
    """Let the running loop have more threads: host names are resolved there, the API server's too.

    One that a tenant has chosen may keep its thread for long after the pass that asked for it has given up.
    """
    threads = ThreadPoolExecutor(_THREADS_PER_WORKER * workers, thread_name_prefix="keyturn")
    asyncio.get_running_loop().set_default_executor(threads)


def _shards(leases: Leases, settings: Settings) -> Shards:
    identity = settings.identity or new_identity()
    if settings.shards > 1:
        return Crew(leases, identity, settings.lease, settings.shards)
    return Single(Leadership(leases.named(), identity, settings.lease))


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT. Raises SpoolError, NoConnection and EndpointsError."""
    spool = Spool.open(settings.spool_directory, settings.spool_key_file) if settings.spool_directory else None
    kube = await Kube.connect(settings.kubeconfig, settings.context)
    stop = asyncio.Event()
    make_room_for_slow_names(settings.workers)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics()
    kube.tell = metrics.api_request
    shards = _shards(Leases(kube, settings.lease_namespace), settings)
    controller = Controller(kube, settings, spool, shards, lambda: datetime.now(UTC), metrics)
    source = KopfSource(kube, controller.seen, stop)
    endpoints = Endpoints(controller.facts, controller.ready, metrics.registry)
    _log.info("starting against %s", kube.host)
    try:
        if settings.health:
            await endpoints.open(settings.health)
        working = asyncio.create_task(controller.run(stop), name="controller")
        try:
            await source.run()
        finally:
            stop.set()
            with contextlib.suppress(asyncio.CancelledError):
                await working
    finally:
        await endpoints.aclose()
        await kube.aclose()
        _log.info("stopped")
