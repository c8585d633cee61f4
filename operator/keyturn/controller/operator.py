"""The operator: its parts, how they are joined, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from keyturn.cluster.client import Kube
from keyturn.cluster.leases import Leases
from keyturn.controller.controller import Controller
from keyturn.controller.crew import Crew, Shards, Single
from keyturn.controller.endpoints import Endpoints
from keyturn.controller.kopf_source import KopfSource
from keyturn.controller.leadership import Leadership, new_identity
from keyturn.controller.metrics import Metrics
from keyturn.controller.settings import Settings
from keyturn.controller.spool import Spool

_log = logging.getLogger(__name__)

_WAKE_SECONDS: Final = 0.02
"""Changes within this time lead to one look at a namespace."""
_THREADS_PER_WORKER: Final = 8
"""At most; only those are started that are needed."""


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


async def _either(*awaited: Coroutine[Any, Any, object]) -> None:
    """Return when one of these has come to its end."""
    tasks = [asyncio.create_task(one) for one in awaited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


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
            # Kopf lists everything once more: at the same time, each would hold up the other.
            await _either(controller.known(), stop.wait())
            await source.run()
        finally:
            stop.set()
            with contextlib.suppress(asyncio.CancelledError):
                await working
    finally:
        await endpoints.aclose()
        await kube.aclose()
        _log.info("stopped")
