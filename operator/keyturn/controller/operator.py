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
from keyturn.controller.index import Index, Key, key_of, provider_key_of
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.queue import WorkQueue
from keyturn.controller.reconciler import Reconciler
from keyturn.controller.sweep import Sweep

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.05
"""Changes within this time lead to one look at a namespace."""
_STUCK_SECONDS: Final = 900.0
"""A pass that takes longer than this will not end: every request in it has a shorter timeout."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the operator runs.

    health_endpoint: URL on which Kopf answers the probes, or None. workers: rotations in work at the same time.
    sweep_interval: seconds between two searches for events that were missed.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    health_endpoint: str | None = None
    workers: int = 20
    sweep_interval: float = 600.0


class Controller:
    """Index, queue and workers; fed by an event source through `seen`."""

    def __init__(self, kube: Kube, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self.index = Index()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._accounts = Accounts(kube, self.index)
        self._observers = Observers(kube, lambda key: self._queue.add_after(key, _WAKE_SECONDS))
        self._reconciler = Reconciler(kube, self.index, self._accounts, self._observers, clock)
        self._sweep = Sweep(kube, self.index, self.seen, settings.sweep_interval)
        self._busy_since: dict[Key, float] = {}
        self._pass_ended = asyncio.Event()

    def seen(self, raw: dict[str, Any], deleted: bool) -> None:
        """Take in an event about one of Keyturn's own objects."""
        if raw["kind"] == ROTATIONS.kind:
            affected = (
                self.index.drop_rotation(key_of(raw)) | {key_of(raw)} if deleted else self.index.put_rotation(raw)
            )
        elif deleted:
            affected = self.index.drop_provider(provider_key_of(raw))
        else:
            affected = self.index.put_provider(raw)
        for key in affected:
            self._queue.add(key)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then let the passes that are under way come to their end, and close everything."""
        swept = asyncio.Event()
        sweeping = asyncio.create_task(self._sweep.run(swept), name="sweep")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        warm = asyncio.create_task(swept.wait(), name="warm-up")
        await asyncio.wait([stopping, warm], return_when=asyncio.FIRST_COMPLETED)
        _log.info("ready: %d rotations known", len(self.index))
        workers = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self._settings.workers)]
        await stopping
        _log.info("stopping: %d passes under way", len(self._busy_since))
        await self._drain(workers)
        for task in (sweeping, warm):
            task.cancel()
        await asyncio.gather(sweeping, warm, return_exceptions=True)
        self._queue.close()
        await self._observers.aclose()
        await self._accounts.aclose()

    def healthy(self) -> dict[str, Any]:
        """Facts for the liveness probe; raises RuntimeError when a restart would help."""
        now = asyncio.get_running_loop().time()
        oldest = max((now - since for since in self._busy_since.values()), default=0.0)
        if oldest > _STUCK_SECONDS:
            raise RuntimeError(f"a pass has been under way for {oldest:.0f} seconds")
        return {"rotations": len(self.index), "waiting": len(self._queue), "working": len(self._busy_since)}

    async def _drain(self, workers: list[asyncio.Task[None]]) -> None:
        """Idle workers are ended at once, busy ones between two steps: never between a call and its journal entry."""
        self._reconciler.stopping = True
        while self._busy_since:
            self._pass_ended.clear()
            await self._pass_ended.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._busy_since[key] = asyncio.get_running_loop().time()
            try:
                await self._reconcile(key)
            finally:
                self._busy_since.pop(key, None)
                self._queue.done(key)
                self._pass_ended.set()

    async def _reconcile(self, key: Key) -> None:
        try:
            again = await self._reconciler.reconcile(key)
        except Exception:  # noqa: BLE001 - a defect in one rotation must not stop the others
            _log.exception("unexpected error", extra={"object": f"{key[0]}/{key[1]}"})
            self._queue.add_backing_off(key)
            return
        if again is None:
            self._queue.forget(key)
        elif again.delay is None:
            self._queue.add_backing_off(key)
        else:
            self._queue.add_after(key, again.delay)


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    kube = await Kube.connect(settings.kubeconfig, settings.context)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    controller = Controller(kube, settings, lambda: datetime.now(UTC))
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
