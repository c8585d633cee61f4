"""Events from Kopf: its watches, its login, its probes and its handling of signals; none of its stateful handlers.

`on.event` writes nothing to objects. What Kopf leaves open (docs: KOPF.md) is closed here and in `sweep`: an outage, a
fatal error in a stream or an expired login ends Kopf, and it is started again; deletes that it misses are swept up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf

from keyturn.api.base import GROUP, VERSION
from keyturn.cluster.client import Kube
from keyturn.cluster.resources import CLUSTER_PROVIDERS, PROVIDERS, ROTATIONS
from keyturn.controller.source import Seen

_log = logging.getLogger(__name__)

_KINDS: Final = (ROTATIONS.plural, PROVIDERS.plural, CLUSTER_PROVIDERS.plural)
_RESTART_SECONDS: Final = 2.0
_CREDENTIALS_LIFE: Final = timedelta(minutes=10)


class EndlessBackoff:
    """Delays in seconds without an end, growing to half a minute, with jitter: an outage must not end the process."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            delay = min(delay * 2, 30.0)


class KopfSource:
    """Runs Kopf until `stop` is set, by this program or by SIGTERM or SIGINT.

    healthy: asked by the liveness probe; returns facts for its answer, and raises RuntimeError when a restart would help.
    """

    def __init__(
        self,
        kube: Kube,
        seen: Seen,
        stop: asyncio.Event,
        *,
        health_endpoint: str | None = None,
        healthy: Callable[[], dict[str, Any]],
    ) -> None:
        self._kube = kube
        self._seen = seen
        self._stop = stop
        self._health_endpoint = health_endpoint
        self._healthy = healthy

    async def run(self) -> None:
        """See `EventSource.run`."""
        self._take_signals()
        while not self._stop.is_set():
            try:
                await kopf.operator(
                    registry=self._registry(),
                    settings=_settings(),
                    clusterwide=True,
                    standalone=True,
                    liveness_endpoint=self._health_endpoint,
                    stop_flag=self._stop,
                )
            except Exception as error:  # noqa: BLE001 - whatever ended Kopf, the operator goes on
                _log.warning("Kopf ended (%s: %s) and is started again", type(error).__name__, error)
            # Kopf removes its own handlers' targets when it ends: a signal between two runs must count as well.
            self._take_signals()
            with contextlib.suppress(TimeoutError):
                pause = _RESTART_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                await asyncio.wait_for(self._stop.wait(), pause)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._stop.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.startup(registry=registry)
        async def take_signals(**_: Any) -> None:
            self._take_signals()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            credentials = await self._kube.credentials()
            return kopf.ConnectionInfo(**credentials, expiration=datetime.now(UTC) + _CREDENTIALS_LIFE)

        @kopf.on.probe(registry=registry, id="keyturn")
        async def probe(**_: Any) -> dict[str, Any]:
            try:
                return self._healthy()
            except RuntimeError as error:
                raise kopf.PermanentError(str(error)) from None

        for plural in _KINDS:

            @kopf.on.event(GROUP, VERSION, plural, registry=registry)
            async def event(event: kopf.RawEvent, **_: Any) -> None:
                raw: Any = event["object"]
                self._seen(raw, event["type"] == "DELETED")

        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.1
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoff()
    return settings
