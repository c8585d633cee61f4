"""The operator: its parts, how they are joined, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.leases import LeaseObject
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import NAMESPACES, POLICIES, ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.census import census
from keyturn.controller.endpoints import Endpoints
from keyturn.controller.gates import Gates
from keyturn.controller.index import Index, Key, ProviderKey, key_of, labels_of, provider_key_of, said_something
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.leadership import Leadership, Timing, new_identity
from keyturn.controller.metrics import BUDGET, BUSY, DEPTH, LEADER, Metrics, Priority, QueueName, Samples
from keyturn.controller.permits import Permits
from keyturn.controller.policies import RECOUNT_SECONDS, PolicyReconciler
from keyturn.controller.providers import ProviderReconciler
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.spool import Spool, replay
from keyturn.controller.sweep import Sweep
from keyturn.controller.turns import TurnKey, Turns
from keyturn.controller.workers import Workers
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
    identity: see `Leadership`; one that nobody else has by default. lease_namespace: where the Lease is by which
    replicas agree who works. addresses: where to provider objects may have the operator connect.
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
    addresses: AddressRule = field(default_factory=AddressRule)


class Controller:
    """Index, queues and workers; fed by an event source through `seen`.

    The index is kept whether this process leads or not, so that a successor begins at once. Only the leader works.
    """

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        spool: Spool | None,
        leadership: Leadership,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._kube = kube
        self._spool = spool
        self._leadership = leadership
        self.index = Index()
        self._clock = clock
        self._swept = asyncio.Event()
        self._rotations: WorkQueue[Key] = WorkQueue(lambda key: key[0], _waited(metrics, QueueName.ROTATIONS))
        self._providers: WorkQueue[ProviderKey] = WorkQueue(_tenant, _waited(metrics, QueueName.PROVIDERS))
        self._policies: WorkQueue[str] = WorkQueue(lambda name: name, _waited(metrics, QueueName.POLICIES))
        self._working = False
        acting = kube.restricted(leadership.check)
        self._turns = Turns(self._turn_has_come, clock, metrics.turn_waited)
        self._accounts = Accounts(kube, self.index, settings.addresses, metrics, self._turns)
        self._observers = Observers(kube, lambda key: self._rotations.add_after(key, _WAKE_SECONDS))
        # Not restricted: its writer works for all passes together, and a precondition guards each of its writes.
        self._permits = Permits(kube, self.index, self._room, self.seen)
        self._reconciler = Reconciler(
            acting,
            self.index,
            self._accounts,
            self._observers,
            clock,
            metrics,
            Gates(self._turns, self._permits),
            self._wake,
            spool,
        )
        self._checks = ProviderReconciler(
            acting, self.index, self._accounts, self._wake, clock, settings.provider_interval, self._turns
        )
        self._rulings = PolicyReconciler(acting, self.index, self._wake, clock)
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        count = settings.workers
        self._workers = Workers(
            self._rotations, self._reconciler.reconcile, count, partial(metrics.reconciled, QueueName.ROTATIONS)
        )
        self._provider_workers = Workers(
            self._providers, self._checks.reconcile, count, partial(metrics.reconciled, QueueName.PROVIDERS)
        )
        self._policy_workers = Workers(
            self._policies, self._rulings.reconcile, min(count, 1), partial(metrics.reconciled, QueueName.POLICIES)
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
        before = self.index.rotation(key)
        affected = self.index.drop_rotation(key) | {key} if deleted else self.index.put_rotation(raw)
        after = self.index.rotation(key)
        if key in affected and said_something(before, after):
            self._wake({key}, urgent=True)
        if labels_of(before) != labels_of(after):
            self._covered_anew(set())
        if self._working and _runs(before) != _runs(after):
            self._permits.ran()
        self._wake(affected)

    def _seen_policy(self, raw: dict[str, Any], deleted: bool) -> None:
        name, coverage = raw["metadata"]["name"], self.index.coverage
        before = coverage.policies().get(name)
        affected = self.index.drop_policy(name) if deleted else self.index.put_policy(raw)
        if self._working and said_something(before, coverage.policies().get(name)):
            self._policies.add(name, urgent=True)
        if self._working:
            self._permits.changed(name)
        policy = coverage.policy(name)
        # What begins with a maximum age goes by a time that is not known yet: its rotations are woken when it is.
        if policy is None or not policy.awaits_its_time:
            self._wake(affected)

    def _covered_anew(self, affected: set[Key]) -> None:
        """Other policies cover these, and policies may cover another number of rotations than before."""
        if self._working:
            for name in self.index.coverage.policies():
                self._policies.add_after(name, RECOUNT_SECONDS)
        self._wake(affected)

    def _seen_provider(self, raw: dict[str, Any], deleted: bool) -> None:
        provider = provider_key_of(raw)
        known = self.index.provider(provider)
        affected = self.index.drop_provider(provider) if deleted else self.index.put_provider(raw)
        # What is only our own word in its status is no reason to ask the provider again.
        if self._working and said_something(known, self.index.provider(provider)):
            self._providers.add(provider, urgent=True)
        self._wake(affected)

    def _wake(self, keys: set[Key], *, urgent: bool = False) -> None:
        """Have these worked on; who does not lead will look at everything when it does."""
        if self._working:
            for key in keys:
                self._rotations.add(key, urgent=urgent)

    def _room(self, key: Key) -> None:
        """Policies may have room for this rotation, which was set aside for it."""
        self._wake({key}, urgent=True)

    def _turn_has_come(self, key: TurnKey) -> None:
        """Requests are set aside for this one: soon, for others wait behind it."""
        if not self._working:
            return
        if len(key) == 2:
            self._rotations.add(key, urgent=True)
        else:
            self._providers.add(key, urgent=True)

    async def run(self, stop: asyncio.Event) -> None:
        """Work while this process leads, until `stop` is set; then let the passes that are under way come to their end.

        The lease is given back last: until then it is renewed, so that nobody else acts meanwhile.
        """
        MAY_SEND.set(self._leadership.check)
        sweeping = asyncio.create_task(self._sweep.run(self._swept), name="sweep")
        campaign = asyncio.create_task(self._campaign(stop), name="campaign")
        await stop.wait()
        _log.info("stopping: %d passes under way", self._workers.busy)
        sweeping.cancel()
        self._reconciler.stopping = True
        await asyncio.gather(*(workers.drain() for workers in self._all_workers))
        campaign.cancel()
        await asyncio.gather(sweeping, campaign, return_exceptions=True)
        await self._observers.aclose()
        await self._accounts.aclose()

    async def _campaign(self, stop: asyncio.Event) -> None:
        """Ask for the lease when all resources are known, and when no value of an earlier process waits here."""
        await self._swept.wait()
        await self._replay()
        _log.info("ready: %d rotations known", len(self.index))
        await self._leadership.campaign(lambda: self._lead(stop))

    async def _lead(self, stop: asyncio.Event) -> None:
        """Look at everything and work, until cancelled: then another one may be the leader by now."""
        await self._replay()
        if not stop.is_set():
            self._begin()
        try:
            await asyncio.Event().wait()
        finally:
            self._working = False
            self._reconciler.stopping = True
            for workers in self._all_workers:
                workers.halt()
            self._rotations.clear()
            self._providers.clear()
            self._turns.clear()
            self._permits.clear()
            self._policies.clear()
            for key in self.index.rotations():
                self._observers.unfollow(key)

    def _begin(self) -> None:
        self._reconciler.stopping = False
        self._working = True
        self._permits.begin()
        for key, raw in self.index.rotations().items():
            # What an earlier leader has left in the middle may be keeping workloads waiting.
            self._rotations.add(key, urgent="rotation" in (raw.get("status") or {}))
        for provider in self.index.providers():
            self._providers.add(provider)
        for name in self.index.coverage.policies():
            self._policies.add(name)
        for workers in self._all_workers:
            workers.start()

    async def _replay(self) -> None:
        """A value that waits in the spool goes to its journal whoever leads: see `keyturn.cluster.answers`."""
        if self._spool is not None:
            await replay(self._spool, self._kube)

    def ready(self) -> bool:
        """Whether all objects are known, so that this process could lead."""
        return self._swept.is_set()

    def facts(self) -> dict[str, Any]:
        """For the probes. That they are given shows that the event loop turns, which is what counts:

        a pass may take as long as an outage lasts, and a restart would lose the value that it holds.
        """
        return {
            "leading": self._leadership.leads,
            "rotations": len(self.index),
            "waiting": len(self._rotations),
            "working": self._workers.busy,
        }

    def samples(self) -> Samples:
        """What there is now, for the metrics. Objects are counted where they are worked on, and nowhere else."""
        yield LEADER, (), self._leadership.leads
        for name, queue, workers in (
            (QueueName.ROTATIONS, self._rotations, self._workers),
            (QueueName.PROVIDERS, self._providers, self._provider_workers),
            (QueueName.POLICIES, self._policies, self._policy_workers),
        ):
            yield DEPTH, (name,), len(queue)
            yield BUSY, (name,), workers.busy
        if self._leadership.leads:
            yield BUDGET, (), self._permits.waiting()
            yield from census(self.index.rotations().values(), self._clock())


def _runs(raw: dict[str, Any] | None) -> bool:
    return bool(((raw or {}).get("status") or {}).get("rotation"))


def _waited(metrics: Metrics, name: QueueName) -> Callable[[bool, float], None]:
    def told(urgent: bool, seconds: float) -> None:
        metrics.waited(name, Priority.URGENT if urgent else Priority.USUAL, seconds)

    return told


def _tenant(key: ProviderKey) -> Hashable:
    """A namespace; objects of the cluster are of nobody's in particular, and each has its own share of the workers."""
    return key[1] or key


def make_room_for_slow_names(workers: int) -> None:
    """Let the running loop have more threads: host names are resolved there, the API server's too.

    One that a tenant has chosen may keep its thread for long after the pass that asked for it has given up.
    """
    threads = ThreadPoolExecutor(_THREADS_PER_WORKER * workers, thread_name_prefix="keyturn")
    asyncio.get_running_loop().set_default_executor(threads)


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT. Raises SpoolError, NoConnection and EndpointsError."""
    spool = Spool.open(settings.spool_directory, settings.spool_key_file) if settings.spool_directory else None
    kube = await Kube.connect(settings.kubeconfig, settings.context)
    stop = asyncio.Event()
    make_room_for_slow_names(settings.workers)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lease = LeaseObject(kube, settings.lease_namespace)
    leadership = Leadership(lease, settings.identity or new_identity(), settings.lease)
    metrics = Metrics()
    kube.tell = metrics.api_request
    controller = Controller(kube, settings, spool, leadership, lambda: datetime.now(UTC), metrics)
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
