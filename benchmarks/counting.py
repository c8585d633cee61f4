"""A proxy before the API server that counts what a client writes through it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from sandbox.controlplane.endpoint import Endpoint

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length"})


class CountingProxy:
    """Plain HTTP in, the API server's TLS out. `writes` counts "METHOD resource" of requests that were not dry runs.

    `answered`: the method and path of each write, with the time at which its answer was there, in epoch seconds.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.writes: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.answered: list[tuple[str, str, float]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on a free port; the value is the URL."""
        connector = aiohttp.TCPConnector(ssl=self._endpoint.ssl_context(), limit=0)
        # What is compressed is passed on as it is, and asked for only by who can read it.
        async with aiohttp.ClientSession(
            self._endpoint.server, connector=connector, auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
        ) as session:
            self._session = session
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._forward)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
            await site.start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if "dryRun" not in request.query:
            (self.reads if request.method in _READS else self.writes)[_named(request)] += 1
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        body, patience = await request.read(), aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, request.path_qs, headers=headers, data=body or None, timeout=patience
        ) as answer:
            if request.method not in _READS and "dryRun" not in request.query:
                self.answered.append((request.method, request.path, time.time()))
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            with contextlib.suppress(ConnectionError):  # who asked has gone
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            return response


def _named(request: web.Request) -> str:
    """`PATCH clientsecretrotations/status` for the path of that subresource of one object."""
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    what = "/".join([*parts[:1], *parts[2:]]) or "discovery"
    return f"{request.method} {what}" + (" (watch)" if "watch" in request.query else "")
