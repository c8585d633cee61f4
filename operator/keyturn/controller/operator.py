"""The operator: its parts, how they are joined, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.leases import LeaseObject
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import Index, Key, ProviderKey, key_of, provider_key_of
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.leadership import Leadership, Timing, new_identity
from keyturn.controller.providers import ProviderReconciler
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.spool import Spool, replay
from keyturn.controller.sweep import Sweep
from keyturn.controller.workers import Workers
from keyturn.providers.addresses import AddressRule
from keyturn.providers.permission import MAY_SEND

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.02
"""Changes within this time lead to one look at a namespace."""
_PROVIDER_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How the operator runs.

    health_endpoint: URL on which Kopf answers the probes, or None. workers: rotations in work at the same time.
    sweep_interval: seconds between two searches for events that were missed. provider_interval: seconds between two
    checks of a provider account. spool_directory, spool_key_file: see `Spool`. identity: see `Leadership`; one that
    nobody else has by default. lease_namespace: where the Lease is by which replicas agree who works. addresses: where
    to provider objects may have the operator connect.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    health_endpoint: str | None = None
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
    ) -> None:
        self._kube = kube
        self._spool = spool
        self._leadership = leadership
        self.index = Index()
        self._rotations: WorkQueue[Key] = WorkQueue()
        self._providers: WorkQueue[ProviderKey] = WorkQueue()
        acting = kube.restricted(leadership.check)
        self._accounts = Accounts(kube, self.index, settings.addresses)
        self._observers = Observers(kube, lambda key: self._rotations.add_after(key, _WAKE_SECONDS))
        self._reconciler = Reconciler(acting, self.index, self._accounts, self._observers, clock, self._wake, spool)
        self._checks = ProviderReconciler(
            acting, self.index, self._accounts, self._wake, clock, settings.provider_interval
        )
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        self._workers = Workers(self._rotations, self._reconciler.reconcile, settings.workers)
        self._provider_workers = Workers(self._providers, self._checks.reconcile, _PROVIDER_WORKERS)

    def seen(self, raw: dict[str, Any], deleted: bool) -> None:
        """Take in an event about one of Keyturn's own objects."""
        if raw["kind"] == ROTATIONS.kind:
            key = key_of(raw)
            affected = self.index.drop_rotation(key) | {key} if deleted else self.index.put_rotation(raw)
        else:
            provider = provider_key_of(raw)
            known = self.index.provider(provider)
            affected = self.index.drop_provider(provider) if deleted else self.index.put_provider(raw)
            # What is only our own word in its status is no reason to ask the provider again.
            if deleted or known is None or known["metadata"]["generation"] != raw["metadata"]["generation"]:
                self._providers.add(provider)
        self._wake(affected)

    def _wake(self, keys: set[Key]) -> None:
        for key in keys:
            self._rotations.add(key)

    async def run(self, stop: asyncio.Event) -> None:
        """Work while this process leads, until `stop` is set; then let the passes that are under way come to their end.

        The lease is given back last: until then it is renewed, so that nobody else acts meanwhile.
        """
        MAY_SEND.set(self._leadership.check)
        swept = asyncio.Event()
        sweeping = asyncio.create_task(self._sweep.run(swept), name="sweep")
        campaign = asyncio.create_task(self._campaign(swept, stop), name="campaign")
        await stop.wait()
        _log.info("stopping: %d passes under way", self._workers.busy)
        sweeping.cancel()
        self._reconciler.stopping = True
        await asyncio.gather(self._workers.drain(), self._provider_workers.drain())
        campaign.cancel()
        await asyncio.gather(sweeping, campaign, return_exceptions=True)
        self._rotations.close()
        self._providers.close()
        await self._observers.aclose()
        await self._accounts.aclose()

    async def _campaign(self, swept: asyncio.Event, stop: asyncio.Event) -> None:
        """Ask for the lease when all resources are known, and when no value of an earlier process waits here."""
        await swept.wait()
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
            self._reconciler.stopping = True
            self._workers.halt()
            self._provider_workers.halt()
            for key in self.index.rotations():
                self._observers.unfollow(key)

    def _begin(self) -> None:
        self._reconciler.stopping = False
        self._wake(set(self.index.rotations()))
        for provider in self.index.providers():
            self._providers.add(provider)
        self._workers.start()
        self._provider_workers.start()

    async def _replay(self) -> None:
        """A value that waits in the spool goes to its journal whoever leads: see `keyturn.cluster.answers`."""
        if self._spool is not None:
            await replay(self._spool, self._kube)

    def healthy(self) -> dict[str, Any]:
        """Facts for the liveness probe. That they are given shows that the event loop turns, which is what counts:

        a pass may take as long as an outage lasts, and a restart would lose the value that it holds.
        """
        return {
            "leading": self._leadership.leads,
            "rotations": len(self.index),
            "waiting": len(self._rotations),
            "working": self._workers.busy,
        }


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT. Raises SpoolError, and ConfigException without a usable kubeconfig."""
    spool = Spool.open(settings.spool_directory, settings.spool_key_file) if settings.spool_directory else None
    kube = await Kube.connect(settings.kubeconfig, settings.context)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lease = LeaseObject(kube, settings.lease_namespace)
    leadership = Leadership(lease, settings.identity or new_identity(), settings.lease)
    controller = Controller(kube, settings, spool, leadership, lambda: datetime.now(UTC))
    source = KopfSource(
        kube, controller.seen, stop, health_endpoint=settings.health_endpoint, healthy=controller.healthy
    )
    _log.info("starting against %s", kube.host)
    working = asyncio.create_task(controller.run(stop), name="controller")
    try:
        await source.run()
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await kube.aclose()
        _log.info("stopped")
