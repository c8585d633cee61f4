"""The operator: its parts, how they are joined, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import Index, Key, ProviderKey, key_of, provider_key_of
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.providers import ProviderReconciler
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.spool import Spool, replay
from keyturn.controller.sweep import Sweep
from keyturn.controller.workers import Workers

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.02
"""Changes within this time lead to one look at a namespace."""
_PROVIDER_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How the operator runs.

    health_endpoint: URL on which Kopf answers the probes, or None. workers: rotations in work at the same time.
    sweep_interval: seconds between two searches for events that were missed. provider_interval: seconds between two
    checks of a provider account. spool_directory, spool_key_file: see `Spool`.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    health_endpoint: str | None = None
    workers: int = 20
    sweep_interval: float = 600.0
    provider_interval: float = 300.0
    spool_directory: Path | None = None
    spool_key_file: Path | None = None


class Controller:
    """Index, queues and workers; fed by an event source through `seen`."""

    def __init__(self, kube: Kube, settings: Settings, spool: Spool | None, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._spool = spool
        self.index = Index()
        self._rotations: WorkQueue[Key] = WorkQueue()
        self._providers: WorkQueue[ProviderKey] = WorkQueue()
        self._accounts = Accounts(kube, self.index)
        self._observers = Observers(kube, lambda key: self._rotations.add_after(key, _WAKE_SECONDS))
        self._reconciler = Reconciler(kube, self.index, self._accounts, self._observers, clock, spool)
        checks = ProviderReconciler(kube, self.index, self._accounts, self._wake, clock, settings.provider_interval)
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        self._workers = Workers(self._rotations, self._reconciler.reconcile, settings.workers)
        self._provider_workers = Workers(self._providers, checks.reconcile, _PROVIDER_WORKERS)

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
        """Work until `stop` is set; then let the passes that are under way come to their end, and close everything."""
        swept = asyncio.Event()
        sweeping = asyncio.create_task(self._sweep.run(swept), name="sweep")
        warming = asyncio.create_task(self._warm_up(swept), name="warm-up")
        await stop.wait()
        _log.info("stopping: %d passes under way", self._workers.busy)
        for task in (sweeping, warming):
            task.cancel()
        await asyncio.gather(sweeping, warming, return_exceptions=True)
        self._reconciler.stopping = True
        await asyncio.gather(self._workers.drain(), self._provider_workers.drain())
        self._rotations.close()
        self._providers.close()
        await self._observers.aclose()
        await self._accounts.aclose()

    async def _warm_up(self, swept: asyncio.Event) -> None:
        """Work begins when all resources are known, and when no value of an earlier process waits for its journal."""
        await swept.wait()
        if self._spool is not None:
            await replay(self._spool, self._kube)
        _log.info("ready: %d rotations known", len(self.index))
        self._workers.start()
        self._provider_workers.start()

    def healthy(self) -> dict[str, Any]:
        """Facts for the liveness probe. That they are given shows that the event loop turns, which is what counts:

        a pass may take as long as an outage lasts, and a restart would lose the value that it holds.
        """
        return {"rotations": len(self.index), "waiting": len(self._rotations), "working": self._workers.busy}


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT. Raises SpoolError, and ConfigException without a usable kubeconfig."""
    spool = Spool.open(settings.spool_directory, settings.spool_key_file) if settings.spool_directory else None
    kube = await Kube.connect(settings.kubeconfig, settings.context)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    controller = Controller(kube, settings, spool, lambda: datetime.now(UTC))
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
