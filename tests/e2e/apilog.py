"""What an operator asks of the API server, in order: a proxy between the two that writes down every request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from sandbox.controlplane.endpoint import Endpoint
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT
from tests.e2e.scene import Scene

_NOT_FORWARDED: Final = {"host", "transfer-encoding", "content-length", "connection"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the operator. `time`: when it came, in seconds since the epoch. `what`: the last of the path."""

    time: float
    method: str
    path: str
    dry_run: bool

    @property
    def what(self) -> str:
        return "/".join(self.path.rstrip("/").split("/")[-2:])


@dataclass
class ApiLog:
    """The requests so far, without watches. `kubeconfig` leads an operator through the proxy."""

    kubeconfig: Path
    requests: list[Request] = field(default_factory=list)

    def about(self, scene: Scene, *, since: float = 0.0) -> list[Request]:
        """The requests that concern the scene's namespace, in the order in which they came."""
        place = f"/namespaces/{scene.namespace}/"
        return [one for one in self.requests if place in one.path and one.time >= since]


@contextmanager
def recorded(scene: Scene) -> Iterator[ApiLog]:
    """Serve a proxy before the API server for as long as the context lasts."""
    plane = scene.stage.control_plane
    upstream = plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    log = ApiLog(plane.directory / f"kubeconfig-recorded-{scene.namespace}")
    proxy = _Proxy(upstream, log)
    address = scene.stage.do(proxy.start())
    Endpoint(address, upstream.ca_file, upstream.token).write_kubeconfig(log.kubeconfig, "recorded")
    try:
        yield log
    finally:
        scene.stage.do(proxy.stop())


class _Proxy:
    def __init__(self, upstream: Endpoint, log: ApiLog) -> None:
        self._upstream = upstream
        self._log = log

    async def start(self) -> str:
        """Serve on a free port, and return the address."""
        connector = aiohttp.TCPConnector(ssl=self._upstream.ssl_context(), limit=0)
        self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._http.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if "watch" not in request.query:
            dry_run = "dryRun" in request.query
            self._log.requests.append(Request(time.time(), request.method, request.path, dry_run))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_FORWARDED}
        url = URL(self._upstream.server + request.raw_path, encoded=True)
        async with self._http.request(request.method, url, data=body or None, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_FORWARDED}
            response = web.StreamResponse(status=answer.status, headers=kept)
            with contextlib.suppress(ConnectionError):  # the operator has ended a watch
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            return response
