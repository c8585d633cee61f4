"""What the process answers over HTTP: the probes of the kubelet, and the metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler


class EndpointsError(Exception):
    """The address cannot be listened on; the message names it."""


class Endpoints:
    """`/healthz`, `/readyz` and `/metrics` at one address, on the event loop on which `open` is called."""

    def __init__(self, facts: Callable[[], dict[str, Any]], ready: Callable[[], bool], registry: CollectorRegistry):
        """facts: for the answer of both probes. That they are given shows that the event loop turns."""
        self._facts = facts
        self._ready = ready
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def open(self, address: str) -> None:
        """Listen on `host:port`. Raises EndpointsError."""
        host, _, port = address.rpartition(":")
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", make_aiohttp_handler(self._registry))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except (OSError, OverflowError, ValueError) as error:
            await runner.cleanup()
            raise EndpointsError(f"cannot listen on {address}, see --health: {error}") from None
        self._runner = runner

    async def aclose(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"keyturn": self._facts()})

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.json_response({"keyturn": self._facts()}, status=200 if self._ready() else 503)
